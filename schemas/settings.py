"""Settings of every process: from flags, S2M3_* variables, or the TOML file that S2M3_CONFIG names, in this order."""

import os
import re
import socket
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from s2m3.schemas.dtypes import DtypeName
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.ids import Id

__all__ = [
    "AgentSettings",
    "BridgeSettings",
    "BrokerSettings",
    "CheckpointSettings",
    "PlannerSettings",
    "ServiceSettings",
]

_PATHS = ("tls_ca", "tls_cert", "tls_key", "models", "architectures")


class BrokerSettings(BaseSettings):
    """How to reach the broker, and what all parties on it agree on."""

    model_config = SettingsConfigDict(env_prefix="S2M3_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="of the broker")
    port: int = Field(default=1883, gt=0, lt=65_536)
    username: str | None = None
    password: SecretStr | None = None
    tls_ca: Path | None = Field(default=None, description="CA certificate; setting it turns TLS on")
    tls_cert: Path | None = Field(default=None, description="this client's certificate")
    tls_key: Path | None = Field(default=None, description="this client's key")
    session_key: SecretStr | None = Field(
        default=None, min_length=16, description="of planner and agents: makes their client ids unguessable"
    )
    client: Id | None = Field(default=None, description="name of a Client's inbox, where the broker's ACL demands one")
    keepalive_s: int = Field(default=5, ge=1, le=600, description="a frozen client is noticed after 1.5 times this")
    root: str = Field(default="s2m3/v1", description="first levels of every topic")
    max_message_mb: float = Field(default=32.0, gt=0, le=256, description="payloads over this are refused, unsent")

    @field_validator("root")
    @classmethod
    def _plain_levels(cls, root: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)*", root):
            raise ValueError("levels of lower-case letters, digits and dashes")
        return root

    @property
    def max_message_bytes(self) -> int:
        """The same limit in bytes."""
        return int(self.max_message_mb * 1_000_000)

    @classmethod
    def load(cls, **flags: object) -> Self:
        """Returns the settings; a flag that is None was not given.

        Raises:
            BadInputError: A value that is not possible, naming the setting; or the file cannot be read.
        """
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise BadInputError(f"setting {'.'.join(map(str, first['loc']))}: {first['msg']}") from error
        except tomllib.TOMLDecodeError as error:  # its text names the line and column
            raise BadInputError(f"settings file {os.environ.get('S2M3_CONFIG')}: {error}") from error

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Adds the TOML file behind flags and variables."""
        sources = (init_settings, env_settings, dotenv_settings, file_secret_settings)
        config = os.environ.get("S2M3_CONFIG")
        try:
            if config and not Path(config).is_file():
                raise BadInputError(f"settings file {config}: is not there")
            return (*sources, _File(settings_cls, toml_file=config)) if config else sources
        except OSError as error:
            raise BadInputError(f"settings file {config}: {error.strerror}") from error


class _File(TomlConfigSettingsSource):
    """The file's paths are relative to its own folder: settings and certificates can be carried anywhere together."""

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        data = super()._read_file(file_path)
        folder = Path(str(file_path)).parent
        return data | {name: str(folder / data[name]) for name in _PATHS if isinstance(data.get(name), str)}


def _host_id() -> str:
    """This device's name, made an id."""
    return re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:48] or "node"


class ServiceSettings(BrokerSettings):
    """What the services add: they can be looked into."""

    metrics_port: int | None = Field(default=None, ge=0, lt=65_536, description="serves Prometheus metrics; 0: any")
    metrics_host: str = Field(default="127.0.0.1", description="address to serve metrics on")


class CheckpointSettings(BrokerSettings):
    """What everything adds that reads checkpoints: agent, planner, `task add`, `split`, `models`, `plan`."""

    architectures: Path | None = Field(default=None, description="folder of further architectures (*.toml)")


class AgentSettings(ServiceSettings, CheckpointSettings):
    """Settings of `s2m3 agent`."""

    node: Id = Field(default_factory=_host_id, description="this device's name on the bus")
    memory_mb: float | None = Field(
        default=None, gt=0, description="for the whole process; default: half of what is free"
    )
    threads: int | None = Field(default=None, gt=0, description="compute threads; default: all cores")
    queue: int = Field(default=64, gt=0, description="items that may wait per module before `busy`")
    joins: int = Field(default=1024, gt=0, description="requests that may wait for a branch before `busy`")
    checkpoints: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="folders whose folders are checkpoints that modules may name as their source"
    )
    download: bool = Field(default=False, description="checkpoints may be fetched from the model hub")
    hang_s: float = Field(
        default=10.0, gt=0, description="a batch longer than this, its deadline and 20 times the longest before hangs"
    )
    dtype: DtypeName = Field(default="float32", description="of weights whose definition names none")
    gateway: bool = Field(
        default=True,
        validation_alias=AliasChoices("gateway", "S2M3_GATEWAY", "front", "S2M3_FRONT"),
        description="may take plain requests; not behind a bridge between brokers",
    )
    plain_inflight: int = Field(default=64, gt=0, description="plain requests a gateway works on at once, per task")

    @field_validator("checkpoints", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        """A variable holds them as PATH does."""
        return value.split(os.pathsep) if isinstance(value, str) else value


class PlannerSettings(ServiceSettings, CheckpointSettings):
    """Settings of `s2m3 planner`."""

    models: Path | None = Field(default=None, description="folder of further model definitions (*.toml)")
    settle_s: float = Field(default=0.1, ge=0, description="changes that come this close together are planned once")
    spare: bool = Field(default=True, description="fill spare memory with second copies")
    budget_s: float = Field(default=0.3, gt=0, description="time one placement may take")


class BridgeSettings(ServiceSettings):
    """Settings of `s2m3 bridge`."""

    homeassistant: bool = Field(default=True, description="announce nodes and tasks to Home Assistant")
    discovery_prefix: str = Field(default="homeassistant", description="as set in Home Assistant's MQTT integration")
    forget_s: float = Field(
        default=30.0, gt=0, description="what nobody has told again so long after a connect is gone"
    )

    @field_validator("discovery_prefix")
    @classmethod
    def _plain_prefix(cls, prefix: str) -> str:
        if not re.fullmatch(r"[\w-]+(/[\w-]+)*", prefix):
            raise ValueError("topic levels of letters, digits, dashes and underscores")
        return prefix
