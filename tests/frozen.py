"""SIGSTOP for a process with all that it keeps: as a device that hangs, or whose battery is empty."""

import signal
import subprocess

import psutil


def freeze(process: subprocess.Popen[bytes]) -> None:
    for one in _family(process):
        one.send_signal(signal.SIGSTOP)


def thaw(process: subprocess.Popen[bytes]) -> None:
    for one in _family(process):
        one.send_signal(signal.SIGCONT)


def agent_of(process: subprocess.Popen[bytes]) -> psutil.Process:
    """Returns the agent itself, a child of the keeper that was started."""
    (child,) = psutil.Process(process.pid).children()
    return child


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    keeper = psutil.Process(process.pid)
    return [keeper, *keeper.children(recursive=True)]
