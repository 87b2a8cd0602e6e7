"""Retained messages that wait until a link's queue has room: of each topic the newest alone.

A planner of a thousand nodes publishes more documents at once than the queue of a link holds. A document that were
refused would be missing at the broker for good, because its publisher publishes what changed.
"""

import threading
from typing import Generic, TypeVar

from s2m3.schemas.errors import BusyError

__all__ = ["RetainedBacklog"]

#: Most topics that wait.
_MOST_TOPICS = 50_000

E = TypeVar("E")


class RetainedBacklog(Generic[E]):
    """Messages by topic, in the order in which they were put; any thread may call the methods."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[E, int]] = {}
        self._nbytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes of the payloads that wait."""
        return self._nbytes

    def put(self, topic: str, entry: E, nbytes: int) -> E | None:
        """Adds a message behind all others; returns the older one of its topic, which it replaces.

        Args:
            topic: The message's topic.
            entry: The message.
            nbytes: Bytes of its payload.

        Raises:
            BusyError: 50,000 topics wait already.
        """
        with self._lock:
            if topic not in self._entries and len(self._entries) >= _MOST_TOPICS:
                raise BusyError(f"{_MOST_TOPICS} retained messages wait for the broker's acknowledgement")
            replaced, less = self._entries.pop(topic, (None, 0))
            self._entries[topic] = entry, nbytes
            self._nbytes += nbytes - less
            return replaced

    def take(self) -> E | None:
        """Removes and returns the message that was put first; None if none waits."""
        with self._lock:
            if not self._entries:
                return None
            entry, nbytes = self._entries.pop(next(iter(self._entries)))
            self._nbytes -= nbytes
            return entry
