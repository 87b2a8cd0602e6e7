"""A connection that comes back: subscriptions made again, handlers by topic, acknowledged delivery, bounded sending."""

import threading
import time
from dataclasses import replace
from functools import partial

import structlog

from s2m3.broker import metrics
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.backoff import delay_s
from s2m3.broker.mqtt.connection import Connection
from s2m3.broker.mqtt.connection_events import ConnectionEvents
from s2m3.broker.mqtt.message import Message, Outgoing, Will
from s2m3.broker.mqtt.outbox import Callback, Outbox, Refused, denied
from s2m3.broker.mqtt.subscriptions import Acknowledgements, Handler, Handlers
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.sessions import without_tag
from s2m3.schemas.settings import BrokerSettings

__all__ = ["Link"]

_log = structlog.get_logger(__name__)
_GOODBYE_S = 0.01
#: A connection that lived shorter was no success: the wait before the next one grows on.
_STEADY_S = 2.0
_LOOK_S = 0.02


class Link:
    """An MQTT v5 connection that comes back by itself, with jitter.

    Handlers and callbacks run in the loop's thread. Subscriptions are made again on every connect. Sending is bounded:
    `publish` raises BusyError at the bound. Methods may be called from any thread.

    What the broker refuses (a login, a subscription, a publication without an `on_refused` callback) ends the link:
    trying again would not change it. `refused` says why.

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
        on_connected: Callback | None = None,
        on_ended: Callback | None = None,
        reconnect: bool = True,
    ) -> None:
        self.client_id = client_id
        self._name = without_tag(client_id)
        self.root = settings.root
        self._loop = loop
        self._on_connected = on_connected
        self._on_ended = on_ended
        self._reconnect = reconnect
        self._handlers = Handlers()
        self._subscribing: dict[int, tuple[list[str], list[Callback]]] = {}
        self._on_next_subscribed: list[Callback] = []
        #: told of each connection after the first (once this packet is confirmed), and of each loss
        self._ups: list[Callback] = []
        self._downs: list[Callback] = []
        self._restoring: int | None = None
        self._outbox = Outbox(self._name, settings.max_message_bytes, self._refuse)
        self._manual_ack = manual_ack
        self._unacknowledged = Acknowledgements()
        self._attempt = 0
        self._up_since = 0.0
        self._generation = 0
        self._stopping = False
        self._connected = threading.Event()
        self._ended = threading.Event()
        self._refused: UnauthorisedError | None = None
        events = ConnectionEvents(self._up, self._down, self._message, self._subscribed, self._outbox.acknowledged)
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

    def start(self, timeout_s: float = 10.0, *, patient: bool = True) -> None:
        """Connects and waits for it; not from the loop's thread.

        Args:
            timeout_s: Seconds to wait at most.
            patient: Whether a broker that is not there is waited for; False: that is an error at once.

        Raises:
            S2M3Error: There is no broker within the time, or it refused the login; the text says what is there instead.
        """
        self.begin()
        if not self.wait_for(self._connected, timeout_s, patient=patient):
            self._stopping = True
            raise self._connection.failures.not_there(timeout_s)

    def wait_for(self, event: threading.Event, timeout_s: float, *, patient: bool = True) -> bool:
        """Waits for what the broker is to bring about, and returns whether it did; not from the loop's thread.

        Args:
            event: Set when it has.
            timeout_s: Seconds to wait at most; the end of the link ends the wait too.
            patient: False also ends the wait when there is no broker at all.

        Raises:
            UnauthorisedError: The broker refused the link.
        """
        deadline, failures = time.monotonic() + timeout_s, self._connection.failures
        while not event.wait(_LOOK_S):
            if self._refused is not None:
                raise self._refused
            if self._ended.is_set() or time.monotonic() > deadline or not (patient or failures.may_pass):
                return event.is_set()
        return True

    def stop(self, timeout_s: float = 5.0) -> None:
        """Sends what is queued, says goodbye (no last will follows) and ends. In the loop's thread: no waiting."""
        self._loop.call(partial(self._stop_after, timeout_s))
        if not self._loop.is_current:
            self._ended.wait(timeout_s + 1.0)

    def _stop_after(self, left_s: float) -> None:
        if self._connected.is_set() and self._outbox and left_s > 0:
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
        self._up_since = time.monotonic()
        self._generation += 1
        self._unacknowledged.clear()
        self._outbox.limit = limit
        self._connected.set()
        metrics.CONNECTED.labels(self._name).set(1)
        callbacks, self._on_next_subscribed = self._on_next_subscribed, []
        if filters := self._handlers.filters():
            self._restoring = self._subscribe(filters, callbacks)
        self._flush()
        if self._on_connected is not None:
            self._on_connected()

    def _down(self, refused: UnauthorisedError | None) -> None:
        metrics.CONNECTED.labels(self._name).set(0)
        was_connected = self._connected.is_set() and not self._stopping
        self._connected.clear()
        for _, then in self._subscribing.values():
            self._on_next_subscribed += then  # confirmed by the next connection
        self._subscribing.clear()
        if was_connected:
            if time.monotonic() - self._up_since > _STEADY_S:  # else somebody with our client id comes back at once too
                self._attempt = 0
            metrics.CONNECTIONS_LOST.labels(self._name).inc()
            _log.info("disconnected", client=self._name)
            for on_disconnect in self._downs:
                on_disconnect()
        self._outbox.connection_lost()
        self._note(refused)
        if not self._stopping and self._reconnect and self._refused is None:
            self._loop.after(delay_s(self._attempt + 1), self._again)
            return
        first = not self._ended.is_set()
        self._ended.set()
        if first and not self._stopping and self._on_ended is not None:
            self._on_ended()

    def on_connection_change(
        self, *, on_reconnect: Callback | None = None, on_disconnect: Callback | None = None
    ) -> None:
        """Calls `down` at each loss, and `up` at each return once the broker has confirmed the subscriptions."""
        self._ups += [on_reconnect] if on_reconnect else []
        self._downs += [on_disconnect] if on_disconnect else []

    def _note(self, refused: UnauthorisedError | None) -> None:
        if refused is not None and self._refused is None:
            self._refused = refused
            _log.error("refused", client=self._name, error=refused.detail)

    def _refuse(self, refused: UnauthorisedError) -> None:
        """Ends the link as a crash would, so that a last will says that we are gone."""
        if not self._stopping:
            self._note(refused)
            self._connection.abort()

    def _again(self) -> None:
        if self._stopping:
            self._ended.set()
        else:
            self.begin()

    # ---- in ---------------------------------------------------------------------------------------------------------

    def _message(self, message: Message) -> None:
        if self._manual_ack and message.mid:
            message = replace(message, generation=self._generation)
            self._unacknowledged.came(message.mid)
        self._handlers.handle(message)

    def subscribe(
        self,
        topic_filter: str,
        handler: Handler,
        *,
        qos: int = 1,
        on_subscribed: Callback | None = None,
        required: bool = True,
    ) -> None:
        """Subscribes now and on every connect. Overlapping filters would deliver twice: keep them apart.

        Args:
            topic_filter: May hold + and #.
            handler: Takes each message.
            qos: At most this.
            on_subscribed: Called once when the broker has confirmed (now, or at the next connect).
            required: Whether a refusal ends the link.
        """
        if not self._loop.is_current:
            again = partial(self.subscribe, qos=qos, on_subscribed=on_subscribed, required=required)
            self._loop.call(partial(again, topic_filter, handler))
            return
        self._handlers.add(topic_filter, handler, qos, required=required)
        callbacks = [on_subscribed] if on_subscribed else []
        if self._connected.is_set():
            self._subscribe({topic_filter: qos}, callbacks)
            self._connection.flush()
        else:
            self._on_next_subscribed += callbacks

    def _subscribe(self, filters: dict[str, int], callbacks: list[Callback]) -> int | None:
        mid = self._connection.subscribe(filters)
        if mid is None:
            self._on_next_subscribed += callbacks
        else:
            self._subscribing[mid] = (list(filters), callbacks)
        return mid

    def _subscribed(self, mid: int, refused: list[str | None]) -> None:
        filters, callbacks = self._subscribing.pop(mid, ([], []))
        for topic_filter, reason in zip(filters, refused, strict=False):
            if reason is not None and self._handlers.is_required(topic_filter):
                self._refuse(denied(self._name, f"read {topic_filter} ({reason})"))
                return
        is_back = mid == self._restoring and self._generation > 1
        for callback in [*callbacks, *(self._ups if is_back else [])]:
            callback()

    def unsubscribe(self, topic_filter: str) -> None:
        """Takes a subscription back."""
        if not self._loop.is_current:
            self._loop.call(partial(self.unsubscribe, topic_filter))
        elif self._handlers.remove(topic_filter) and self._connected.is_set():
            self._connection.unsubscribe(topic_filter)
            self._connection.flush()

    def ack(self, message: Message) -> None:
        """Acknowledges a message of a manual_ack link; one of an earlier connection not: the broker sends it again."""
        if not self._loop.is_current:
            self._loop.call(lambda: self.ack(message))
            return
        if not message.mid or message.generation != self._generation or not self._connected.is_set():
            return
        for mid in self._unacknowledged.done(message.mid):
            self._connection.ack(mid)
        self._connection.flush()

    # ---- out --------------------------------------------------------------------------------------------------------

    def publish(
        self,
        message: Outgoing,
        *,
        on_delivered: Callback | None = None,
        on_no_subscribers: Callback | None = None,
        on_refused: Refused | None = None,
    ) -> None:
        """Queues a message; with no v5 argument it goes out without properties.

        Args:
            message: What and where to.
            on_delivered: Called when the broker has acknowledged it (QoS 1).
            on_no_subscribers: Called instead when the broker says that nobody is subscribed (rumqttd does not).
            on_refused: Called instead when the broker does not let us; without it that ends the link.

        Raises:
            TooLargeError: Over the broker's or our limit; nothing was sent.
            BusyError: The bound is reached; nothing was queued.
        """
        self._outbox.add(message, on_delivered, on_no_subscribers, on_refused)
        if self._loop.is_current:
            self._flush()
        else:
            self._loop.call(self._flush)

    @property
    def has_room(self) -> bool:
        """Whether few enough messages wait that more may be sent that could as well be left out."""
        return self._outbox.has_room

    def _flush(self) -> None:
        self._outbox.flush(self._connection.publish, connected=self._connected.is_set())
        self._connection.flush()
