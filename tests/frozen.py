"""SIGSTOP for a process with all that it keeps: as a device that hangs, or whose battery is empty."""

import signal
import subprocess
import time
from pathlib import Path

import psutil

from tests.conftest import WAIT_S


def freeze(process: subprocess.Popen[bytes]) -> None:
    """Returns when every thread of it has stopped: on a busy machine that takes longer than to send the signal."""
    family = _family(process)
    for one in family:
        one.send_signal(signal.SIGSTOP)
    ends = time.monotonic() + WAIT_S
    while not all(_stopped(one.pid) for one in family):
        assert time.monotonic() < ends, "a process would not stop"
        time.sleep(0.002)


def thaw(process: subprocess.Popen[bytes]) -> None:
    for one in _family(process):
        one.send_signal(signal.SIGCONT)


def agent_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """Returns the agent itself, a child of the supervisor that was started."""
    (child,) = psutil.Process(process.pid).children()
    return child


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    supervisor = psutil.Process(process.pid)
    return [supervisor, *supervisor.children(recursive=True)]


def _stopped(pid: int) -> bool:
    """Whether all its threads are in state T (proc(5): the field behind the name in parentheses)."""
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in threads)
