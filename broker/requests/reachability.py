"""Which nodes a requester has not heard of for long: what is sent to them may reach nobody. Pure.

The planner says `lost` of such a node too. A requester that the planner does not reach (a cluster of brokers is cut in
two, or the planner is dead) goes by the heartbeats that itself hears.
"""

from collections.abc import Iterable

__all__ = ["Reachability"]

#: Time without a heartbeat after which a node counts as silent, keepalives. The planner's is 1.4, so it is first.
_KEEPALIVES = 1.6


class Reachability:
    """When each node's last heartbeat arrived. Callers pass the time, monotonic seconds.

    A node of a release that does not say its keepalive is never silent.
    """

    def __init__(self) -> None:
        self._keepalives: dict[str, float] = {}
        #: node -> when it is silent, unless it is heard again
        self._silent_at: dict[str, float] = {}
        self._silent: frozenset[str] = frozenset()
        #: when another node may be silent
        self._next = float("inf")

    def heard(self, node: str, keepalive_s: float, now: float) -> None:
        """Notes a heartbeat."""
        if keepalive_s > 0:
            self._keepalives[node] = keepalive_s
            self._silent_at[node] = now + _KEEPALIVES * keepalive_s
            self._next = min(self._next, self._silent_at[node]) if node not in self._silent else float("-inf")

    def forget(self, node: str) -> None:
        """Drops a node that is lost or not used any more."""
        self._keepalives.pop(node, None)
        if self._silent_at.pop(node, None) is not None:
            self._next = float("-inf")

    def suspend(self) -> None:
        """Lets no node be silent, as nothing is heard: the connection was lost."""
        self._silent_at.clear()
        self._next = float("-inf")

    def excuse(self, now: float) -> None:
        """Counts each node's silence from now on: the connection is new, or this process slept.

        Nodes that were heard before and are not heard any more become silent all the same.
        """
        self._silent_at = {node: now + _KEEPALIVES * keepalive_s for node, keepalive_s in self._keepalives.items()}
        self._next = float("-inf")

    def silent(self, now: float) -> frozenset[str]:
        """Returns the nodes that are silent."""
        if now >= self._next:
            self._silent = frozenset(node for node, at in self._silent_at.items() if at <= now)
            self._next = min((at for at in self._silent_at.values() if at > now), default=float("inf"))
        return self._silent

    def next_silence(self, nodes: Iterable[str], now: float) -> float:
        """Returns when the next of some nodes falls silent, if none is heard until then; infinity if none ever does."""
        times = (self._silent_at.get(node, float("inf")) for node in nodes)
        return min((at for at in times if at > now), default=float("inf"))

    def by_silence(self, nodes: Iterable[str]) -> list[str]:
        """Returns some nodes: those never heard, then the others in the order in which they become silent."""
        return sorted(nodes, key=lambda node: (self._silent_at.get(node, float("-inf")), node))
