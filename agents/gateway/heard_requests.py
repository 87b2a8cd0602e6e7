"""Which plain requests the brokers of a cluster carried, and which of them a task's session never brought. Pure."""

from collections import Counter, deque
from dataclasses import dataclass, field

from s2m3.broker.mqtt.message import Message

__all__ = ["HeardRequests"]

#: Topic, payload, Response Topic, Correlation Data: what equal requests have in common.
_Key = tuple[str, bytes, str | None, bytes | None]

#: For so long, seconds, and of so many bytes of payload together, requests are remembered.
_MEMORY_S, _MEMORY_BYTES = 30.0, 16_000_000


@dataclass(slots=True)
class _Kind:
    """Equal requests: how often each listener heard one, and how often one came from the session or was taken."""

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
        """The listener that heard most of them."""
        return max(self.heard, key=self.heard.__getitem__)


class HeardRequests:
    """Counts equal requests by who heard them: a session that dies with its broker takes along what waited in it.

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
        """Notes a request that the session brought; returns whether it was taken from a listener before."""
        kind = self._kind(message, now)
        if kind.taken:
            kind.taken -= 1
            kind.came += 1
            return True
        kind.came += 1
        return False

    def take_missing(self, until: float) -> list[tuple[int, Message]]:
        """Returns the requests that listeners heard and the session never brought, and counts them as taken.

        Args:
            until: What was heard later may still come from the session.

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
