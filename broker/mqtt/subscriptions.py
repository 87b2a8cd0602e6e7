"""What is done with incoming messages: handlers by topic filter, and acknowledgements in order. Knows no connection."""

from collections import deque
from collections.abc import Callable

from s2m3.broker.mqtt.message import Message

__all__ = ["Acknowledgements", "Handler", "Handlers"]

Handler = Callable[[Message], None]


class Handlers:
    """Handlers by topic filter."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Handler, int]] = {}
        self._optional: set[str] = set()

    def add(self, topic_filter: str, handler: Handler, qos: int, *, required: bool = True) -> None:
        """Adds one, or takes another for a filter that is there."""
        self._handlers[topic_filter] = (handler, qos)
        if not required:
            self._optional.add(topic_filter)

    def is_required(self, topic_filter: str) -> bool:
        """Returns whether the link is of no use where the broker refuses a filter."""
        return topic_filter not in self._optional

    def remove(self, topic_filter: str) -> bool:
        """Takes one away; returns whether it was there."""
        return self._handlers.pop(topic_filter, None) is not None

    def filters(self) -> dict[str, int]:
        """Returns filter -> QoS."""
        return {name: qos for name, (_, qos) in self._handlers.items()}

    def handle(self, message: Message) -> None:
        """Gives a message to whoever's filter fits its topic."""
        found = self._handlers.get(message.topic)
        if found is not None:
            found[0](message)
            return
        for name, (handler, _) in list(self._handlers.items()):
            if _matches(name, message.topic):
                handler(message)


class Acknowledgements:
    """QoS 1 messages of one connection that its owner acknowledges.

    They go out in the order in which the messages came, as MQTT 5 (4.6) demands; rumqttd ends the connection of whoever
    does otherwise. One that is early waits for those before it.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._done: set[int] = set()

    def clear(self) -> None:
        """Forgets all: the connection is another one."""
        self._open.clear()
        self._done.clear()

    def came(self, mid: int) -> None:
        """Takes note of a message's packet id."""
        self._open.append(mid)

    def done(self, mid: int) -> list[int]:
        """Takes note that one is done with; returns the packet ids that may be acknowledged now, in order."""
        self._done.add(mid)
        ready = []
        while self._open and self._open[0] in self._done:
            ready.append(self._open.popleft())
            self._done.discard(ready[-1])
        return ready


def _matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5, section 4.7: + stands for one level, # for all that follow."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for i, want in enumerate(wanted):
        if want == "#":
            return True
        if i >= len(levels) or want not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)
