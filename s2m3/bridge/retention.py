"""The time for which the last picture and the last answers stay retained on the broker. Pure."""

import json
import math
from dataclasses import dataclass, field, replace

from s2m3.broker.mqtt.message import Outgoing

__all__ = ["Kept", "Retention", "source_of"]

#: Seconds added to the expiry on the broker, which counts whole seconds: the bridge itself clears in time, and the
#: broker only if the bridge is gone.
_LATER_S = 1.0


@dataclass(frozen=True, slots=True)
class Retention:
    """Seconds for which pictures and answers stay: 0: they are not retained, infinite: until they are replaced."""

    pictures_s: float
    answers_s: float


@dataclass(slots=True)
class _Entry:
    until: float
    #: binding:<name>, question, plain; None if unknown
    source: str | None


@dataclass(slots=True)
class Kept:
    """Topics that hold a picture or an answer of the bridge, with the time of their end and their source."""

    _entries: dict[str, _Entry] = field(default_factory=dict)

    def __contains__(self, topic: str) -> bool:
        return topic in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def topics(self) -> list[str]:
        """All topics, in order."""
        return sorted(self._entries)

    def keep(self, topic: str, until: float, source: str | None = None) -> None:
        """Notes that a topic holds a new picture or answer."""
        self._entries[topic] = _Entry(until, source)

    def drop(self, topic: str) -> None:
        """Notes that a topic was cleared."""
        self._entries.pop(topic, None)

    def source(self, topic: str) -> str | None:
        """Returns the source of the picture or answer on a topic."""
        entry = self._entries.get(topic)
        return None if entry is None else entry.source

    def due(self, now: float) -> list[str]:
        """Returns the topics whose time has ended."""
        return [topic for topic, entry in self._entries.items() if entry.until <= now]

    def ending(self) -> list[str]:
        """Returns the topics that do not outlive the bridge: all but those that stay until they are replaced."""
        return [topic for topic, entry in self._entries.items() if entry.until < math.inf]

    def of_source(self, source: str) -> list[str]:
        """Returns the topics with a picture or answer of this source."""
        return [topic for topic, entry in self._entries.items() if entry.source == source]

    def dated(self, message: Outgoing, now: float) -> Outgoing:
        """Returns a message with the expiry of its topic, which `bearable` removes for brokers that fail with one."""
        entry = self._entries.get(message.topic)
        if entry is None or not message.payload or entry.until == math.inf:
            return message
        return replace(message, expiry_s=max(0.0, entry.until - now) + _LATER_S)


def source_of(answer: bytes) -> str | None:
    """Returns the `source` of a retained BridgeAnswer; None if it has none."""
    try:
        found = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    source = found.get("source") if isinstance(found, dict) else None
    return source if isinstance(source, str) else None
