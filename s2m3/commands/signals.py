"""Ends a service by a signal: at once, or gently."""

import signal
import threading
from types import FrameType

from s2m3.agents.supervision.context import ProcessContext

__all__ = ["Signals"]


class Signals:
    """SIGINT ends at once, SIGTERM gently; a second one of either ends at once.

    Args:
        context: The process context of an agent, whose supervisor forwards signals; None for other services.
    """

    def __init__(self, context: ProcessContext | None = None) -> None:
        self.stop = threading.Event()
        self.gently = False
        if context is not None:
            context.on_signal(self._on_signal)
            return
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, _frame: FrameType | None = None) -> None:
        self.gently = number == signal.SIGTERM and not self.stop.is_set()
        self.stop.set()
