"""A connection that comes back: subscriptions made again, handlers by topic, acknowledged delivery, bounded sending."""

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace

import structlog
from tenacity import RetryCallState, wait_random_exponential

from broker import metrics
from broker.connection import Connection, Events
from broker.loop import Loop
from broker.message import Message, Outgoing, Will
from schemas.errors import BusyError, S2M3Error, TooLargeError, UnauthorisedError
from schemas.settings import BrokerSettings

__all__ = ["Link"]

_log = structlog.get_logger(__name__)
#: Messages sent and not yet acknowledged, or waiting to be sent.
_OUTGOING = 2_000
_GOODBYE_S = 0.01
#: Short at its longest: everything retained is to be back soon after a broker is.
_backoff = wait_random_exponential(multiplier=0.2, max=2.0)

Handler = Callable[[Message], None]
Then = Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Sent:
    qos: int
    delivered: Then | None
    unheard: Then | None


class Link:
    """An MQTT v5 connection that comes back by itself, with jitter.

    Handlers and callbacks run in the loop's thread. Subscriptions are made again on every connect. Sending is bounded:
    `publish` raises BusyError at the bound. Methods may be called from any thread.

    Args:
        settings: Where the broker is and who we are.
        client_id: Ours. A second connection with the same one ends the first.
        loop: Serves the socket and runs the handlers.
        will: Last will.
        session_expiry_s: None starts clean each time; otherwise the broker keeps our session for so long.
        manual_ack: QoS 1 messages are acknowledged by `ack`, not on arrival.
        receive_maximum: Unacknowledged messages the broker may send at once (Mosquitto heeds it, rumqttd does not).
        on_connected: After each connect, once subscriptions are on their way: publish again what is retained.
        on_ended: Once, when the link is over and will not come back by itself (not after `stop` or `abort`).
        reconnect: False ends the link at the first loss: its owner has to check something before it may return.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        loop: Loop,
        *,
        will: Will | None = None,
        session_expiry_s: int | None = None,
        manual_ack: bool = False,
        receive_maximum: int = 100,
        on_connected: Then | None = None,
        on_ended: Then | None = None,
        reconnect: bool = True,
    ) -> None:
        self.client_id = client_id
        self.root = settings.root
        self._where = f"{settings.host}:{settings.port}"
        self._loop = loop
        self._on_connected = on_connected
        self._on_ended = on_ended
        self._reconnect = reconnect
        self._handlers: dict[str, tuple[Handler, int]] = {}
        self._subscribing: dict[int, tuple[list[str], list[Then]]] = {}
        self._then: list[Then] = []
        #: told of each connection after the first, and of each loss; the packet id whose confirmation makes it one
        self._watchers: list[tuple[Then, Then]] = []
        self._restoring: int | None = None
        self._outbox: deque[tuple[Outgoing, _Sent]] = deque()
        self._sent: dict[int, _Sent] = {}
        self._manual_ack = manual_ack
        #: packet ids in the order in which they came, and those of them that are done with
        self._unacknowledged: deque[int] = deque()
        self._done: set[int] = set()
        self._limit = settings.max_message_bytes
        self._attempt = 0
        self._generation = 0
        self._stopping = False
        self._connected = threading.Event()
        self._ended = threading.Event()
        self._refused: UnauthorisedError | None = None
        events = Events(self._up, self._down, self._message, self._subscribed, self._acknowledged)
        self._connection = Connection(
            settings,
            client_id,
            loop,
            events,
            will=will,
            session_expiry_s=session_expiry_s,
            manual_ack=manual_ack,
            receive_maximum=receive_maximum,
        )

    # ---- life ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts to connect, without waiting: `on_connected` or `on_ended` tells what became of it."""
        self._attempt += 1
        self._connection.connect()

    def start(self, timeout_s: float = 10.0) -> None:
        """Connects and waits for it; not from the loop's thread.

        Raises:
            UnauthorisedError: The broker refused the login.
            S2M3Error: There is no broker within the time.
        """
        self.begin()
        waited = 0.0
        while not self._connected.wait(0.02):
            waited += 0.02
            if self._refused is not None:
                raise self._refused
            if waited > timeout_s or self._ended.is_set():
                self._stopping = True
                raise S2M3Error(f"no MQTT v5 broker answers at {self._where} within {timeout_s:g} s")

    def stop(self, timeout_s: float = 5.0) -> None:
        """Sends what is queued, says goodbye (no last will follows) and ends. In the loop's thread: no waiting."""
        self._loop.call(lambda: self._stop_after(timeout_s))
        if not self._loop.is_current:
            self._ended.wait(timeout_s + 1.0)

    def _stop_after(self, left_s: float) -> None:
        if self._connected.is_set() and (self._sent or self._outbox) and left_s > 0:
            self._loop.after(_GOODBYE_S, lambda: self._stop_after(left_s - _GOODBYE_S))
            return
        self._stopping = True
        if self._connected.is_set():
            self._connection.disconnect()
        else:
            self._ended.set()

    def abort(self) -> None:
        """Ends without a goodbye, as a crash would: the session and what was not acknowledged stay at the broker."""
        self._stopping = True
        self._loop.call(self._connection.abort)

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return self._connected.is_set()

    @property
    def refused(self) -> UnauthorisedError | None:
        """Why the broker will not have us; None while it does."""
        return self._refused

    def _up(self, limit: int) -> None:
        if self._stopping:  # ended while it was connecting
            self._connection.disconnect()
            return
        self._attempt = 0
        self._generation += 1
        self._unacknowledged.clear()
        self._done.clear()
        self._limit = limit
        self._connected.set()
        metrics.CONNECTED.labels(self.client_id).set(1)
        then, self._then = self._then, []
        if self._handlers:
            self._restoring = self._subscribe({name: qos for name, (_, qos) in self._handlers.items()}, then)
        self._flush()
        if self._on_connected is not None:
            self._on_connected()

    def _down(self, refused: UnauthorisedError | None) -> None:
        metrics.CONNECTED.labels(self.client_id).set(0)
        was_connected = self._connected.is_set() and not self._stopping
        self._connected.clear()
        for _, then in self._subscribing.values():
            self._then += then  # confirmed by the next connection
        self._subscribing.clear()
        if was_connected:
            metrics.CONNECTIONS_LOST.labels(self.client_id).inc()
            _log.info("disconnected", client=self.client_id)
            for _, down in self._watchers:
                down()
        self._sent = {mid: sent for mid, sent in self._sent.items() if sent.qos}  # QoS 0: sent or lost, nobody will say
        if refused is not None and self._refused is None:
            self._refused = refused
            _log.error("login_refused", client=self.client_id, error=refused.detail)
        if not self._stopping and self._reconnect and refused is None:
            self._loop.after(_delay(self._attempt + 1), self._again)
            return
        first = not self._ended.is_set()
        self._ended.set()
        if first and not self._stopping and self._on_ended is not None:
            self._on_ended()

    def watch(self, *, up: Then, down: Then) -> None:
        """Calls `down` at each loss, and `up` at each return once the broker has confirmed the subscriptions."""
        self._watchers.append((up, down))

    def _again(self) -> None:
        if self._stopping:
            self._ended.set()
        else:
            self.begin()

    # ---- in ---------------------------------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        if message.mid:
            message = replace(message, generation=self._generation)
            if self._manual_ack:
                self._unacknowledged.append(message.mid)
        found = self._handlers.get(message.topic)
        if found is not None:
            found[0](message)
            return
        for name, (handler, _) in list(self._handlers.items()):
            if _matches(name, message.topic):
                handler(message)

    def subscribe(self, topic_filter: str, handler: Handler, *, qos: int = 1, then: Then | None = None) -> None:
        """Subscribes now and on every connect. Overlapping filters would deliver twice: keep them apart.

        Args:
            topic_filter: May hold + and #.
            handler: Takes each message.
            qos: At most this.
            then: Called once when the broker has confirmed (now, or at the next connect).
        """
        if not self._loop.is_current:
            self._loop.call(lambda: self.subscribe(topic_filter, handler, qos=qos, then=then))
            return
        self._handlers[topic_filter] = (handler, qos)
        thens = [then] if then else []
        if self._connected.is_set():
            self._subscribe({topic_filter: qos}, thens)
            self._connection.flush()
        else:
            self._then += thens

    def _subscribe(self, filters: dict[str, int], then: list[Then]) -> int | None:
        mid = self._connection.subscribe(filters)
        if mid is None:
            self._then += then
        else:
            self._subscribing[mid] = (list(filters), then)
        return mid

    def _subscribed(self, mid: int, refused: list[str | None]) -> None:
        filters, thens = self._subscribing.pop(mid, ([], []))
        for topic_filter, reason in zip(filters, refused, strict=False):
            if reason is not None:
                _log.error("subscription_refused", client=self.client_id, filter=topic_filter, reason=reason)
        for then in thens:
            then()
        if mid == self._restoring and self._generation > 1:
            for up, _ in self._watchers:
                up()

    def unsubscribe(self, topic_filter: str) -> None:
        """Takes a subscription back."""
        if not self._loop.is_current:
            self._loop.call(lambda: self.unsubscribe(topic_filter))
        elif self._handlers.pop(topic_filter, None) is not None and self._connected.is_set():
            self._connection.unsubscribe(topic_filter)
            self._connection.flush()

    def ack(self, message: Message) -> None:
        """Acknowledges a message of a manual_ack link; one of an earlier connection not: the broker sends it again.

        Acknowledgements go out in the order in which the messages came, as MQTT 5 (4.6) demands; rumqttd ends the
        connection of whoever does otherwise. One that is early waits for those before it.
        """
        if not self._loop.is_current:
            self._loop.call(lambda: self.ack(message))
            return
        if not message.mid or message.generation != self._generation or not self._connected.is_set():
            return
        self._done.add(message.mid)
        while self._unacknowledged and self._unacknowledged[0] in self._done:
            mid = self._unacknowledged.popleft()
            self._done.discard(mid)
            self._connection.ack(mid)
        self._connection.flush()

    # ---- out --------------------------------------------------------------------------------------------------------

    def publish(self, message: Outgoing, *, delivered: Then | None = None, unheard: Then | None = None) -> None:
        """Queues a message; with no v5 argument it goes out without properties.

        Args:
            message: What and where to.
            delivered: Called when the broker has acknowledged it (QoS 1).
            unheard: Called instead when the broker says that nobody is subscribed (Mosquitto does, rumqttd does not).

        Raises:
            TooLargeError: Over the broker's or our limit; nothing was sent.
            BusyError: The bound is reached; nothing was queued.
        """
        size = len(message.payload)
        if size > self._limit:
            raise TooLargeError(f"{size} bytes are over the limit of {self._limit}", size=size, limit=self._limit)
        if len(self._outbox) + len(self._sent) >= _OUTGOING:
            raise BusyError(f"{_OUTGOING} messages wait for the broker's acknowledgement")
        self._outbox.append((message, _Sent(message.qos, delivered, unheard)))
        if self._loop.is_current:
            self._flush()
        else:
            self._loop.call(self._flush)

    def _flush(self) -> None:
        while self._outbox:
            message, sent = self._outbox.popleft()
            if message.qos or self._connected.is_set():  # QoS 0 without a connection is lost by its nature
                self._sent[self._connection.publish(message)] = sent
        self._connection.flush()

    def _acknowledged(self, mid: int, refused: str | None, heard: bool) -> None:  # noqa: FBT001  # an event's fields
        sent = self._sent.pop(mid, None)
        if refused is not None:
            _log.error("publish_refused", client=self.client_id, reason=refused)
        if sent is None:
            return
        then = sent.delivered if heard or sent.unheard is None else sent.unheard
        if then is not None:
            then()


def _delay(attempt: int) -> float:
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # a number
    state.attempt_number = attempt
    return _backoff(state) + random.uniform(0.0, 0.05)  # noqa: S311  # jitter, not a secret


def _matches(topic_filter: str, topic: str) -> bool:
    """MQTT 5, section 4.7: + stands for one level, # for all that follow."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    for i, want in enumerate(wanted):
        if want == "#":
            return True
        if i >= len(levels) or want not in ("+", levels[i]):
            return False
    return len(wanted) == len(levels)
