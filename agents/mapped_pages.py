"""The pages of mapped weights that are in memory now: the system drops them when it wants memory, so none counts.

Linux says for each mapping of this process how much of it is in memory (/proc/self/smaps), which takes milliseconds to
read, and for all mappings of files together at once (/proc/self/statm). So the first is read when modules are loaded.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

__all__ = ["MappedPages", "resident_bytes"]

_SMAPS = Path("/proc/self/smaps")
#: Fields of the line that begins a mapping, if it is one of a file: the last is the path.
_FIELDS = 6


def resident_bytes(smaps: Iterable[str], folders: Iterable[str]) -> int:
    """Returns how many bytes of the files below some folders are in memory. Pure.

    Args:
        smaps: Lines of /proc/<pid>/smaps. Pages that were written to are the process's own and do not count.
        folders: Absolute paths, each with a `/` at its end.
    """
    below, found, counts = tuple(folders), 0, False
    for line in smaps:
        name, _, value = line.partition(" ")
        if not name.endswith(":"):
            fields = line.split(None, _FIELDS - 1)
            counts = len(fields) == _FIELDS and fields[-1].startswith(below)
        elif counts and name == "Rss:":
            found += 1024 * int(value.split()[0])
        elif counts and name == "Anonymous:":
            found -= 1024 * int(value.split()[0])
    return found


class MappedPages:
    """The folders whose files this process maps as weights. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._folders: Counter[str] = Counter()
        #: what the process shares with files beside the weights, and with other processes, bytes
        self._others = 0

    def __bool__(self) -> bool:
        """Whether any weights are mapped."""
        return bool(self._folders)

    def add(self, folder: Path, shared_bytes: int) -> None:
        """Takes it that files of a folder are about to be mapped.

        Args:
            folder: The folder.
            shared_bytes: What the process shares with files and other processes now.
        """
        with self._lock:
            if not self._folders:
                self._others = shared_bytes
            self._folders[_path(folder)] += 1

    def remove(self, folder: Path) -> None:
        """Takes it that a module with files of a folder is gone."""
        with self._lock:
            self._folders -= Counter({_path(folder): 1})

    def recount(self, shared_bytes: int) -> None:
        """Reads which of the shared bytes are of mapped weights."""
        with self._lock:
            if self._folders:
                try:
                    with _SMAPS.open(encoding="utf-8", errors="surrogateescape") as lines:
                        self._others = max(0, shared_bytes - resident_bytes(lines, self._folders))
                except OSError:  # the kernel does not say: all that is shared counts
                    self._others = shared_bytes

    def in_memory(self, shared_bytes: int) -> int:
        """Returns how many bytes of mapped weights are in memory, by what the process shares now."""
        return max(0, shared_bytes - self._others) if self._folders else 0


def _path(folder: Path) -> str:
    return f"{folder.resolve()}/"
