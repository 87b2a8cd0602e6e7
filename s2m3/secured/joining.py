"""Joins a secured site's listeners to an existing Mosquitto without changing who may use its own listeners. Pure.

The site's file needs `per_listener_settings true`, which changes the scope of the household's settings. They are moved
below each of its listeners, so that each keeps them, with an access list that excludes the site's topics.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from s2m3.schemas.errors import BadInputError
from s2m3.secured.existing import Configuration, Line, block, commented_out

__all__ = ["LOCAL_FILE", "OWN_FILE", "Joining", "join"]

#: The names of the files in Mosquitto's `include_dir`: the link to the site's file, and the listener for this machine
#: alone, which a Mosquitto without any listener has by default.
OWN_FILE, LOCAL_FILE = "00-s2m3.conf", "01-s2m3-local.conf"
#: Options of the whole broker -> the least value that the site needs (0 is no limit), and the effect of less.
_LEAST = {
    "max_packet_size": (33_000_000, "larger pictures and sounds are refused"),
    "message_size_limit": (33_000_000, "larger pictures and sounds are dropped"),
    "max_queued_messages": (20_000, "what waits beyond it is dropped without a word"),
}
_ON = {
    "persistence": "tasks and waiting requests are lost with each restart of the broker",
    "set_tcp_nodelay": "each hop of a request waits some 40 ms",
}


@dataclass(slots=True)
class Joining:
    """The files to write, with notes for people.

    Args:
        link: The path of the link to the site's file.
        files: File -> its new lines.
        notes: One line each about a change, its reason, or a consequence.
    """

    link: Path
    files: dict[Path, list[str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    #: the files as they are now
    before: dict[Path, list[str]] = field(default_factory=dict)

    def changed(self) -> list[Path]:
        """The files that change."""
        return [file for file, lines in self.files.items() if self.before.get(file) != lines]


def join(there: Configuration, at: str, root: str, ports: Iterable[int], *, has_ipv6: bool) -> Joining:
    """Returns the changes that join a site to an existing Mosquitto.

    Args:
        there: The Mosquitto's configuration.
        at: The path of the broker's files of the site.
        root: First levels of the site's topics.
        ports: The ports of the site's listeners.
        has_ipv6: Whether this machine can listen on ::1.

    Raises:
        BadInputError: The site's listeners cannot be joined; the text has the reason and a remedy.
    """
    if there.folder is None:
        raise BadInputError(
            f"{there.main} has no include_dir: add a line `include_dir FOLDER` at its end, and a folder"
        )
    for line in [*there.listeners, *filter(None, [there.default_listener])]:
        if line.port in set(ports):
            raise BadInputError(
                f"port {line.port} is taken by a listener of yours ({line}): --first-port chooses others"
            )
    made = Joining(there.folder / OWN_FILE)
    edits = _Edits(there, made)
    others = f"acl_file {at}/acl-others"
    if there.is_per_listener:
        settings: dict[str, Line] = {}
    else:
        settings = {line.option: line for line in there.affected}
        _switch(there, edits)
        _check_plugins(there, settings)
    for listener in there.listeners:
        _settle(listener, there, settings, edits, others)
    if (default := there.default_listener) is not None:
        _settle_default(default, there, edits, others)
    elif not there.listeners:
        _keep_local(there, made, settings, edits, others, has_ipv6=has_ipv6)
    else:
        _settle_loose(there, edits, others)
    edits.finish()
    made.notes += _lacking(there)
    made.notes.append(f"the site's listeners on {', '.join(map(str, ports))}: link {made.link} -> {at}/mosquitto.conf")
    made.notes.append(f"topics below {root}/ are then for the site's logins; your listeners keep all others")
    return made


class _Edits:
    """Insertions and comments in the household's files, by line."""

    def __init__(self, there: Configuration, made: Joining) -> None:
        self._there = there
        self._made = made
        self._after: dict[tuple[Path, int], list[str]] = {}
        self._moved: set[tuple[Path, int]] = set()

    def insert(self, file: Path, after: int, lines: list[str], why: str) -> None:
        """Adds lines after a line of a file; after -1 at its beginning."""
        if lines:
            self._after[file, after] = block(lines, why)

    def note(self, text: str) -> None:
        """Adds a line for people."""
        self._made.notes.append(text)

    def move(self, lines: Iterable[Line]) -> None:
        """Comments lines out."""
        for line in lines:
            self._moved.add((line.file, line.number))
            self._made.notes.append(f"commented out: {line}")

    def finish(self) -> None:
        """Writes the new texts of the files."""
        for file, lines in self._there.texts.items():
            text = list(self._after.get((file, -1), []))
            for number, line in enumerate(lines):
                text.append(commented_out(line) if (file, number) in self._moved else line)
                text += self._after.get((file, number), [])
            self._made.files.setdefault(file, text)


