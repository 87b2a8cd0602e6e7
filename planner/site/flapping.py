"""Nodes that come and go: after two short lives nothing is placed on one before it has stayed a while. Pure."""

from dataclasses import dataclass, field

__all__ = ["Flapping"]

#: A life shorter than this, or than this and twice the wait it was given, is a short one.
_SHORT_S = 15.0
#: One short life is an accident (a restart, an update). After the n-th in a row a node waits 2^(n-2) times this.
_ACCIDENTS = 1
_WAIT_S = 10.0
_DOUBLED = 5


@dataclass(slots=True)
class _Life:
    since: float = float("-inf")
    here: bool = False
    short: int = 0

    @property
    def wait_s(self) -> float:
        """How long it has to stay before it is used."""
        return _WAIT_S * 2 ** min(self.short - _ACCIDENTS - 1, _DOUBLED) if self.short > _ACCIDENTS else 0.0


@dataclass(slots=True)
class Flapping:
    """How long nodes lived, and which have to prove themselves first. Told the time, monotonic seconds."""

    _lives: dict[str, _Life] = field(default_factory=dict)

    def came(self, node: str, now: float) -> None:
        """A node is there, for the first time or again."""
        life = self._lives.setdefault(node, _Life())
        if not life.here:
            life.here, life.since = True, now

    def left(self, node: str, now: float) -> None:
        """A node was lost."""
        life = self._lives.get(node)
        if life is None or not life.here:
            return
        life.here = False
        is_short = now - life.since < _SHORT_S + 2 * life.wait_s
        life.short = life.short + 1 if is_short else 0

    def forget(self, node: str) -> None:
        """A node was removed for good."""
        self._lives.pop(node, None)

    def held(self, now: float) -> dict[str, str]:
        """Returns the nodes that are there and not to be used yet, and why."""
        return {
            node: f"lost after a short time {life.short} times in a row: nothing is placed there "
            f"before it has stayed {life.wait_s:g} s"
            for node, life in self._lives.items()
            if life.here and life.since + life.wait_s > now
        }

    def next_release(self, now: float) -> float | None:
        """Returns when the next of them may be used."""
        ends = (life.since + life.wait_s for life in self._lives.values() if life.here)
        return min((end for end in ends if end > now), default=None)
