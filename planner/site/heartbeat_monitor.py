"""Finds nodes without a heartbeat that the broker still reports as present: frozen or disconnected nodes. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["HeartbeatMonitor"]

#: Timeout in keepalives. Nodes publish their load at least every 0.4 keepalives: three missed and a margin for delay.
_KEEPALIVES = 1.4
#: A check later than this after the last one means that the planner itself was frozen and missed heartbeats.
_FROZEN_S = 1.0


@dataclass(slots=True)
class HeartbeatMonitor:
    """When each node's last message arrived. Callers pass the time, monotonic seconds.

    This is faster than the broker, which publishes a last will after 1.5 keepalives and its own check interval
    (Mosquitto 2.0: 5 s), and publishes none for a node that was lost while the broker was down.
    """

    _last_message: dict[str, float] = field(default_factory=dict)
    _last_look: float = float("-inf")

    def heard(self, node: str, now: float) -> None:
        """Notes that a message of a node arrived."""
        self._last_message[node] = now

    def look(self, keepalives: Mapping[str, float], now: float) -> list[str]:
        """Returns the nodes whose heartbeat timed out.

        Args:
            keepalives: Keepalive of each node that counts as present, seconds. Pass an empty mapping while the broker
                is away: a node that appears again gets its full timeout from then on.
            now: The time.
        """
        was_away = now - self._last_look > _FROZEN_S
        self._last_look = now
        self._last_message = {node: now if was_away else self._last_message.get(node, now) for node in keepalives}
        return [node for node, limit in keepalives.items() if now - self._last_message[node] > limit * _KEEPALIVES]
