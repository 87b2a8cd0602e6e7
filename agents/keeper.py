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

from agents.blackbox import Blackbox
from agents.restarts import Lessons, Restarts

__all__ = ["HUNG", "Life", "can_keep", "keep"]

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
Order = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Life:
    """What one process of the agent is given: where to mark what it is at, and what those before it died of."""

    blackbox: Blackbox
    lessons: Lessons
    orders: int

    def obey(self, handler: Order) -> None:
        """Takes the keeper's orders from now on, in a thread of its own; ends with the keeper."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)

        def listen() -> None:
            while order := os.read(self.orders, 1):
                handler(order[0])
            os._exit(1)

        threading.Thread(target=listen, name="orders", daemon=True).start()


class _Child:
    """One process, seen from its keeper."""

    def __init__(self, pid: int, alive: int, orders: int, blackbox: Blackbox) -> None:
        self._pid = pid
        self._alive = alive
        self._orders = orders
        self._blackbox = blackbox
        self.ordered = False

    def order(self, number: int, _frame: FrameType | None) -> None:
        """Passes a signal on. The child ignores its own: a terminal or a service manager may send both of us one."""
        self.ordered = True
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


def can_keep() -> bool:
    """Whether this system can run a keeper at all (Windows cannot)."""
    return hasattr(os, "fork")


def keep(run: Callable[[Life], None]) -> None:
    """Runs an agent until it ends by itself or by order; starts it again when it crashes.

    Args:
        run: The agent, in the child.

    Raises:
        SystemExit: With the child's exit code, if that is not 0, or 1 when it crashed too often.
        Exception: In the child: whatever `run` raises.
    """
    restarts, blackbox, lessons = Restarts(), Blackbox(), Lessons()
    again = False
    while True:
        child = _fork(blackbox)
        if isinstance(child, int):
            run(Life(blackbox, lessons, child))
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, child.order)
        code = child.wait()
        if child.ordered or not _is_crash(code, again=again):
            break
        why = _why(code, blackbox)
        marks = blackbox.marks()
        learnt = restarts.after(why, marks, time.monotonic(), deadly=code != -signal.SIGKILL or bool(blackbox.reason))
        _log.error("agent_died", why=why, at=" ".join(mark.module for mark in marks) or None, again=learnt is not None)
        if learnt is None:
            code = 1
            break
        if again:
            time.sleep(_PAUSE_S)
        lessons, again = learnt, True
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
    keeper = os.getpid()
    alive, alive_child = os.pipe()
    orders_child, orders = os.pipe()
    gc.freeze()  # a collection in either would touch, and so double, every page they share
    pid = os.fork()
    if pid:
        os.close(alive_child)
        os.close(orders_child)
        return _Child(pid, alive, orders, blackbox)
    os.close(alive)
    os.close(orders)
    _die_with(keeper)
    return orders_child


def _die_with(keeper: int) -> None:
    """Has the kernel kill us with our keeper (Linux); elsewhere the pipe of orders ends a little later."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:  # it died before we asked
            os._exit(1)
