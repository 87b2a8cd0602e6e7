"""Memory of this process and of the device."""

import ctypes
import gc
import sys

import psutil

__all__ = ["available_mb", "default_budget_mb", "device_mb", "give_back", "rss_mb"]

_MB = 1_000_000


def rss_mb() -> float:
    """Returns the resident set of this process, in 10^6 bytes."""
    return psutil.Process().memory_info().rss / _MB


def device_mb() -> float:
    """Returns the total memory of the device, in 10^6 bytes."""
    return psutil.virtual_memory().total / _MB


def available_mb() -> float:
    """Returns the memory that is available without swapping, in 10^6 bytes."""
    return psutil.virtual_memory().available / _MB


def default_budget_mb() -> float:
    """Returns half of the memory that is available now, in 10^6 bytes."""
    return available_mb() / 2


def give_back() -> None:
    """Returns unused memory to the system: collects reference cycles, then trims malloc's heap (glibc only)."""
    gc.collect()
    if sys.platform == "linux":
        try:
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        except (OSError, AttributeError):  # another libc, without malloc_trim
            return
