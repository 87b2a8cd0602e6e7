"""Flap damping: after two short-lived connections in a row, a node must stay for a while before it is used. Pure."""

from dataclasses import dataclass, field, replace

__all__ = ["Flapping"]

#: A presence shorter than this plus twice the node's hold-down time counts as short.
_SHORT_S = 15.0
#: One short presence is normal (a restart, an update). After the n-th in a row the hold-down is 2^(n-2) times _WAIT_S.
_ACCIDENTS = 1
_WAIT_S = 10.0
_DOUBLED = 5


@dataclass(slots=True)
class _Presence:
    since: float = float("-inf")
    present: bool = False
    short: int = 0

    @property
    def wait_s(self) -> float:
        """Hold-down time: seconds that the node must be present before it is used."""
        return _WAIT_S * 2 ** min(self.short - _ACCIDENTS - 1, _DOUBLED) if self.short > _ACCIDENTS else 0.0


@dataclass(slots=True)
class Flapping:
    """Counts short presences of nodes and holds flapping nodes down. Callers pass the time, monotonic seconds."""

    _presences: dict[str, _Presence] = field(default_factory=dict)

    def copy(self) -> "Flapping":
        """Returns an independent copy."""
        return Flapping({node: replace(presence) for node, presence in self._presences.items()})

    def came(self, node: str, now: float) -> None:
        """Notes that a node is present, for the first time or again."""
        presence = self._presences.setdefault(node, _Presence())
        if not presence.present:
            presence.present, presence.since = True, now

    def left(self, node: str, now: float, *, asleep: bool = False) -> None:
        """Notes that a node was lost. A short presence that sleep ended counts neither for nor against the node."""
        presence = self._presences.get(node)
        if presence is None or not presence.present:
            return
        presence.present = False
        if asleep:
            return
        is_short = now - presence.since < _SHORT_S + 2 * presence.wait_s
        presence.short = presence.short + 1 if is_short else 0

    def forget(self, node: str) -> None:
        """Removes the record of a node that was removed from the site."""
        self._presences.pop(node, None)

    def held(self, now: float) -> dict[str, str]:
        """Returns the nodes that are present but held down, node -> reason."""
        return {
            node: f"lost after a short time {presence.short} times in a row: nothing is placed there "
            f"before it has stayed {presence.wait_s:g} s"
            for node, presence in self._presences.items()
            if presence.present and presence.since + presence.wait_s > now
        }

    def next_release(self, now: float) -> float | None:
        """Returns the time at which the next hold-down ends; None if no node is held down."""
        ends = (presence.since + presence.wait_s for presence in self._presences.values() if presence.present)
        return min((end for end in ends if end > now), default=None)
