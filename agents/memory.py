"""Memory of this process and of the device."""

import ctypes
import gc
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from s2m3.agents.mapped_pages import MappedPages
from s2m3.broker import metrics

__all__ = [
    "available_mb",
    "count_as_mapped",
    "decoding_room_bytes",
    "default_budget_mb",
    "device_mb",
    "forget_mapped",
    "give_back",
    "keep_freed_memory",
    "recounted_rss_mb",
    "reserved_for_decoding",
    "rss_mb",
    "set_budget_mb",
    "trim_heap",
]

_MB = 1_000_000
#: Part of what the device has free that decoding one picture may take, and the most, in bytes.
_DECODING_PART, _DECODING_MOST = 0.5, 512 * _MB
#: Excess over the budget that decoding may cause: as much as memory pressure tolerates (pressure.py), and the least.
_OVER, _OVER_LEAST = 0.25, 64 * _MB
#: The process's memory budget, bytes; empty without one.
_budget: list[float] = []
#: The weights that are mapped from files.
_mapped = MappedPages()
#: glibc's numbers of two settings of malloc: from what size on it maps memory of its own for one piece, and how much
#: that is free it keeps. What it keeps, so that a network's next run finds the pages of the run before, bytes: for
#: pictures of one pass of a small network, and where the budget is large for four of them.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT_SMALL, _KEPT, _LARGE_BUDGET_MB = 32 << 20, 64 << 20, 512.0
#: Where a container (cgroup v2) reads its own limit and what it takes.
_CGROUP = Path("/sys/fs/cgroup")


def rss_mb() -> float:
    """Returns the resident set of this process without the pages of mapped weights, in 10^6 bytes."""
    info = psutil.Process().memory_info()
    return (info.rss - (_mapped.in_memory(info.shared) if _mapped else 0)) / _MB


def recounted_rss_mb() -> float:
    """Returns the same for measuring what a step of loading takes: pages of files that are no weights count anew."""
    if _mapped:
        _mapped.recount(psutil.Process().memory_info().shared)
    return rss_mb()


def count_as_mapped(folder: Path) -> None:
    """Takes it that a module maps weights below a folder: their pages are not this process's memory."""
    _mapped.add(folder, psutil.Process().memory_info().shared)


def forget_mapped(folder: Path) -> None:
    """Takes it that a module that mapped weights below a folder is gone."""
    _mapped.remove(folder)


def device_mb() -> float:
    """Returns the total memory of the device, in 10^6 bytes."""
    return psutil.virtual_memory().total / _MB


def available_mb() -> float:
    """Returns the memory that is available without swapping, in 10^6 bytes."""
    return psutil.virtual_memory().available / _MB


def set_budget_mb(budget_mb: float) -> None:
    """Sets the memory budget of this process, 10^6 bytes; without a budget, decoding has what the device has.

    What malloc keeps of freed memory follows the budget (keep_freed_memory).
    """
    _budget[:] = [budget_mb * _MB]
    metrics.HOST_MEMORY_BUDGET.set(budget_mb * _MB)
    keep_freed_memory(budget_mb)


def decoding_room_bytes() -> int:
    """Returns what decoding one picture may take now.

    That is half of what device and container have free, at most 512 MB; and at most what is free of the process's
    budget, with a quarter of the budget (at least 64 MB) on top.
    """
    free = min(psutil.virtual_memory().available, _container_free())
    return max(0, min(int(free * _DECODING_PART), _DECODING_MOST, _budget_room()))


class _Reserved:
    """What the pictures that are being decoded take together, in bytes."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.nbytes = 0


_reserved = _Reserved()


@contextmanager
def reserved_for_decoding(nbytes: int | None) -> Iterator[int]:
    """Context in which a picture is decoded; it waits until the room is enough for those decoded at once.

    Args:
        nbytes: What decoding takes at its highest; None if that is not known: then nothing else is decoded meanwhile.

    Yields:
        What decoding may take now, as decoding_room_bytes.
    """
    with _reserved.changed:
        while _reserved.nbytes:
            room = decoding_room_bytes()
            if _reserved.nbytes + (room if nbytes is None else nbytes) <= room:
                break
            _reserved.changed.wait()
        room = decoding_room_bytes()
        taken = max(1, room if nbytes is None else nbytes)
        _reserved.nbytes += taken
    try:
        yield room
    finally:
        with _reserved.changed:
            _reserved.nbytes -= taken
            _reserved.changed.notify_all()


def _budget_room() -> int:
    if not _budget:
        return sys.maxsize
    budget = _budget[0]
    return int(max(0.0, budget - rss_mb() * _MB) + max(budget * _OVER, _OVER_LEAST))


def _container_free() -> int:
    """Returns what the container may still take, in bytes; more than any device has where there is no limit."""
    try:
        limit, taken = (int((_CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        pages = ("inactive_file", "active_file") if _mapped else ("inactive_file",)
        return limit - taken + sum(int(stat.get(name, 0)) for name in pages)
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        return sys.maxsize


def default_budget_mb() -> float:
    """Returns half of the memory that is available now, in 10^6 bytes."""
    return available_mb() / 2


def keep_freed_memory(budget_mb: float = _LARGE_BUDGET_MB) -> None:
    """Has malloc keep some of the memory that is freed, until `give_back` (glibc only).

    Otherwise every run of a network gets its activations as new pages of the system and returns them: half of the time
    of a small network.

    Args:
        budget_mb: The memory budget of this process, 10^6 bytes.
    """
    if sys.platform == "linux":
        kept = _KEPT if budget_mb >= _LARGE_BUDGET_MB else _KEPT_SMALL
        with suppress(OSError, AttributeError):  # another libc, without mallopt
            libc = ctypes.CDLL("libc.so.6")
            libc.mallopt(_M_MMAP_THRESHOLD, kept)
            libc.mallopt(_M_TRIM_THRESHOLD, kept)


def give_back() -> None:
    """Returns unused memory to the system: collects reference cycles, then trims malloc's heap."""
    gc.collect()
    trim_heap()


def trim_heap() -> None:
    """Returns the unused pages of malloc's heap to the system (glibc only); it takes about a millisecond."""
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):  # another libc, without malloc_trim
            return
