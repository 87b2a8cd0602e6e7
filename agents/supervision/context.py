"""What an agent's process has of its supervisor: the crash record, the crash history, a pipe of signals."""

import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import NoReturn

from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.exit_codes import HUNG, SLEEPS
from s2m3.agents.supervision.restart_policy import CrashHistory

__all__ = ["HUNG", "ProcessContext"]

#: Called with SIGINT or SIGTERM.
SignalHandler = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """The supervisor's interface to one agent process.

    Args:
        blackbox: The crash record, in memory that both processes share.
        crash_history: What ended earlier processes.
        signals: File descriptor of the pipe of signals; it is closed when the supervisor ends.
    """

    blackbox: Blackbox
    crash_history: CrashHistory
    signals: int

    def on_signal(self, handler: SignalHandler) -> None:
        """Calls a handler, in a new thread, for signals that the supervisor forwards; exits if the supervisor ends."""

        def listen() -> None:
            while forward := os.read(self.signals, 1):
                handler(forward[0])
            os._exit(1)

        threading.Thread(target=listen, name="orders", daemon=True).start()

    def end_for_sleep(self, command: str, grace_s: float) -> NoReturn:
        """Ends this process, and has the supervisor put the machine to sleep.

        Args:
            command: The user's command for that.
            grace_s: See MachineSleep.
        """
        self.blackbox.sleep = (command, grace_s)
        sys.exit(SLEEPS)
