"""The options that all commands on the bus have, added by a decorator, and their conversion to settings."""

import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import structlog
import typer

from s2m3 import logs
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.settings import BrokerSettings, unknown_variables
from s2m3.schemas.wire.generation import read_options

if TYPE_CHECKING:
    from s2m3.broker.servers.launch import BrokerKind

__all__ = [
    "Architectures",
    "Json",
    "MaxTokens",
    "MetricsPort",
    "Seed",
    "StopTexts",
    "Temperature",
    "Threshold",
    "Timestamps",
    "Tolerance",
    "Verbose",
    "broker_kind",
    "how_to_write",
    "named_texts",
    "read_file",
    "with_settings",
]

_log = structlog.get_logger(__name__)
S = TypeVar("S", bound=BrokerSettings)


def _broker(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, rich_help_panel="Broker", show_default=False)


_BROKER_OPTIONS: dict[str, Any] = {
    "host": Annotated[str | None, _broker("--host", "name or address of the broker's machine [S2M3_HOST; 127.0.0.1]")],
    "port": Annotated[int | None, _broker("--port", "port of the broker [S2M3_PORT; 1883]")],
    "username": Annotated[str | None, _broker("--username", "user name at the broker [S2M3_USERNAME]")],
    "password_file": Annotated[
        Path | None, _broker("--password-file", "file that holds the password [or S2M3_PASSWORD]")
    ],
    "tls_ca": Annotated[Path | None, _broker("--tls-ca", "file of the CA certificate; turns TLS on [S2M3_TLS_CA]")],
    "tls_cert": Annotated[Path | None, _broker("--tls-cert", "file of the certificate of this login [S2M3_TLS_CERT]")],
    "tls_key": Annotated[Path | None, _broker("--tls-key", "file of the key of this login [S2M3_TLS_KEY]")],
    "root": Annotated[str | None, _broker("--root", "first levels of every topic [S2M3_ROOT; s2m3/v1]")],
}

Json = Annotated[bool, typer.Option("--json", help="print JSON")]
Architectures = Annotated[
    Path | None, typer.Option("--architectures", help="folder of further architectures (*.toml) [S2M3_ARCHITECTURES]")
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="log everything, and print tracebacks of errors")]


MetricsPort = Annotated[int | None, typer.Option(help="serve Prometheus metrics on this port of 127.0.0.1; 0: any")]


def _writing(flag: str, text: str) -> Any:
    return typer.Option(flag, help=text, rich_help_panel="Text that a model writes", show_default=False)


MaxTokens = Annotated[int | None, _writing("--max-tokens", "most tokens of the text [as many as the module allows]")]
StopTexts = Annotated[list[str] | None, _writing("--stop", "text before which the answer ends; repeat for several")]
Temperature = Annotated[
    float | None, _writing("--temperature", "0: the likeliest token is taken; above, up to 2: tokens are drawn [0]")
]
Seed = Annotated[int | None, _writing("--seed", "seed of the draws: the same one gives the same text")]
Timestamps = Annotated[bool, _writing("--timestamps", "say when each segment of a transcript was spoken")]
Threshold = Annotated[
    float | None,
    typer.Option(help="least score of an answer; below it, the answer is none of these; see `s2m3 calibrate`"),
]
Tolerance = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="relative error of tensors that slow links may round; 0.0005 allows float16 [0: none]"
    ),
]


def broker_kind(name: str | None, flag: str) -> "BrokerKind | None":
    """Returns the kind of broker that a flag names; None where it was not given.

    Raises:
        BadInputError: There is no such kind.
    """
    match name:
        case None | "mosquitto" | "embedded":
            return name
        case _:
            raise BadInputError(f"{flag} is mosquitto or embedded, not {name}")


def how_to_write(
    max_tokens: int | None,
    stop: list[str] | None,
    temperature: float | None,
    seed: int | None,
    *,
    timestamps: bool = False,
    wait: float | None = None,
) -> dict[str, Any]:
    """Returns the given generation options, validated.

    Raises:
        BadInputError: One of them is invalid.
    """
    found = {"max_tokens": max_tokens, "stop": stop or None, "temperature": temperature, "seed": seed}
    found |= {"timestamps": timestamps or None, "wait_s": wait}
    given = {name: value for name, value in found.items() if value is not None}
    read_options(given)
    return given


def with_settings(
    kind: type[S], *, quiet: bool = True, **own: Any
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Returns a decorator that gives `command(settings, …)` the broker's options, `--verbose` and those of `own`.

    Settings come from flags first, then from S2M3_* variables, then from the TOML file that S2M3_CONFIG names.

    Args:
        kind: The class of the settings.
        quiet: Whether to log only warnings and errors, as the output is the command's result.
        **own: Further settings that have a flag: field name -> annotated type.
    """
    flags = {**own, **_BROKER_OPTIONS}

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        def run(**given: Any) -> None:
            logs.configure(verbose=given.pop("verbose"), quiet=quiet)
            for text in unknown_variables():
                _log.warning("unknown_variable", text=text)
            chosen = {name: given.pop(name) for name in flags}
            secret = chosen.pop("password_file")
            password = _secret(secret) if secret is not None else None
            command(settings=kind.load(password=password, **chosen), **given)

        declared = {name: p for name, p in inspect.signature(command).parameters.items() if name != "settings"}
        parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in declared.values()]
        parameters += [_option(name, annotation, default=None) for name, annotation in flags.items()]
        parameters.append(_option("verbose", Verbose, default=False))
        run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
        run.__annotations__ = {p.name: p.annotation for p in parameters}
        run.__name__, run.__doc__ = command.__name__, command.__doc__
        return run

    return decorate


def _option(name: str, annotation: Any, *, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _secret(path: Path) -> str:
    try:
        return read_file(path).decode().strip()
    except UnicodeDecodeError as error:
        raise BadInputError(f"{path} is no text: {error.reason}") from error


def read_file(path: Path) -> bytes:
    """Returns what a file that was named on the command line holds.

    Raises:
        BadInputError: It cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}") from error


def named_texts(given: Sequence[str], option: str) -> dict[str, Any]:
    """Returns the texts of an option that is given as NAME=TEXT, several of one name as a list.

    Raises:
        BadInputError: One is not of this form.
    """
    found: dict[str, list[str]] = {}
    for one in given:
        name, is_set, text = one.partition("=")
        if not is_set or not name:
            raise BadInputError(f"{option} takes NAME=TEXT, not {one[:80]!r}")
        found.setdefault(name, []).append(text)
    return {name: texts if len(texts) > 1 else texts[0] for name, texts in found.items()}
