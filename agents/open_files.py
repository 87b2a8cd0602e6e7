"""How many files this process may have open, and how many connections of gateways fit among them."""

import sys
from contextlib import suppress

import psutil

if sys.platform != "win32":
    import resource

__all__ = ["most_gateways", "raise_limit"]

#: Open files that are kept for everything but gateways' sessions: weights that are read, connections that are being
#: opened, a reconnect before the old socket is gone.
_RESERVED = 24


def raise_limit() -> None:
    """Raises the soft limit of open files to the hard limit, which needs no rights. Many systems have 1,024 as soft."""
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with suppress(ValueError, OSError):  # macOS names no hard limit, and takes no such soft one
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def most_gateways(connections: int = 1) -> int | None:
    """Returns how many gateways fit beside what is open now, each of so many connections; None without a limit."""
    if sys.platform == "win32":
        return None
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    return max(0, (soft - psutil.Process().num_fds() - _RESERVED) // connections)
