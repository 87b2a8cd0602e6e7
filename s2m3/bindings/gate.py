"""Limits a binding's requests: per topic one at a time and at a limited rate, of the newest or each message. Pure."""

from collections import deque
from collections.abc import Sized
from dataclasses import dataclass, field
from typing import Generic, TypeVar

__all__ = ["MOST_WAITING", "Allowance", "Gate"]

#: Most topics with a waiting message: a filter like `#` matches every topic of the house.
_MOST_TOPICS = 64
_MOST_UNDER_WAY = 8
_MOST_BYTES = 64_000_000
#: Most waiting messages of a binding that asks each message, over all topics.
MOST_WAITING = 256
M = TypeVar("M", bound=Sized)


@dataclass(slots=True)
class _Topic(Generic[M]):
    waiting: deque[M] = field(default_factory=deque)
    under_way: bool = False
    #: when the next request may start
    free_at: float = float("-inf")


class Gate(Generic[M]):
    """Chooses the message that is asked next. The length of a message is its size in bytes.

    Args:
        every_s: Least time between two requests of one topic, seconds.
        each: Whether every message is asked, in order per topic and up to a bound; else the newest of each topic.
    """

    def __init__(self, every_s: float, *, each: bool = False) -> None:
        self._every_s = every_s
        self._each = each
        self._most_topics = MOST_WAITING if each else _MOST_TOPICS
        self._topics: dict[str, _Topic[M]] = {}
        self._under_way = 0
        #: number and bytes of the waiting messages
        self._messages = 0
        self._bytes = 0

    def offer(self, topic: str, message: M, now: float) -> bool:
        """Adds a message; returns False if a message was dropped: an older one, or this one."""
        known = self._topics.get(topic)
        if known is None:
            if len(self._topics) >= self._most_topics and not self._forget_one(now):
                return False
            known = self._topics[topic] = _Topic()
        older = 0 if self._each else sum(map(len, known.waiting))
        if self._bytes - older + len(message) > _MOST_BYTES or (self._each and self._messages >= MOST_WAITING):
            return False
        first = self._each or not known.waiting
        if not first:
            self._messages -= len(known.waiting)
            known.waiting.clear()
        known.waiting.append(message)
        self._messages += 1
        self._bytes += len(message) - older
        return first

    def take(self, now: float) -> list[tuple[str, M]]:
        """Returns the messages to ask now; each is under way until `done`. Topics alternate."""
        taken = []
        for topic, known in list(self._topics.items()):
            if self._under_way >= _MOST_UNDER_WAY:
                break
            if not known.waiting or known.under_way or known.free_at > now:
                continue
            message = known.waiting.popleft()
            taken.append((topic, message))
            self._messages -= 1
            self._bytes -= len(message)
            known.under_way, known.free_at = True, now + self._every_s
            self._under_way += 1
            self._topics[topic] = self._topics.pop(topic)  # to the end of the turns
        return taken

    def done(self, topic: str) -> None:
        """Ends the request of a topic: the next one may start."""
        known = self._topics.get(topic)
        if known is not None and known.under_way:
            known.under_way = False
            self._under_way -= 1

    def next_due(self) -> float | None:
        """Returns the time at which `take` may return more messages; None: not before `offer` or `done`."""
        waiting = [k.free_at for k in self._topics.values() if k.waiting and not k.under_way]
        return min(waiting, default=None) if self._under_way < _MOST_UNDER_WAY else None

    def _forget_one(self, now: float) -> bool:
        for topic, known in self._topics.items():
            if not known.waiting and not known.under_way and known.free_at <= now:
                del self._topics[topic]
                return True
        return False


class Allowance:
    """Limits the errors that a binding publishes, as its messages may all be wrong.

    Args:
        burst: Errors that are published at once.
        per_s: Errors a second from then on.
    """

    def __init__(self, burst: float, per_s: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._left = burst
        self._at = float("-inf")

    def take(self, now: float) -> bool:
        """Returns whether one more error may be published now."""
        self._left = min(self._burst, self._left + (now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True
