"""An MQTT connection that reconnects, restores its subscriptions and limits its queue of outgoing messages."""

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
from s2m3.broker.mqtt.outbox import Callback, Refused, denied
from s2m3.broker.mqtt.sender import Sender
from s2m3.broker.mqtt.subscriptions import Acknowledgements, Handler, Handlers
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.sessions import without_tag
from s2m3.schemas.settings import BrokerSettings

__all__ = ["Link"]

_log = structlog.get_logger(__name__)
#: A connection that lasted longer than this resets the reconnect back-off.
_STABLE_S = 2.0
_POLL_S = 0.02


class Link:
    """An MQTT v5 connection that reconnects with exponential back-off and jitter.

    Handlers and callbacks run in the loop's thread. Subscriptions are made again on every connect. The outgoing queue
    is bounded: `publish` raises BusyError when it is full. All methods may be called from any thread.

    If the broker refuses the login, a subscription, or a publication without `on_refused` callback, the link ends:
    another attempt would be refused too. `refused` is then the reason.

    Args:
        settings: The broker's address, and the login.
        client_id: The MQTT client id. A second connection with the same client id ends the first.
        loop: The event loop that serves the socket and runs the handlers.
        will: The last will.
        session_expiry_s: Seconds for which the broker keeps a persistent session after a loss; None: clean start.
        manual_ack: QoS 1 messages that a handler takes are acknowledged (PUBACK) by `ack` instead of on arrival.
        receive_maximum: Most unacknowledged messages that the broker may send; rumqttd ignores it.
        cut_over: Payloads over so many bytes arrive cut (Message.oversize). None: Mosquitto drops those over our limit.
        on_connected: Called after each connect, with SUBSCRIBE queued: the place to publish retained documents again.
        on_ended: Called once if the link ends by itself (refused, or lost with `reconnect=False`), not after `stop`.
        reconnect: False ends the link at the first loss, for an owner that must check something before it reconnects.
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
        cut_over: int | None = None,
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
        self._subscribing: dict[int, tuple[list[str], list[Callback]]] = {}  # by packet id, until the SUBACK
        self._on_next_subscribed: list[Callback] = []
        self._on_reconnect: list[Callback] = []  # for each connect but the first: when `_resubscribe_mid` is confirmed
        self._on_disconnect: list[Callback] = []
        self._resubscribe_mid: int | None = None
        self._manual_ack = manual_ack
        self._unacknowledged = Acknowledgements()
        self._attempt, self._generation, self._up_since = 0, 0, 0.0
        self._stopping = False
        self._connected = threading.Event()
        self._sender = Sender(self._name, settings.max_message_bytes, loop, self._connected, self._refuse)
        self._ended = threading.Event()
        self._refused: UnauthorisedError | None = None
        events = ConnectionEvents(self._up, self._down, self._message, self._subscribed, self._sender.acknowledged)
        self._connection = Connection(
            settings,
            client_id,
            loop,
            events,
            will=will,
            session_expiry_s=session_expiry_s,
            manual_ack=manual_ack,
            receive_maximum=receive_maximum,
            cut_over=cut_over,
        )
        self._sender.connection = self._connection

    def begin(self) -> None:
        """Starts to connect and returns at once; `on_connected` or `on_ended` reports the outcome."""
        if self._stopping:
            self._ended.set()
            return
        self._attempt += 1
        self._connection.connect()

    def start(self, timeout_s: float = 10.0, *, patient: bool = True) -> None:
        """Connects and blocks until connected. Must not be called in the loop's thread.

        Args:
            timeout_s: Longest wait, seconds.
            patient: Whether to keep trying if no broker answers at the address; False makes that an error at once.

        Raises:
            BrokerUnreachableError: No broker answered in time; the text says what did.
            UnauthorisedError: It refused the login.
        """
        self.begin()
        if not self.wait_for(self._connected, timeout_s, patient=patient):
            self._stopping = True
            raise self._connection.failures.not_there(timeout_s)

    def wait_for(self, event: threading.Event, timeout_s: float, *, patient: bool = True) -> bool:
        """Blocks until an event is set that depends on the broker; returns whether it is. Not in the loop's thread.

        Args:
            event: The event, e.g. one that an `on_subscribed` callback sets.
            timeout_s: Longest wait, seconds. The end of the link ends the wait too.
            patient: False also ends the wait if no broker answers at the address.

        Raises:
            UnauthorisedError: The broker refused the link.
        """
        deadline, failures = time.monotonic() + timeout_s, self._connection.failures
        while not event.wait(_POLL_S):
            if self._refused is not None:
                raise self._refused
            if self._ended.is_set() or time.monotonic() > deadline or not (patient or failures.may_pass):
                return event.is_set()
        return True

    def stop(self, timeout_s: float = 5.0) -> None:
        """Sends the queued messages, then disconnects without the last will. Blocks, except in the loop's thread."""
        self._loop.call(partial(self._stop_after, timeout_s))
        if not self._loop.is_current:
            self._ended.wait(timeout_s + 1.0)

    def _stop_after(self, left_s: float) -> None:
        if self._connected.is_set() and len(self._sender) and left_s > 0:
            self._loop.after(_POLL_S, lambda: self._stop_after(left_s - _POLL_S))
            return
        self._stopping = True
        if self._connected.is_set():
            self._connection.disconnect()
        else:
            self._ended.set()

    def abort(self) -> None:
        """Closes without DISCONNECT, as a crash would: the broker keeps the session and publishes the last will."""
        self._stopping = True
        self._loop.call(self._connection.abort)

    @property
    def connected(self) -> bool:
        """Whether there is a connection now (CONNACK received)."""
        return self._connected.is_set()

    @property
    def sends_one_by_one(self) -> bool:
        """Whether this broker sends a QoS 1 message only when the one before is acknowledged."""
        return self._connection.sends_one_by_one

    @property
    def refused(self) -> UnauthorisedError | None:
        """The error with which the broker refused this link; None if it did not."""
        return self._refused

    def _up(self, limit: int) -> None:
        if self._stopping:  # `stop` or a time-out came while the connection was being made
            self._connection.disconnect()
            return
        self._up_since = time.monotonic()
        self._generation += 1
        self._unacknowledged.clear()
        self._connected.set()
        metrics.CONNECTED.labels(self._name).set(1)
        callbacks, self._on_next_subscribed = self._on_next_subscribed, []
        if filters := self._handlers.filters():
            self._resubscribe_mid = self._subscribe(filters, callbacks)
        self._sender.up(limit)
        if self._on_connected is not None:
            self._on_connected()

    def _down(self, refused: UnauthorisedError | None) -> None:
        metrics.CONNECTED.labels(self._name).set(0)
        was_up = self._connected.is_set()
        self._connected.clear()
        for _, callbacks in self._subscribing.values():
            self._on_next_subscribed += callbacks  # called at the SUBACK of the next connection
        self._subscribing.clear()
        if was_up and not self._stopping:
            if time.monotonic() - self._up_since > _STABLE_S:  # else a second client may use the same client id
                self._attempt = 0
            metrics.CONNECTIONS_LOST.labels(self._name).inc()
            _log.info("disconnected", client=self._name)
            for on_disconnect in self._on_disconnect:
                on_disconnect()
        self._sender.down(was_up=was_up)
        self._note_refusal(refused)
        if not self._stopping and self._reconnect and self._refused is None:
            self._loop.after(delay_s(self._attempt + 1), self.begin)
            return
        is_first = not self._ended.is_set()
        self._ended.set()
        if is_first and not self._stopping and self._on_ended is not None:
            self._on_ended()

    def on_connection_change(
        self, *, on_reconnect: Callback | None = None, on_disconnect: Callback | None = None
    ) -> None:
        """Adds callbacks for each loss, and for each connect but the first once the subscriptions are confirmed."""
        self._on_reconnect += [on_reconnect] if on_reconnect else []
        self._on_disconnect += [on_disconnect] if on_disconnect else []

    def _note_refusal(self, refused: UnauthorisedError | None) -> None:
        if refused is not None and self._refused is None:
            self._refused = refused
            _log.error("refused", client=self._name, error=refused.detail)

    def _refuse(self, refused: UnauthorisedError) -> None:
        """Ends the link without DISCONNECT, so that the broker publishes the last will."""
        if not self._stopping:
            self._note_refusal(refused)
            self._connection.abort()

    def _message(self, message: Message) -> None:
        if self._manual_ack and message.mid:
            message = replace(message, generation=self._generation)
            self._unacknowledged.came(message.mid)
        if not self._handlers.handle(message) and self._manual_ack:
            self.ack(message)  # of a subscription that another release made; without the PUBACK it would block others

    def subscribe(
        self,
        topic_filter: str,
        handler: Handler,
        *,
        qos: int = 1,
        on_subscribed: Callback | None = None,
        required: bool = True,
        retained: bool = True,
    ) -> None:
        """Subscribes now and on every connect. Filters must not overlap: the broker would deliver messages twice.

        Args:
            topic_filter: Topic filter, with wildcards + and #.
            handler: Called with each message.
            qos: Largest QoS of delivery.
            on_subscribed: Called once at the SUBACK (of this connection, or of the next connect).
            required: Whether a refusal of the subscription ends the link.
            retained: Whether the broker is to send what it retains (Retain Handling 2 if not; rumqttd ignores it).
        """
        if not self._loop.is_current:
            subscribe = partial(self.subscribe, qos=qos, on_subscribed=on_subscribed)
            self._loop.call(partial(subscribe, topic_filter, handler, required=required, retained=retained))
            return
        self._handlers.add(topic_filter, handler, qos, required=required, retained=retained)
        callbacks = [on_subscribed] if on_subscribed else []
        if self._connected.is_set():
            self._subscribe({topic_filter: qos}, callbacks)
            self._connection.flush()
        else:
            self._on_next_subscribed += callbacks

    def _subscribe(self, filters: dict[str, int], callbacks: list[Callback]) -> int | None:
        mid = self._connection.subscribe(filters, self._handlers.wants_retained)
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
        is_restored = mid == self._resubscribe_mid and self._generation > 1
        for callback in [*callbacks, *(self._on_reconnect if is_restored else [])]:
            callback()

    def unsubscribe(self, topic_filter: str) -> None:
        """Removes a subscription and its handler."""
        if not self._loop.is_current:
            self._loop.call(partial(self.unsubscribe, topic_filter))
        elif self._handlers.remove(topic_filter) and self._connected.is_set():
            self._connection.unsubscribe(topic_filter)
            self._connection.flush()

    def ack(self, message: Message) -> None:
        """Acknowledges a message of a `manual_ack` link; no-op for one of an earlier connection (it is redelivered)."""
        if not self._loop.is_current:
            self._loop.call(lambda: self.ack(message))
            return
        if not message.mid or message.generation != self._generation or not self._connected.is_set():
            return
        for mid in self._unacknowledged.done(message.mid):
            self._connection.ack(mid)
        self._connection.flush()

    def publish(
        self,
        message: Outgoing,
        *,
        on_delivered: Callback | None = None,
        on_no_subscribers: Callback | None = None,
        on_refused: Refused | None = None,
        on_dropped: Refused | None = None,
    ) -> None:
        """Queues a message. Without a connection, a QoS 1 message waits for the next one.

        Args:
            message: Topic, payload, QoS and v5 properties.
            on_delivered: Called at the PUBACK (QoS 1).
            on_no_subscribers: Called instead if the PUBACK says that nobody is subscribed (rumqttd never says so).
            on_refused: Called instead if the access list denies the publication; without it, a denial ends the link.
            on_dropped: Called instead if every connection is lost over the message (a poison message); without it,
                `on_refused` is called, and without that too, `on_delivered`.

        Raises:
            TooLargeError: The payload exceeds the broker's or our own limit.
            BusyError: The outgoing queue is full.
        """
        self._sender.add(message, on_delivered, on_no_subscribers, on_refused, on_dropped)

    @property
    def has_room(self) -> bool:
        """Whether the outgoing queue is short enough for optional messages (less than a quarter of its bound)."""
        return self._sender.has_room

    @property
    def outgoing_bytes(self) -> int:
        """Bytes of the payloads that wait to be sent or acknowledged. To be read in the loop's thread."""
        return self._sender.nbytes
