"""How long the last picture and the last answers stay on the broker: what is retained, and until when. Pure."""

import json
import math
from dataclasses import dataclass, field, replace

from s2m3.broker.mqtt.message import Outgoing

__all__ = ["Kept", "Retention", "source_of"]

#: The bridge clears by its own clock; the broker, which counts whole seconds, only where the bridge is gone.
_LATER_S = 1.0


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds that something stays: 0 is not at all, infinite is until something replaces it."""

    pictures_s: float
    answers_s: float


@dataclass(slots=True)
class _Entry:
    until: float
    #: binding:<name>, question, plain; None where that is not known
    source: str | None


@dataclass(slots=True)
class Kept:
    """Topics that hold a picture or an answer of ours, until when, and what brought it."""

    _entries: dict[str, _Entry] = field(default_factory=dict)

    def __contains__(self, topic: str) -> bool:
        return topic in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def topics(self) -> list[str]:
        """All of them, in order."""
        return sorted(self._entries)

    def keep(self, topic: str, until: float, source: str | None = None) -> None:
        """A topic holds something new."""
        self._entries[topic] = _Entry(until, source)

    def drop(self, topic: str) -> None:
        """A topic is cleared."""
        self._entries.pop(topic, None)

    def source(self, topic: str) -> str | None:
        """Returns what brought that which a topic holds."""
        entry = self._entries.get(topic)
        return None if entry is None else entry.source

    def due(self, now: float) -> list[str]:
        """Returns the topics that hold something out of date."""
        return [topic for topic, entry in self._entries.items() if entry.until <= now]

    def ending(self) -> list[str]:
        """Returns the topics that do not outlive the bridge: all but those kept until something replaces them."""
        return [topic for topic, entry in self._entries.items() if entry.until < math.inf]

    def of_source(self, source: str) -> list[str]:
        """Returns the topics that hold something that this brought."""
        return [topic for topic, entry in self._entries.items() if entry.source == source]

    def dated(self, message: Outgoing, now: float) -> Outgoing:
        """Returns a message with the expiry of what its topic holds; a broker that cannot bear one is given none."""
        entry = self._entries.get(message.topic)
        if entry is None or not message.payload or entry.until == math.inf:
            return message
        return replace(message, expiry_s=max(0.0, entry.until - now) + _LATER_S)


def source_of(answer: bytes) -> str | None:
    """Returns the `source` of a BridgeAnswer that is found retained; None if it has none."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    source = found.get("source") if isinstance(found, dict) else None
    return source if isinstance(source, str) else None
