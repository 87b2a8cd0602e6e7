"""Settings of every process: from flags, S2M3_* variables, or the TOML file that S2M3_CONFIG names, in this order."""

import difflib
import math
import os
import re
import socket
import tomllib
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AliasChoices, Field, SecretStr, ValidationError, ValidationInfo, field_validator
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
    "DoorSettings",
    "PlannerSettings",
    "ServiceSettings",
    "unknown_variables",
]

#: Ten years: an MQTT message cannot expire later than in 136.
_LONGEST_RETAINED_S = 315_360_000
_TLS = ("tls_ca", "tls_cert", "tls_key")
_PATHS = (*_TLS, "models", "architectures", "parts", "token_file", "exports", "history", "history_key")
_PREFIX = "S2M3_"
_PORTS = 65_536
#: Variables that are no settings: the name of the settings file, and what builds, brokers and tests are told.
_OTHER_VARIABLES = frozenset({"S2M3_CONFIG", "S2M3_WITHOUT_PAGE", "S2M3_WS_PASSWORD", "S2M3_TEST_HASS"})


class BrokerSettings(BaseSettings):
    """The broker's address, the login, and what all clients of one site must agree on."""

    model_config = SettingsConfigDict(env_prefix="S2M3_", frozen=True, extra="ignore", defer_build=True)

    host: str = Field(default="127.0.0.1", description="host name or address of the broker")
    port: int = Field(default=1883, gt=0, lt=_PORTS)
    fallback: str = Field(
        default="", description="more brokers of the same cluster, tried in turn: host:port,host:port"
    )
    username: str | None = None
    password: SecretStr | None = None
    tls_ca: Path | None = Field(default=None, description="CA certificate; setting it turns TLS on")
    tls_cert: Path | None = Field(default=None, description="this client's certificate")
    tls_key: Path | None = Field(default=None, description="this client's key")
    session_key: SecretStr | None = Field(
        default=None, min_length=16, description="makes the client ids of planner and agents unguessable; same for all"
    )
    client: Id | None = Field(default=None, description="name of a Client's inbox, where the broker's ACL demands one")
    keepalive_s: int = Field(default=5, ge=1, le=600, description="a dead client is noticed after 1.5 times this")
    root: str = Field(default="s2m3/v1", description="first levels of every topic")
    max_message_mb: float = Field(default=32.0, gt=0, le=256, description="larger payloads are not sent")

    @field_validator("root")
    @classmethod
    def _plain_levels(cls, root: str) -> str:
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*(/[a-z0-9][a-z0-9-]*)*", root):
            raise ValueError("levels of lower-case letters, digits and dashes")
        return root

    @field_validator("fallback")
    @classmethod
    def _hosts_and_ports(cls, fallback: str) -> str:
        for address in filter(None, fallback.split(",")):
            host, _, port = address.rpartition(":")
            if not host or not port.isdecimal() or not 0 < int(port) < _PORTS:
                raise ValueError(f"{address!r} is no host:port")
        return fallback

    @property
    def addresses(self) -> list[tuple[str, int]]:
        """Host and port of each broker of the site: the main one, and what is tried when it is not there."""
        found = [address.rpartition(":") for address in filter(None, self.fallback.split(","))]
        return [(self.host, self.port), *((host, int(port)) for host, _, port in found)]

    @property
    def max_message_bytes(self) -> int:
        """`max_message_mb` in bytes."""
        return int(self.max_message_mb * 1_000_000)

    @classmethod
    def load(cls, **flags: object) -> Self:
        """Returns the settings.

        Args:
            **flags: Values given on the command line; None means not given.

        Raises:
            BadInputError: A value is invalid (the text names the setting), or the settings file cannot be read.
        """
        try:
            return cls(**{name: value for name, value in flags.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            name, text = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
            raise BadInputError(f"setting {name}: {text}") from error
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
        """Adds the TOML file as the last source, after flags and variables."""
        sources = (init_settings, env_settings, dotenv_settings, file_secret_settings)
        config = os.environ.get("S2M3_CONFIG")
        try:
            if config and not Path(config).is_file():
                raise BadInputError(f"settings file {config}: is not there")
            return (*sources, _File(settings_cls, toml_file=config)) if config else sources
        except OSError as error:
            raise BadInputError(f"settings file {config}: {error.strerror}") from error


class _File(TomlConfigSettingsSource):
    """Refuses keys that no command has, and resolves relative paths from the file's own folder.

    One file may hold the settings of several commands. File and certificates can be moved together.
    """

    def _read_file(self, file_path: Path | Traversable) -> dict[str, Any]:
        data = super()._read_file(file_path)
        if unknown := [key for key in data if key not in _names()]:
            raise BadInputError(f"settings file {file_path}: no setting {unknown[0]!r}{_near(unknown[0], _names())}")
        folder = Path(str(file_path)).parent
        found = data | {name: str(folder / data[name]) for name in _PATHS if isinstance(data.get(name), str)}
        if isinstance(listed := data.get("checkpoints"), str | list):
            names = listed.split(os.pathsep) if isinstance(listed, str) else listed
            found["checkpoints"] = [str(folder / name) if isinstance(name, str) else name for name in names]
        return found


def _names() -> frozenset[str]:
    """Returns the names of all settings of all commands, also those of earlier releases."""
    found: set[str] = set()
    for kind in (AgentSettings, PlannerSettings, BridgeSettings, DoorSettings):
        for name, field in kind.model_fields.items():
            alias = field.validation_alias
            found |= {name, *(map(str, alias.choices) if isinstance(alias, AliasChoices) else ())}
    return frozenset(name for name in found if not name.startswith(_PREFIX))


def _near(name: str, names: frozenset[str]) -> str:
    """Returns the words that offer the most similar name; none if no name is similar."""
    near = difflib.get_close_matches(name.replace("-", "_"), sorted(names), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def unknown_variables() -> list[str]:
    """Returns a text for each environment variable S2M3_* that no command reads, with the most similar known name."""
    known = frozenset(f"{_PREFIX}{name.upper()}" for name in _names()) | _OTHER_VARIABLES
    unknown = sorted(name for name in os.environ if name.startswith(_PREFIX) and name not in known)
    return [f"no setting has the variable {name}{_near(name, known)}" for name in unknown]


def _host_id() -> str:
    """Returns this device's host name as an id."""
    return re.sub(r"[^a-z0-9]+", "-", socket.gethostname().lower()).strip("-")[:48] or "node"


class ServiceSettings(BrokerSettings):
    """The settings that all services have: where metrics are served."""

    metrics_port: int | None = Field(default=None, ge=0, lt=65_536, description="serves Prometheus metrics; 0: any")
    metrics_host: str = Field(default="127.0.0.1", description="address to serve metrics on")


class CheckpointSettings(BrokerSettings):
    """The settings of everything that reads checkpoints: agent, planner, `task add`, `split`, `models`, `plan`."""

    architectures: Path | None = Field(default=None, description="folder of further architectures (*.toml)")


class AgentSettings(ServiceSettings, CheckpointSettings):
    """Settings of `s2m3 agent`."""

    node: Id = Field(default_factory=_host_id, description="this device's name on the bus")
    memory_mb: float | None = Field(
        default=None,
        gt=0,
        description="memory budget of the whole process, or of the device; default: by what is free",
    )
    device: str = Field(
        default="cpu",
        pattern=r"^(cpu|auto|mps|(cuda|xpu)(:[0-9]{1,3})?)$",
        description="where modules compute: cpu, cuda:N, mps, xpu:N, or auto",
    )
    host_memory_mb: float | None = Field(
        default=None, gt=0, description="beside a device's own: budget of the process in the host's memory"
    )
    threads: int | None = Field(
        default=None, gt=0, description="compute threads; default: the cores over the agents of the machine"
    )
    queue: int = Field(default=64, gt=0, description="items that may wait per module before `busy`")
    joins: int = Field(default=1024, gt=0, description="requests that may wait for further inputs before `busy`")
    checkpoints: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(), description="folders with checkpoint folders that modules may name as their source"
    )
    runtime: Literal["onnx", "torch"] | None = Field(
        default=None, description="run networks with this alone; default: with whichever of the installed is faster"
    )
    exports: Path | None = Field(
        default=None, description="folder that `s2m3 weights --light` made; default: in the user's cache"
    )
    parts: Path | None = Field(
        default=None, description="folder of the parts that came from other nodes; default: in the user's cache"
    )
    parts_mb: float | None = Field(
        default=None, ge=0, description="most of it; default: half of the free disk; 0: nothing is fetched or sent"
    )
    download: bool = Field(default=False, description="whether checkpoints may be fetched from the model hub")
    hang_s: float = Field(
        default=10.0, gt=0, description="a batch hangs that is longer than this, its deadline and 20 times the longest"
    )
    dtype: DtypeName = Field(default="float32", description="dtype of weights whose definition names none")
    gateway: bool = Field(
        default=True,
        validation_alias=AliasChoices("gateway", "S2M3_GATEWAY", "front", "S2M3_FRONT"),
        description="whether to take plain requests; not behind a bridge between brokers",
    )
    sleep_command: str | None = Field(
        default=None,
        min_length=1,
        max_length=4_096,
        description="puts this machine to sleep, e.g. systemctl suspend; default: it may not",
    )
    sleep_grace_s: float = Field(
        default=30.0, ge=0, description="the agent comes back if the machine has not slept so long after the command"
    )
    plain_inflight: int = Field(default=64, gt=0, description="plain requests in flight of a gateway, per task")

    @field_validator("checkpoints", mode="before")
    @classmethod
    def _paths(cls, value: object) -> object:
        """Splits a value of a variable as PATH is split."""
        return value.split(os.pathsep) if isinstance(value, str) else value


class PlannerSettings(ServiceSettings, CheckpointSettings):
    """Settings of `s2m3 planner`."""

    models: Path | None = Field(default=None, description="folder of further model definitions (*.toml)")
    settle_s: float = Field(default=0.1, ge=0, description="several changes within this time are planned once")
    spare: bool = Field(default=True, description="fill spare memory with stand-ins and second copies")
    steady_s: float = Field(default=5.0, ge=0, description="a task's better model that is back answers after this time")
    budget_s: float = Field(default=0.3, gt=0, description="longest computing time of one placement")
    wake_interval_s: float = Field(
        default=60.0, ge=1, description="least seconds between two magic packets to a sleeping node"
    )


class BridgeSettings(ServiceSettings):
    """Settings of `s2m3 bridge`."""

    homeassistant: bool = Field(default=True, description="announce nodes and tasks to Home Assistant")
    discovery_prefix: str = Field(default="homeassistant", description="as set in Home Assistant's MQTT integration")
    forget_s: float = Field(
        default=30.0, gt=0, description="what was not published again so long after a connect is gone"
    )
    pictures: float = Field(
        default=600.0, description="seconds that a task's last picture stays retained; off: pictures are not published"
    )
    answers: float = Field(
        default=86_400.0, description="seconds that last answers stay retained; off: not retained; keep: no limit"
    )
    history: Path | None = Field(
        default=None, description="file that keeps answers and pictures for the page; none: in memory, for ten minutes"
    )
    history_key: Path | None = Field(
        default=None, description="file (mode 600) with the key that encrypts the history; made if it is not there"
    )
    history_mb: float = Field(default=100.0, ge=10, le=1_000_000, description="most megabytes of that file")
    history_days: float = Field(default=14.0, gt=0, le=3_650, description="days that an answer stays in that file")

    @field_validator("pictures", "answers", mode="before")
    @classmethod
    def _duration(cls, given: object, info: ValidationInfo) -> object:
        words = {"off": 0.0} | ({"keep": math.inf} if info.field_name == "answers" else {})
        if isinstance(given, str) and given in words:
            return words[given]
        try:
            seconds = float(given) if isinstance(given, int | float | str) and given is not True else math.nan
        except ValueError:
            seconds = math.nan
        if not (1 <= seconds <= _LONGEST_RETAINED_S or seconds in words.values()):
            raise ValueError(f"{', '.join(words)} or seconds, at least 1 and at most {_LONGEST_RETAINED_S:,}")
        return seconds

    @field_validator("discovery_prefix")
    @classmethod
    def _plain_prefix(cls, prefix: str) -> str:
        if not re.fullmatch(r"[\w-]+(/[\w-]+)*", prefix):
            raise ValueError("topic levels of letters, digits, dashes and underscores")
        return prefix


class DoorSettings(ServiceSettings):
    """Settings of `s2m3 serve`."""

    bind: str = Field(default="127.0.0.1", description="address that the doors listen on; others need a token")
    http_port: int = Field(default=11_434, ge=0, lt=65_536, description="of Ollama's and OpenAI's API; 0: any")
    token: SecretStr | None = Field(default=None, min_length=16, description="what callers of the HTTP doors must send")
    token_file: Path | None = Field(default=None, description="a file that holds the token, instead")
    allow_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="further names by which callers reach the HTTP doors (header Host)"
    )
    allow_origins: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(), description="web pages that may call the HTTP doors: https://chat.example"
    )
    max_body_mb: float = Field(default=48.0, gt=0, le=1024, description="larger requests are refused")
    max_connections: int = Field(default=128, ge=1, description="connections of the HTTP doors at once")
    max_requests: int = Field(default=32, ge=1, description="requests of the HTTP doors at once")
    header_s: float = Field(default=10.0, gt=0, description="longest time that a request's header may take to arrive")
    body_s: float = Field(default=60.0, gt=0, description="longest time that a request's body may take to arrive")
    request_s: float = Field(default=600.0, gt=0, description="longest time of a whole request")
    partial_s: float = Field(
        default=1.0, ge=0, description="a sound that is coming is heard after so many seconds more; 0: at its end only"
    )

    wyoming_bind: str = Field(default="127.0.0.1", description="address of the Wyoming door, which has no token")
    wyoming_port: int = Field(default=10_300, ge=0, lt=65_536, description="of the Wyoming door; 0: any")
    wyoming_languages: str = Field(default="", description="of tasks at the Wyoming door: speech=en,de")
    wyoming_announce: bool = Field(default=True, description="whether the network is told of the Wyoming door (mDNS)")

    @field_validator("allow_hosts", "allow_origins", mode="before")
    @classmethod
    def _several(cls, value: object) -> object:
        """Splits a value of a variable at commas."""
        return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value
