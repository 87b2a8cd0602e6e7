"""Lets a binding's messages through: the newest of each topic, one at a time, at a limited rate. Pure."""

from dataclasses import dataclass

__all__ = ["Gate"]

#: A filter like `#` must not make us keep a message for every topic in the house.
_MOST_TOPICS = 64
_MOST_UNDER_WAY = 8
_MOST_BYTES = 64_000_000


@dataclass(slots=True)
class _Topic:
    waiting: bytes | None = None
    under_way: bool = False
    #: when the next may start
    free_at: float = float("-inf")


class Gate:
    """Which message is asked next.

    Args:
        every_s: Seconds between two starts of one topic, at least.
    """

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._topics: dict[str, _Topic] = {}
        self._under_way = 0

    def offer(self, topic: str, payload: bytes, now: float) -> bool:
        """Takes a message in; returns whether none was given up for it: an older one, or itself."""
        known = self._topics.get(topic)
        if known is None:
            if len(self._topics) >= _MOST_TOPICS and not self._forget_one(now):
                return False
            known = self._topics[topic] = _Topic()
        first = known.waiting is None
        if sum(len(k.waiting or b"") for k in self._topics.values() if k is not known) + len(payload) > _MOST_BYTES:
            return False
        known.waiting = payload
        return first

    def take(self, now: float) -> list[tuple[str, bytes]]:
        """Returns the messages to ask now; each is under way until `done`. Topics take turns."""
        taken = []
        for topic, known in list(self._topics.items()):
            if self._under_way >= _MOST_UNDER_WAY:
                break
            if known.waiting is None or known.under_way or known.free_at > now:
                continue
            taken.append((topic, known.waiting))
            known.waiting, known.under_way, known.free_at = None, True, now + self._every_s
            self._under_way += 1
            self._topics[topic] = self._topics.pop(topic)  # to the end of the turns
        return taken

    def done(self, topic: str) -> None:
        """A message taken has its answer."""
        known = self._topics.get(topic)
        if known is not None and known.under_way:
            known.under_way = False
            self._under_way -= 1

    def next_due(self) -> float | None:
        """Returns when `take` may have something that it has not now; None: not before `offer` or `done`."""
        waiting = [k.free_at for k in self._topics.values() if k.waiting is not None and not k.under_way]
        return min(waiting, default=None) if self._under_way < _MOST_UNDER_WAY else None

    def _forget_one(self, now: float) -> bool:
        for topic, known in self._topics.items():
            if known.waiting is None and not known.under_way and known.free_at <= now:
                del self._topics[topic]
                return True
        return False
