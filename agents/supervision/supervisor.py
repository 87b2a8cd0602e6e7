"""Supervises an agent: runs it as a forked child process, and restarts the child when it crashes or hangs.

The fork is made before anything else is imported: a device pays for an agent's packages once. The supervisor opens no
socket and starts no thread. When it dies, the kernel kills the child too: killing the supervisor ends the node.
"""

import gc
import os
import select
import signal
import sys
import time
from types import FrameType

from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.exit_codes import HUNG, SLEEPS
from s2m3.agents.supervision.plain_log import log_error

#: Type checkers take it as typing's, whose import would cost the supervisor a megabyte.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from s2m3.agents.supervision.context import ProcessContext
    from s2m3.agents.supervision.restart_policy import CrashHistory, RestartPolicy

__all__ = ["can_supervise", "supervise"]

#: The child's event loop beats twice a second once it runs. Without a beat for this long the process hangs as a whole
#: (native code that holds Python's lock); the broker has published the node's last will long before.
_SILENT_S = 60.0
_POLL_S = 1.0
#: Delay before the second and later restarts, so that a temporary cause (no broker, no memory) can pass.
_PAUSE_S = 1.0
_PR_SET_PDEATHSIG = 1
_M_ARENA_MAX, _ARENAS = -8, 2


class _Child:
    """One agent process, from the supervisor's side."""

    def __init__(self, pid: int, alive: int, signals: int, blackbox: Blackbox) -> None:
        self._pid = pid
        self._alive = alive
        self._signals = signals
        self._blackbox = blackbox
        self.was_signalled = False

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Forwards a signal. The child ignores signals of its own: a terminal or service manager may signal both."""
        self.was_signalled = True
        try:
            os.write(self._signals, bytes([number]))
        except OSError:  # the child is just ending
            return

    def is_signalled(self) -> bool:
        """Returns whether a signal was forwarded."""
        return self.was_signalled

    def wait(self) -> int:
        """Waits for the exit code (or minus the signal) and returns it; kills the child if its loop stops beating."""
        beats, since = 0, time.monotonic()
        while not select.select([self._alive], [], [], _POLL_S)[0]:
            now = time.monotonic()
            if self._blackbox.beats != beats or not beats:
                beats, since = self._blackbox.beats, now
            elif now - since > _SILENT_S:
                self._blackbox.reason = f"its loop has stood still for {_SILENT_S:g} s"
                os.kill(self._pid, signal.SIGKILL)
        _, status = os.waitpid(self._pid, 0)
        os.close(self._alive)
        os.close(self._signals)
        return os.waitstatus_to_exitcode(status)


def can_supervise() -> bool:
    """Whether this system can fork, which the supervisor needs (Windows cannot)."""
    return hasattr(os, "fork")


def supervise(run: "Callable[[ProcessContext], None]") -> None:
    """Runs an agent until it ends by itself or by a signal; restarts it when it crashes, and after its machine slept.

    Args:
        run: The agent, from its command line on; called in the child.

    Raises:
        SystemExit: The child ended with an exit code other than 0 (same code), or crashed too often (code 1).
        Exception: In the child, any exception of `run`.
    """
    restarts: RestartPolicy | None = None
    crash_history: CrashHistory | None = None
    blackbox, again = Blackbox(), False
    while True:
        child = _fork(blackbox)
        if isinstance(child, int):
            run(_context(blackbox, crash_history, child))
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, child.forward)
        code = child.wait()
        if _has_slept(code, child, blackbox):
            blackbox.wipe()
            continue
        if child.was_signalled or not _is_crash(code, again=again):
            break
        why = _why(code, blackbox)
        marks = blackbox.marks()
        restarts = restarts or _restart_policy()
        crash_history_after = restarts.after(
            why, marks, time.monotonic(), poison=code != -signal.SIGKILL or bool(blackbox.reason)
        )
        log_error(
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
    if code not in (0, SLEEPS):
        sys.exit(code if code > 0 else 128 - code)


def _context(blackbox: Blackbox, history: "CrashHistory | None", signals: int) -> "ProcessContext":
    """Returns what the child has of the supervisor; called in the child."""
    from s2m3.agents.supervision.context import ProcessContext  # noqa: PLC0415  # the supervisor has no use for it
    from s2m3.agents.supervision.restart_policy import CrashHistory  # noqa: PLC0415

    return ProcessContext(blackbox, history or CrashHistory(), signals)


def _restart_policy() -> "RestartPolicy":
    from s2m3.agents.supervision.restart_policy import RestartPolicy  # noqa: PLC0415  # most supervisors see no crash

    return RestartPolicy()


def _has_slept(code: int, child: _Child, blackbox: Blackbox) -> bool:
    """Puts the machine to sleep if the agent ended for that; returns whether the agent is to run again."""
    if code != SLEEPS or blackbox.sleep is None:
        return False
    from s2m3.agents.supervision.machine_sleep import MachineSleep  # noqa: PLC0415  # subprocess, for few supervisors

    MachineSleep(*blackbox.sleep).run(child.is_signalled)
    return not child.was_signalled


def _is_crash(code: int, *, again: bool) -> bool:
    """Whether an exit is a crash: a signal or a hang, and after a restart any error.

    An error of the first start (a wrong flag, no broker) is no crash: the operator has to see it.
    """
    return code < 0 or code == HUNG or (again and code != 0)


def _why(code: int, blackbox: Blackbox) -> str:
    if blackbox.reason:
        return blackbox.reason
    if code == -signal.SIGKILL:
        return "killed by SIGKILL (out of memory?)"
    return signal.Signals(-code).name if code < 0 else f"ended with {code}"


def _fork(blackbox: Blackbox) -> _Child | int:
    """Forks. Returns the child in the supervisor, and in the child the file descriptor of the pipe of signals."""
    supervisor = os.getpid()
    alive, alive_child = os.pipe()
    signals_child, signals = os.pipe()
    gc.freeze()  # a garbage collection in either process would write to, and so copy, every shared page
    pid = os.fork()
    if pid:
        os.close(alive_child)
        os.close(signals_child)
        return _Child(pid, alive, signals, blackbox)
    os.close(alive)
    os.close(signals)
    _prepare_child(supervisor)
    for number in (signal.SIGINT, signal.SIGTERM):  # the supervisor forwards its own; a terminal may signal both
        signal.signal(number, signal.SIG_IGN)
    return signals_child


def _prepare_child(supervisor: int) -> None:
    """Makes the kernel kill this process when the supervisor dies, and its threads share two heaps (Linux).

    Elsewhere the closed pipe ends the process later. glibc gives up to eight heaps per core to threads, each with its
    own free memory; an agent's threads take turns for Python's lock, and its tensors lie outside of heaps.
    """
    if sys.platform == "linux":
        import ctypes  # noqa: PLC0415  # the supervisor has no use for it

        libc = ctypes.CDLL(None)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:  # the supervisor died before the call
            os._exit(1)
        if hasattr(libc, "mallopt"):  # musl has none
            libc.mallopt(_M_ARENA_MAX, _ARENAS)
