"""Keeps an agent alive: runs it as a child process, and again when that crashes or hangs. Computes nothing itself.

A fork, not a new program: the child has all that is imported, and both share those pages. The keeper opens no socket
and starts no thread. When it dies the child goes with it, so that whoever kills the one has killed the node.
"""

import ctypes
import gc
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType

import structlog

from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.restart_policy import CrashHistory, RestartPolicy

__all__ = ["HUNG", "ProcessContext", "can_supervise", "supervise"]

_log = structlog.get_logger(__name__)
#: Exit code of an agent that found a module hung.
HUNG = 70
#: Once up, the loop turns twice a second. Silent for so long, the process is hung as a whole (native code that keeps
#: Python's lock); the broker has long since told everybody that the node is lost.
_SILENT_S = 60.0
_LOOK_S = 1.0
#: Before the second start and later ones: whatever it was (the broker away, memory gone) needs a moment.
_PAUSE_S = 1.0
_PR_SET_PDEATHSIG = 1

#: Told SIGINT or SIGTERM.
SignalHandler = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """What one process of the agent is given: where to mark what it is at, and what those before it died of."""

    blackbox: Blackbox
    crash_history: CrashHistory
    signals: int

    def on_signal(self, handler: SignalHandler) -> None:
        """Takes the keeper's orders from now on, in a thread of its own; ends with the keeper."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

        def listen() -> None:
            while forward := os.read(self.signals, 1):
                handler(forward[0])
            os._exit(1)

        threading.Thread(target=listen, name="orders", daemon=True).start()


class _Child:
    """One process, seen from its keeper."""

    def __init__(self, pid: int, alive: int, signals: int, blackbox: Blackbox) -> None:
        self._pid = pid
        self._alive = alive
        self._orders = signals
        self._blackbox = blackbox
        self.was_signalled = False

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Passes a signal on. The child ignores its own: a terminal or a service manager may send both of us one."""
        self.was_signalled = True
        try:
            os.write(self._orders, bytes([number]))
        except OSError:  # it is just ending
            return

    def wait(self) -> int:
        """Returns the exit code (minus the signal) once it has ended. Kills it if its loop turns no more."""
        beats, since = 0, time.monotonic()
        while not select.select([self._alive], [], [], _LOOK_S)[0]:
            now = time.monotonic()
            if self._blackbox.beats != beats or not beats:
                beats, since = self._blackbox.beats, now
            elif now - since > _SILENT_S:
                self._blackbox.reason = f"its loop has stood still for {_SILENT_S:g} s"
                os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._alive)
        os.close(self._orders)
        return os.waitstatus_to_exitcode(status)


def can_supervise() -> bool:
    """Whether this system can run a keeper at all (Windows cannot)."""
    return hasattr(os, "fork")


def supervise(run: Callable[[ProcessContext], None]) -> None:
    """Runs an agent until it ends by itself or by order; starts it again when it crashes.

    Args:
        run: The agent, in the child.

    Raises:
        SystemExit: With the child's exit code, if that is not 0, or 1 when it crashed too often.
        Exception: In the child: whatever `run` raises.
    """
    restarts, blackbox, crash_history = RestartPolicy(), Blackbox(), CrashHistory()
    again = False
    while True:
        child = _fork(blackbox)
        if isinstance(child, int):
            run(ProcessContext(blackbox, crash_history, child))
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, child.forward)
        code = child.wait()
        if child.was_signalled or not _is_crash(code, again=again):
            break
        why = _why(code, blackbox)
        marks = blackbox.marks()
        crash_history_after = restarts.after(
            why, marks, time.monotonic(), poison=code != -signal.SIGKILL or bool(blackbox.reason)
        )
        _log.error(
            "agent_died",
            why=why,
            at=" ".join(mark.module for mark in marks) or None,
            again=crash_history_after is not None,
        )
        if crash_history_after is None:
            code = 1
            break
        if again:
            time.sleep(_PAUSE_S)
        crash_history, again = crash_history_after, True
        blackbox.wipe()
    if code:
        sys.exit(code if code > 0 else 128 - code)


def _is_crash(code: int, *, again: bool) -> bool:
    """A signal, or a hang. A first start that fails in order (a wrong flag, no broker) is for a person to see to."""
    return code < 0 or code == HUNG or (again and code != 0)


def _why(code: int, blackbox: Blackbox) -> str:
    if blackbox.reason:
        return blackbox.reason
    if code == -signal.SIGKILL:
        return "killed by SIGKILL (out of memory?)"
    return signal.Signals(-code).name if code < 0 else f"ended with {code}"


def _fork(blackbox: Blackbox) -> _Child | int:
    """Returns the child to its keeper, and in the child where its orders come from."""
    supervisor = os.getpid()
    alive, alive_child = os.pipe()
    signals_child, signals = os.pipe()
    gc.freeze()  # a collection in either would touch, and so double, every page they share
    pid = os.fork()
    if pid:
        os.close(alive_child)
        os.close(signals_child)
        return _Child(pid, alive, signals, blackbox)
    os.close(alive)
    os.close(signals)
    _die_with(supervisor)
    return signals_child


def _die_with(supervisor: int) -> None:
    """Has the kernel kill us with our keeper (Linux); elsewhere the pipe of orders ends a little later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # it died before we asked
            os._exit(1)
