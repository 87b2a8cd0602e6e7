"""Dispatch of incoming messages to handlers by topic filter, and acknowledgements in order. No connection, no I/O."""

from collections import deque
from collections.abc import Callable

from s2m3.broker.mqtt.message import Message

__all__ = ["Acknowledgements", "Handler", "Handlers"]

Handler = Callable[[Message], None]
#: Topics whose handlers are remembered: topics of requests and answers are many.
_MOST_TOPICS = 10_000


class Handlers:
    """Message handlers by topic filter, with the QoS of each subscription."""

    def __init__(self) -> None:
        self._handlers: dict[str, tuple[Handler, int]] = {}
        #: topic -> the handlers whose filter matches it: a planner hears each topic of a thousand nodes again and again
        self._matching: dict[str, list[Handler]] = {}
        self._optional: set[str] = set()
        self._live_only: set[str] = set()

    def add(
        self, topic_filter: str, handler: Handler, qos: int, *, required: bool = True, retained: bool = True
    ) -> None:
        """Sets the handler and QoS of a topic filter, replacing earlier ones; other arguments as in Link.subscribe."""
        self._handlers[topic_filter] = (handler, qos)
        self._matching.clear()
        if not required:
            self._optional.add(topic_filter)
        if not retained:
            self._live_only.add(topic_filter)

    def is_required(self, topic_filter: str) -> bool:
        """Whether the broker's refusal of a topic filter makes the link useless."""
        return topic_filter not in self._optional

    def wants_retained(self, topic_filter: str) -> bool:
        """Whether the broker is to send what is retained when the filter is subscribed to."""
        return topic_filter not in self._live_only

    def remove(self, topic_filter: str) -> bool:
        """Removes a topic filter; returns whether it had a handler."""
        self._matching.clear()
        return self._handlers.pop(topic_filter, None) is not None

    def filters(self) -> dict[str, int]:
        """Returns topic filter -> QoS."""
        return {name: qos for name, (_, qos) in self._handlers.items()}

    def handle(self, message: Message) -> bool:
        """Calls the handler whose filter equals the message's topic, else all handlers whose filter matches it.

        Returns:
            Whether there was one.
        """
        found = self._handlers.get(message.topic)
        if found is not None:
            found[0](message)
            return True
        matching = self._matching.get(message.topic)
        if matching is None:
            if len(self._matching) >= _MOST_TOPICS:
                self._matching.clear()
            found_now = [handler for name, (handler, _) in self._handlers.items() if _matches(name, message.topic)]
            matching = self._matching[message.topic] = found_now
        for handler in matching:
            handler(message)
        return bool(matching)


class Acknowledgements:
    """Puts the PUBACKs of one connection's QoS 1 messages in order.

    MQTT 5 (4.6) requires PUBACKs in the order in which the messages arrived; rumqttd disconnects a client that violates
    it. A PUBACK for a message that is finished early waits for the messages before it.
    """

    def __init__(self) -> None:
        self._open: deque[int] = deque()
        self._done: set[int] = set()

    def clear(self) -> None:
        """Drops all messages; to be called on a new connection."""
        self._open.clear()
        self._done.clear()

    def came(self, mid: int) -> None:
        """Adds an incoming message by its packet id."""
        self._open.append(mid)

    def done(self, mid: int) -> list[int]:
        """Marks a message as finished; returns the packet ids that can be acknowledged now, in order."""
        self._done.add(mid)
        ready = []
        while self._open and self._open[0] in self._done:
            ready.append(self._open.popleft())
            self._done.discard(ready[-1])
        return ready


def _matches(topic_filter: str, topic: str) -> bool:
    """Whether a filter matches a topic (MQTT 5, section 4.7): + matches one level, # all remaining levels."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for i, want in enumerate(wanted):
        if want == "#":
            return True
        if i >= len(levels) or want not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)
