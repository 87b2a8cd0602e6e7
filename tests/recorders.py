"""Stand-ins of Loop and Link for fast tests of what stands on them: no thread, no socket, the test is the clock.

They keep the real classes' handlers, and record what was published, acknowledged and ended.
"""

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from s2m3.broker.event_loop import Timer
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.mqtt.subscriptions import Handler, Handlers
from s2m3.schemas.errors import S2M3Error, UnauthorisedError
from s2m3.schemas.settings import BrokerSettings


class ManualLoop:
    """A Loop whose calls run at once, and whose timers run when the test says that time has passed."""

    is_current = True

    def __init__(self) -> None:
        self.now = 0.0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Timer]] = []

    def call(self, call: Callable[[], None]) -> None:
        call()

    def after(self, seconds: float, call: Callable[[], None]) -> Timer:
        timer = Timer(call, None)
        heapq.heappush(self._timers, (self.now + seconds, next(self._order), timer))
        return timer

    def every(self, seconds: float, call: Callable[[], None]) -> Timer:
        def again() -> None:
            self.after(seconds, again)
            call()

        return self.after(seconds, again)

    def advance(self, seconds: float) -> None:
        """Runs what is due within the next seconds, in order."""
        end = self.now + seconds
        while self._timers and self._timers[0][0] <= end:
            self.now, _, timer = heapq.heappop(self._timers)
            if not timer.cancelled:
                timer.call()
        self.now = end

    @property
    def waiting(self) -> list[float]:
        """In how many seconds each timer is due."""
        return sorted(round(due - self.now, 6) for due, _, timer in self._timers if not timer.cancelled)


@dataclass
class Published:
    """A message and what to call when the broker has taken, refused or lost it."""

    message: Outgoing
    on_delivered: Callable[[], object] | None = None
    on_no_subscribers: Callable[[], object] | None = None
    on_refused: Callable[[S2M3Error], None] | None = None
    on_dropped: Callable[[S2M3Error], None] | None = None


@dataclass
class RecordedLink:
    """A Link without a broker: the test brings messages, confirmations and losses."""

    settings: BrokerSettings
    client_id: str
    loop: ManualLoop
    options: dict[str, Any] = field(default_factory=dict)
    connected: bool = False
    has_room: bool = True
    sends_one_by_one: bool = False
    refused: UnauthorisedError | None = None
    #: raised by the next `publish`
    error: S2M3Error | None = None
    published: list[Published] = field(default_factory=list)
    acknowledged: list[Message] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    _handlers: Handlers = field(default_factory=Handlers)
    _on_subscribed: list[Callable[[], object]] = field(default_factory=list)
    _on_reconnect: list[Callable[[], object]] = field(default_factory=list)
    _on_disconnect: list[Callable[[], object]] = field(default_factory=list)

    @property
    def root(self) -> str:
        return self.settings.root

    @property
    def filters(self) -> dict[str, int]:
        return self._handlers.filters()

    def begin(self) -> None:
        self.calls.append("begin")

    def stop(self, timeout_s: float = 5.0) -> None:
        self.calls.append(f"stop {timeout_s:g}")
        self.connected = False

    def abort(self) -> None:
        self.calls.append("abort")
        self.connected = False

    def subscribe(
        self,
        topic_filter: str,
        handler: Handler,
        *,
        qos: int = 1,
        on_subscribed: Callable[[], object] | None = None,
        required: bool = True,
        retained: bool = True,
    ) -> None:
        self._handlers.add(topic_filter, handler, qos, required=required, retained=retained)
        self._on_subscribed += [on_subscribed] if on_subscribed else []

    def unsubscribe(self, topic_filter: str) -> None:
        self._handlers.remove(topic_filter)

    def on_connection_change(
        self,
        *,
        on_reconnect: Callable[[], object] | None = None,
        on_disconnect: Callable[[], object] | None = None,
    ) -> None:
        self._on_reconnect += [on_reconnect] if on_reconnect else []
        self._on_disconnect += [on_disconnect] if on_disconnect else []

    def publish(
        self,
        message: Outgoing,
        *,
        on_delivered: Callable[[], object] | None = None,
        on_no_subscribers: Callable[[], object] | None = None,
        on_refused: Callable[[S2M3Error], None] | None = None,
        on_dropped: Callable[[S2M3Error], None] | None = None,
    ) -> None:
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        self.published.append(Published(message, on_delivered, on_no_subscribers, on_refused, on_dropped))

    def ack(self, message: Message) -> None:
        self.acknowledged.append(message)

    # ---- what the broker would do ------------------------------------------------------------------------------

    def connect(self) -> None:
        """The broker lets the link in, and confirms its subscriptions."""
        self.connected = True
        if (on_connected := self.options.get("on_connected")) is not None:
            on_connected()
        confirmed, self._on_subscribed = self._on_subscribed, []
        for callback in confirmed:
            callback()

    def lose(self, refused: UnauthorisedError | None = None) -> None:
        """The connection is gone, and does not come back by itself."""
        self.connected, self.refused = False, refused
        self.options["on_ended"]()

    def deliver(self, topic: str, payload: bytes, **fields: Any) -> Message:
        """The broker brings a message."""
        message = Message(topic, payload, **fields)
        self._handlers.handle(message)
        return message

    def at(self, topic: str) -> list[bytes]:
        """Returns the payloads published on a topic."""
        return [published.message.payload for published in self.published if published.message.topic == topic]


@dataclass
class LinkFactory:
    """Stands where a module makes its links: keeps each, the newest last."""

    made: list[RecordedLink] = field(default_factory=list)

    def __call__(self, settings: BrokerSettings, client_id: str, loop: Any, **options: Any) -> RecordedLink:
        link = RecordedLink(settings, client_id, loop, options)
        self.made.append(link)
        return link
