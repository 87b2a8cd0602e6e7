"""Finds plain requests that a broker of a cluster carried and that the task's session never delivered. Pure."""

from collections import Counter, deque
from dataclasses import dataclass, field

from s2m3.broker.mqtt.message import Message

__all__ = ["HeardRequests"]

#: Topic, payload, Response Topic, Correlation Data: equal for equal requests.
_Key = tuple[str, bytes, str | None, bytes | None]

#: Time for which requests are remembered, seconds, and most bytes of their payloads together.
_MEMORY_S, _MEMORY_BYTES = 30.0, 16_000_000


@dataclass(slots=True)
class _Kind:
    """Equal requests: how often each listener heard one, and how many the session delivered or a listener replaced."""

    message: Message
    #: when a listener heard one last, monotonic seconds
    heard_at: float = 0.0
    heard: Counter[int] = field(default_factory=Counter)
    came: int = 0
    taken: int = 0

    @property
    def missing(self) -> int:
        return max(self.heard.values(), default=0) - self.came - self.taken

    @property
    def listener(self) -> int:
        """The listener that heard the most of these requests."""
        return max(self.heard, key=self.heard.__getitem__)


class HeardRequests:
    """Counts equal requests by listener, because requests that wait in a session are lost when its broker dies.

    A request that two listeners heard counts once. Callers pass the time, monotonic seconds.
    """

    def __init__(self) -> None:
        self._kinds: dict[_Key, _Kind] = {}
        self._order: deque[tuple[float, _Key]] = deque()
        self._nbytes = 0

    def heard(self, listener: int, message: Message, now: float) -> None:
        """Notes a request that a listener heard."""
        kind = self._kind(message, now)
        kind.heard[listener] += 1
        kind.heard_at = now

    def came(self, message: Message, now: float) -> bool:
        """Notes a request that the session delivered; returns whether it was taken from a listener before."""
        kind = self._kind(message, now)
        if kind.taken:
            kind.taken -= 1
            kind.came += 1
            return True
        kind.came += 1
        return False

    def take_missing(self, until: float) -> list[tuple[int, Message]]:
        """Returns the requests that listeners heard and the session never delivered, and counts them as taken.

        Args:
            until: Requests heard later than this are left out: the session may still deliver them.

        Returns:
            Each request with a listener that heard it.
        """
        found = []
        for kind in self._kinds.values():
            if kind.heard_at <= until and (missing := kind.missing) > 0:
                kind.taken += missing
                found += [(kind.listener, kind.message)] * missing
        return found

    def _kind(self, message: Message, now: float) -> _Kind:
        while self._order and (self._order[0][0] < now - _MEMORY_S or self._nbytes > _MEMORY_BYTES):
            old = self._kinds.pop(self._order.popleft()[1])
            self._nbytes -= len(old.message.payload)
        key = (message.topic, message.payload, message.reply_to, message.correlation)
        if key not in self._kinds:
            self._kinds[key] = _Kind(message)
            self._order.append((now, key))
            self._nbytes += len(message.payload)
        return self._kinds[key]
