"""The number of compute threads of an agent, which holds for every library that has threads of its own."""

import os
from pathlib import Path

import psutil
from threadpoolctl import threadpool_limits

__all__ = ["agents_here", "compute_threads", "limit_threads", "preparing_threads", "usable_cores"]

#: Where a container (cgroup v2) reads how much of the processors it may use.
_CPU_MAX = Path("/sys/fs/cgroup/cpu.max")
#: What OpenMP (torch), OpenBLAS (numpy), MKL and rayon (tokenizers) read when they are loaded.
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "RAYON_NUM_THREADS")
#: Most threads that prepare: each may hold a picture that is being decoded.
_MOST_PREPARING = 16


def usable_cores() -> int:
    """Returns the number of cores that this process may use: its affinity, and the share of its container."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = _CPU_MAX.read_text().split()
        return max(1, min(cores, int(quota) // int(period)))
    except (OSError, ValueError):  # no cgroup v2, or no limit ("max")
        return cores


def agents_here() -> int:
    """Returns the number of agents that run on this machine, at least 1; an agent and its supervisor count once."""
    found = {}
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        words = process.info["cmdline"] or ()
        if "agent" in words[1:4] and any("s2m3" in word for word in words[:3]):
            found[process.info["pid"]] = process.info["ppid"]
    return max(1, sum(parent not in found for parent in found.values()))


def compute_threads(setting: int | None) -> int:
    """Returns the number of compute threads of this agent.

    Args:
        setting: What `--threads` says; None for the machine's cores over the agents on it.
    """
    return setting or max(1, usable_cores() // agents_here())


def preparing_threads(threads: int, device: str = "cpu") -> int:
    """Returns the number of threads that prepare beside the worker.

    On the CPU they share the cores with the compute threads; beside an accelerator the cores are theirs.

    Args:
        threads: Compute threads.
        device: Where modules compute.
    """
    return min(_MOST_PREPARING, threads if device != "cpu" else max(1, threads // 2))


def limit_threads(threads: int) -> None:
    """Has every library compute with so many threads: those that are loaded, and those that will be.

    torch is told when it is imported (loading.py), and ONNX Runtime in the options of each session.
    """
    os.environ.update(dict.fromkeys(_VARIABLES, str(threads)))
    threadpool_limits(threads)
