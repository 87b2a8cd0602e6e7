"""Reads the configuration of an existing Mosquitto in the order in which Mosquitto reads it. It changes nothing.

What is known here of Mosquitto 2.0: files of `include_dir` are read where that line stands, in the order of their
names, and only from the first file; each file begins outside of any `listener`; with `per_listener_settings true`,
settings of `PER_LISTENER` belong to the listener above them, else to all listeners wherever they stand.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from s2m3.schemas.errors import BadInputError

__all__ = ["PER_LISTENER", "Configuration", "Line", "read_configuration", "without_blocks"]

#: The options that `per_listener_settings` affects (mosquitto.conf(5)).
PER_LISTENER = re.compile(
    r"acl_file|allow_anonymous|allow_zero_length_clientid|auto_id_prefix|password_file|psk_file"
    r"|plugin|auth_plugin|(?:auth|plugin)_opt_\w+"
)
_BEGIN, _END, _MOVED = "# s2m3 begin", "# s2m3 end", "#s2m3: "


@dataclass(frozen=True, slots=True)
class Line:
    """One option.

    Args:
        file: The file.
        number: The line's index in the file.
        option: The option's name.
        value: The rest of the line.
        listener: The index of the `listener` line above it in the same file; None outside of any listener.
    """

    file: Path
    number: int
    option: str
    value: str
    listener: int | None

    @property
    def text(self) -> str:
        """The line as Mosquitto reads it."""
        return f"{self.option} {self.value}".rstrip()

    @property
    def port(self) -> int | None:
        """The port of a `listener` or `port` line; None for a Unix socket and any other line."""
        first = self.value.partition(" ")[0]
        return int(first) if self.option in ("listener", "port") and first.isdecimal() and int(first) else None

    def __str__(self) -> str:
        return f"{self.file}:{self.number + 1}: {self.text}"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The files of one Mosquitto.

    Args:
        main: The first file.
        texts: File -> its lines, in the order of reading, as they are without what `s2m3 secure` added.
        lines: All options, in the order of reading; those of the site's own file left out.
        folder: The folder of the first `include_dir`; None if there is none.
        is_joined: Whether the site's own file is among them.
    """

    main: Path
    texts: dict[Path, list[str]]
    lines: tuple[Line, ...]
    folder: Path | None
    is_joined: bool

    @property
    def listeners(self) -> list[Line]:
        """The `listener` lines."""
        return [line for line in self.lines if line.option == "listener"]

    @property
    def default_listener(self) -> Line | None:
        """The line that sets port or address of the listener without a `listener` line; None without such a line."""
        named = [line for line in self.lines if line.option in ("port", "bind_address") and line.listener is None]
        return next(iter(sorted(named, key=lambda line: line.option, reverse=True)), None)

    @property
    def is_per_listener(self) -> bool:
        """Whether all settings of PER_LISTENER stand below `per_listener_settings true`, which nothing takes back."""
        switches = [line.value == "true" for line in self.lines if line.option == "per_listener_settings"]
        first = next(
            (line for line in self.lines if _is_affected(line) or line.option == "per_listener_settings"), None
        )
        return bool(switches) and all(switches) and first is not None and first.option == "per_listener_settings"

    @property
    def affected(self) -> list[Line]:
        """The settings of PER_LISTENER."""
        return [line for line in self.lines if _is_affected(line)]


def _is_affected(line: Line) -> bool:
    return PER_LISTENER.fullmatch(line.option) is not None


def read_configuration(main: Path, own: Path) -> Configuration:
    """Returns the configuration.

    Args:
        main: The file that Mosquitto is started with.
        own: The site's own file, which is left out where it is included.

    Raises:
        BadInputError: A file cannot be read.
    """
    texts: dict[Path, list[str]] = {}
    lines: list[Line] = []
    folder, is_joined = None, False
    for line in _read(main, texts):
        if line.option != "include_dir":
            lines.append(line)
            continue
        folder = folder or Path(line.value)
        for included in sorted(Path(line.value).glob("*.conf"), key=str):
            if included.is_symlink() and (included.resolve() == own.resolve() or not included.exists()):
                is_joined = is_joined or included.resolve() == own.resolve()
            else:
                lines += _read(included, texts)
    return Configuration(main, texts, tuple(lines), folder, is_joined)


def _read(file: Path, texts: dict[Path, list[str]]) -> list[Line]:
    try:
        texts[file] = without_blocks(file.read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"{file} cannot be read: {error}") from error
    found: list[Line] = []
    listener = None
    for number, text in enumerate(texts[file]):
        option, _, value = text.strip().partition(" ")
        if not option or option.startswith("#"):
            continue
        if option == "listener":
            listener = number
        found.append(Line(file, number, option, value.strip(), listener))
    return found


def without_blocks(lines: Iterable[str]) -> list[str]:
    """Returns a file's lines without what `s2m3 secure` added, and with what it commented out."""
    found: list[str] = []
    inside = False
    for line in lines:
        if line.startswith(_BEGIN):
            inside = True
        elif line.startswith(_END):
            inside = False
        elif not inside:
            found.append(line.removeprefix(_MOVED))
    return found


def block(lines: Iterable[str], why: str) -> list[str]:
    """Returns lines to add, between marks that `without_blocks` finds."""
    return [f"{_BEGIN}: {why}", *lines, _END]


def commented_out(line: str) -> str:
    """Returns a line that Mosquitto passes over and `without_blocks` restores."""
    return f"{_MOVED}{line}"
