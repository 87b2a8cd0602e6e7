"""Nodes that say nothing although the broker takes them to be there: frozen, cut off, or gone with a broker. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HeartbeatMonitor"]

#: Nodes tell their load every 0.4 of their keepalive at least: three times nothing, and what the bus takes.
_KEEPALIVES = 1.4
#: Whoever looks this late was frozen itself, and has not heard what was said meanwhile.
_FROZEN_S = 1.0


@dataclass(slots=True)
class HeartbeatMonitor:
    """When each node was last heard of. Told the time, monotonic seconds.

    A broker waits 1.5 keepalives and then for its own next look (Mosquitto 2.0: each 5 s); of a node that went while
    the broker was away it says nothing at all.
    """

    _heard: dict[str, float] = field(default_factory=dict)
    _looked: float = float("-inf")

    def heard(self, node: str, now: float) -> None:
        """It said something."""
        self._heard[node] = now

    def look(self, keepalives: Mapping[str, float], now: float) -> list[str]:
        """Returns the nodes that are silent.

        Args:
            keepalives: Of the nodes that are thought to be there, seconds. Empty while the broker is away: whoever is
                named for the first time, or again, has its full time from then on.
            now: The time.
        """
        was_away = now - self._looked > _FROZEN_S
        self._looked = now
        self._heard = {node: now if was_away else self._heard.get(node, now) for node in keepalives}
        return [node for node, limit in keepalives.items() if now - self._heard[node] > limit * _KEEPALIVES]