def _switch(there: Configuration, edits: _Edits) -> None:
    """Sets `per_listener_settings true` before everything else."""
    edits.move(line for line in there.lines if line.option == "per_listener_settings" and line.value != "true")
    edits.insert(there.main, -1, ["per_listener_settings true"], "the site's listeners have logins of their own")


def _settle(listener: Line, there: Configuration, settings: dict[str, Line], edits: _Edits, others: str) -> None:
    """Gives one listener of the household the settings that it has now, and the access list for others."""
    own = {
        line.option: line for line in there.affected if (line.file, line.listener) == (listener.file, listener.number)
    }
    edits.move(line for option, line in own.items() if option in settings and settings[option].value != line.value)
    lacking = [line for option, line in settings.items() if option not in own or own[option].value != line.value]
    lines = [line.text for line in lacking]
    acl = (settings | own).get("acl_file")
    if acl is None:
        lines.append(others)
        edits.note(f"your listener {listener.value} gets: {others}")
    else:
        edits.note(_keeps_its_list(listener, acl))
    for line in lacking:
        edits.note(f"your listener {listener.value} keeps, below it: {line.text}")
    edits.insert(listener.file, listener.number, lines, "this listener's settings")


def _keeps_its_list(listener: Line, acl: Line) -> str:
    return (
        f"your listener {listener.value} keeps its own access list {acl.value}: whoever may write the site's topics "
        "there decides what your devices load; let it deny them"
    )


def _settle_default(default: Line, there: Configuration, edits: _Edits, others: str) -> None:
    """Leaves the settings outside of listeners in place, for the listener of `port` or `bind_address`."""
    loose = [line for line in there.affected if line.listener is None]
    acl = next((line for line in loose if line.option == "acl_file"), None)
    inside = [] if there.is_per_listener else [line for line in there.affected if line.listener is not None]
    lines = [line.text for line in inside if line.option not in {other.option for other in loose}]
    if acl is None and not any(line.startswith("acl_file ") for line in lines):
        lines.append(others)
        edits.note(f"your listener of `{default.text}` gets: {others}")
    edits.insert(default.file, default.number, lines, "this listener's settings")


def _settle_loose(there: Configuration, edits: _Edits, others: str) -> None:
    """Comments out the settings outside of listeners, of which every listener has got its copy."""
    loose = [line for line in there.affected if line.listener is None]
    if not there.is_per_listener:
        edits.move(loose)
    elif loose and not any(line.option == "acl_file" for line in loose):
        edits.insert(loose[-1].file, loose[-1].number, [others], "for the listener on 1883 that these settings open")


def _keep_local(
    there: Configuration,
    made: Joining,
    settings: dict[str, Line],
    edits: _Edits,
    others: str,
    *,
    has_ipv6: bool,
) -> None:
    """Adds a listener for this machine alone on port 1883, which Mosquitto has only while it has no other listener."""
    edits.move(line for line in there.affected)
    lines = [line.text for line in (settings or {line.option: line for line in there.affected}).values()]
    if not any(line.startswith("allow_anonymous ") for line in lines):
        lines.append("allow_anonymous true")
    if not any(line.startswith("acl_file ") for line in lines):
        lines.append(others)
    addresses = ["127.0.0.1", *(["::1"] if has_ipv6 else [])]
    text = [line for address in addresses for line in [f"listener 1883 {address}", *lines, ""]]
    local = made.link.with_name(LOCAL_FILE)
    made.files[local] = block(text, "what Mosquitto opens by itself where no listener is named")
    made.notes.append(f"no listener is named, so 1883 is for this machine alone: it stays so, with {local}")


def _check_plugins(there: Configuration, settings: dict[str, Line]) -> None:
    plugins = [line for option, line in settings.items() if option in ("plugin", "auth_plugin")]
    if plugins and len(there.listeners) + (there.default_listener is not None) > 1:
        raise BadInputError(
            f"a plugin for several listeners ({plugins[0]}) cannot be kept by each: set per_listener_settings true, "
            "and the plugin below the listeners that it is for, then try again"
        )


def _lacking(there: Configuration) -> list[str]:
    """Returns what the household's own settings of the whole broker take from the site."""
    found = []
    for line in there.lines:
        least, means = _LEAST.get(line.option, (0, ""))
        if line.value.isdecimal() and 0 < int(line.value) < least:
            found.append(f"{line}: {means}; the site wants {least}")
        elif line.option in _ON and line.value == "false":
            found.append(f"{line}: {_ON[line.option]}")
    return found
