"""Finds plain requests that brokers of a cluster carried and that nobody has taken. Pure."""

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from s2m3.broker.mqtt.message import Message

__all__ = ["HeardRequests"]

#: Time for which requests are remembered, seconds; most bytes of their payloads together; and most kinds of requests.
_MEMORY_S, _MEMORY_BYTES, _MOST = 30.0, 16_000_000, 10_000


@dataclass(slots=True)
class _Kind:
    """Equal requests: how often each listener heard one, and what became of them."""

    #: None if only another node's claim has told of it
    message: Message | None = None
    #: when a listener heard one last, and when another node last claimed one, monotonic seconds
    heard_at: float = 0.0
    claimed_at: float = float("-inf")
    heard: Counter[int] = field(default_factory=Counter)
    #: requests that the session delivered, that were taken from a listener, and that another node answered
    came: int = 0
    taken: int = 0
    answered: int = 0

    @property
    def missing(self) -> int:
        return max(self.heard.values(), default=0) - self.came - self.taken - self.answered

    @property
    def listener(self) -> int:
        """The listener that heard the most of these requests."""
        return max(self.heard, key=self.heard.__getitem__)


class HeardRequests:
    """Counts equal requests by listener: those that waited in a session are lost when its broker dies.

    A request that two listeners heard counts once. Callers pass the time, monotonic seconds.

    Args:
        kind_of: Returns the name that equal requests have, and no others.
    """

    def __init__(self, kind_of: Callable[[Message], str]) -> None:
        self._kind_of = kind_of
        self._kinds: dict[str, _Kind] = {}
        self._order: deque[tuple[float, str]] = deque()
        self._nbytes = 0

    def heard(self, listener: int, message: Message, now: float) -> None:
        """Notes a request that a listener heard."""
        kind = self._kind(self._kind_of(message), now)
        if kind.message is None:
            kind.message = message
            self._nbytes += len(message.payload)
        kind.heard[listener] += 1
        kind.heard_at = now

    def came(self, message: Message, now: float) -> bool:
        """Notes a request that the session delivered; returns whether it was taken, or answered elsewhere, before."""
        kind = self._kind(self._kind_of(message), now)
        kind.came += 1
        if kind.taken:
            kind.taken -= 1
            return True
        if kind.answered:
            kind.answered -= 1
            return True
        return False

    def claimed(self, kinds: Iterable[str], now: float) -> None:
        """Notes that another node has one request of each kind under way: it will answer them."""
        for name in kinds:
            self._kind(name, now).claimed_at = now

    def answered(self, kinds: Iterable[str], now: float) -> None:
        """Notes that another node has answered a request of each kind."""
        for name in kinds:
            self._kind(name, now).answered += 1

    def released(self, name: str) -> None:
        """Notes that a taken request was dropped without an answer: it is missing again."""
        kind = self._kinds.get(name)
        if kind is not None and kind.taken:
            kind.taken -= 1

    def missing(self) -> list[str]:
        """Returns the kinds of which a listener heard more requests than anybody has taken."""
        return [name for name, kind in self._kinds.items() if kind.missing > 0]

    def listener_of(self, name: str, own: int) -> int | None:
        """Returns a listener at the broker of a request's caller: `own` if it heard the request, else one that did."""
        kind = self._kinds.get(name)
        if kind is None or not kind.heard:
            return None
        return own if kind.heard[own] == max(kind.heard.values()) else kind.listener

    def take_missing(self, until: float, claimed_until: float) -> list[tuple[int, Message]]:
        """Returns the requests that listeners heard and nobody has taken, and counts them as taken.

        Args:
            until: Requests heard later than this are left out: the session, or another node, may still take them.
            claimed_until: Requests that another node claimed later than this are left to it.

        Returns:
            Each request with a listener that heard it.
        """
        found = []
        for kind in self._kinds.values():
            if kind.message is None or kind.heard_at > until or kind.claimed_at > claimed_until:
                continue
            if (missing := kind.missing) > 0:
                kind.taken += missing
                found += [(kind.listener, kind.message)] * missing
        return found

    def _kind(self, name: str, now: float) -> _Kind:
        while self._order and (self._order[0][0] < now - _MEMORY_S or self._nbytes > _MEMORY_BYTES):
            self._forget_oldest()
        if name not in self._kinds:
            if len(self._kinds) >= _MOST:
                self._forget_oldest()
            self._kinds[name] = _Kind()
            self._order.append((now, name))
        return self._kinds[name]

    def _forget_oldest(self) -> None:
        old = self._kinds.pop(self._order.popleft()[1])
        self._nbytes -= len(old.message.payload) if old.message is not None else 0
