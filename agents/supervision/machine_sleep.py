"""Puts the machine to sleep by the user's command, and waits until it has slept. Never in the agent's own process."""

import shlex
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from s2m3.agents.supervision.plain_log import log_error

__all__ = ["MachineSleep"]

_POLL_S = 0.1
#: The two clocks differ by less than this unless the machine slept between two looks at them.
_SLEPT_S = 1.0


@dataclass(frozen=True, slots=True)
class MachineSleep:
    """How a machine is put to sleep.

    Args:
        command: The user's command; it may return before the machine sleeps (`systemctl suspend`) or after
            (`rtcwake -m mem`). It is run without a shell.
        grace_s: A machine that has not slept so long after the command ended stays awake, seconds.
    """

    command: str
    grace_s: float

    def run(self, ended: Callable[[], bool]) -> None:
        """Runs the command, and returns when the machine has slept, or stays awake.

        Args:
            ended: Whether the wait is to end: the agent was told to stop.
        """
        before = _time_asleep_s()
        try:
            process = subprocess.Popen(shlex.split(self.command), stdin=subprocess.DEVNULL)  # noqa: S603  # the user's own
        except (OSError, ValueError) as error:
            log_error("sleep_command_failed", command=self.command, error=str(error))
            return
        until: float | None = None
        while not ended():
            if until is None and (code := process.poll()) is not None:
                if code:
                    log_error("sleep_command_failed", command=self.command, code=code)
                    return
                until = time.monotonic() + self.grace_s
            if _time_asleep_s() - before > _SLEPT_S or (until is not None and time.monotonic() >= until):
                return
            time.sleep(_POLL_S)
        process.terminate()  # a command that waits for the machine to wake; one that has ended is not affected


def _time_asleep_s() -> float:
    """Returns how long the machine has slept since it started, seconds; 0 where the system does not tell."""
    if not hasattr(time, "CLOCK_BOOTTIME"):
        return 0.0
    return time.clock_gettime(time.CLOCK_BOOTTIME) - time.clock_gettime(time.CLOCK_MONOTONIC)
