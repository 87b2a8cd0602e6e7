"""Lets an item that may have crashed an earlier process run alone: no other thread runs a module meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from s2m3.agents.serving.preparing import Preparer

__all__ = ["Exclusive"]


class Exclusive:
    """Whether the worker runs an item alone, and what the submitter's thread still runs.

    Args:
        lock: The runner's.
        preparer: Pauses while an item runs alone.
    """

    def __init__(self, lock: threading.Lock, preparer: Preparer) -> None:
        self._left = threading.Condition(lock)
        self._preparer = preparer
        self._in_loop = 0
        #: whether an item runs alone, or is to; the submitter's thread begins none then
        self.is_held = False

    def enter(self) -> None:
        """Notes that the submitter's thread begins an item; the caller holds the lock, and calls `entered` next."""
        self._in_loop += 1

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Context of an item in the submitter's thread."""
        try:
            yield
        finally:
            with self._left:
                self._in_loop -= 1
                self._left.notify()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Context of an item that the worker runs alone: waits until the items that other threads began have ended."""
        with self._left:
            self.is_held = True
            self._left.wait_for(lambda: not self._in_loop)
        self._preparer.pause()
        try:
            yield
        finally:
            self.is_held = False
            self._preparer.resume()
