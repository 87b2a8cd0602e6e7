"""One connection to an MQTT v5 broker. The only file that knows paho; it reads no payload and decides nothing."""

import math
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import structlog
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.matcher import MQTTMatcher
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions
from tenacity import RetryCallState, wait_random_exponential

from broker.loop import Loop
from broker.message import Message, Will
from schemas.errors import BusyError, S2M3Error, TooLargeError, UnauthorisedError
from schemas.settings import BrokerSettings

__all__ = ["Link"]

_log = structlog.get_logger(__name__)
_CONNECT_TIMEOUT_S = 5.0
_GOODBYE_S = 2.0
#: A broker without reason codes closes the socket on a refused login. So many in a row count as a refusal.
_SILENT_REFUSALS = 3
_OUTGOING = 2_000
_INFLIGHT = 100
#: Fixed header, topic and properties beside the payload.
_OVERHEAD = 1_024
_backoff = wait_random_exponential(multiplier=0.2, max=5.0)
_ACKNOWLEDGED: tuple[int, None] = (1, None)


Handler = Callable[[Message], None]


class Link:
    """An MQTT v5 connection that comes back by itself.

    Handlers, and the callbacks below, run in the loop's thread, never in the network's. Subscriptions are made again
    on every connect. The outgoing queue is bounded: `publish` raises BusyError when it is full.

    Args:
        settings: Where the broker is and who we are.
        client_id: Ours. A second connection with the same one ends the first.
        loop: Runs the handlers.
        will: Last will.
        session_expiry_s: None starts clean each time; otherwise the broker keeps our session for so long.
        manual_ack: QoS 1 messages are acknowledged by `ack`, not on arrival.
        receive_maximum: Unacknowledged messages the broker may send at once (Mosquitto heeds it, rumqttd does not).
        on_connected: After each connect, once subscriptions are on their way: publish again what is retained.
        on_disconnected: After each loss of the connection.
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
        on_connected: Callable[[], None] | None = None,
        on_disconnected: Callable[[], None] | None = None,
        on_ended: Callable[[], None] | None = None,
        reconnect: bool = True,
    ) -> None:
        self.client_id = client_id
        self.root = settings.root
        self._settings = settings
        self._loop = loop
        self._session_expiry_s = session_expiry_s
        self._receive_maximum = receive_maximum
        self._on_connected = on_connected
        self._on_disconnected = on_disconnected
        self._on_ended = on_ended
        self._reconnect = reconnect
        self._manual_ack = manual_ack
        self._handlers = MQTTMatcher()  # type: ignore[no-untyped-call]
        self._filters: dict[str, int] = {}
        self._subscribing: dict[int, tuple[list[str], list[Callable[[], None]]]] = {}
        self._then: list[Callable[[], None]] = []
        #: packet id -> QoS and what to call; whoever comes second, publisher or acknowledgement, takes it out
        self._delivering: dict[int, tuple[int, Callable[[], None] | None]] = {}
        self._lock = threading.Lock()
        self._connected = threading.Event()
        self._ended = threading.Event()
        self._stopping = threading.Event()
        self._generation = 0
        self._limit = settings.max_message_bytes
        self._refused: S2M3Error | None = None
        self._silent_refusals = 0
        self._client = self._make_client(client_id, will)
        self._thread = threading.Thread(target=self._network, name=f"mqtt-{client_id}", daemon=True)

    def _make_client(self, client_id: str, will: Will | None) -> Client:
        settings = self._settings
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTv5,
            manual_ack=self._manual_ack,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_queued_messages_set(_OUTGOING)
        client.max_inflight_messages_set(_INFLIGHT)
        if settings.username is not None:
            secret = settings.password.get_secret_value() if settings.password else None
            client.username_pw_set(settings.username, secret)
        if settings.tls_ca is not None:
            context = ssl.create_default_context(cafile=str(settings.tls_ca))
            if settings.tls_cert is not None:
                context.load_cert_chain(settings.tls_cert, settings.tls_key)
            client.tls_set_context(context)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_socket_open = _no_delay
        # With a write callback set, paho leaves writing to the network thread: two threads writing could tear a packet.
        client.on_socket_register_write = lambda *_: None
        client.on_connect = self._connack
        client.on_disconnect = self._disconnected
        client.on_message = self._message
        client.on_subscribe = self._suback
        client.on_publish = self._puback
        return client

    # ---- life ---------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Starts to connect, without waiting: `on_connected` or `on_ended` tells what became of it."""
        self._thread.start()

    def start(self, timeout_s: float = 10.0) -> None:
        """Connects and waits for it.

        Raises:
            UnauthorisedError: The broker refused the login.
            S2M3Error: There is no broker within the time.
        """
        self.begin()
        deadline = time.monotonic() + timeout_s
        while not self._connected.wait(0.02):
            if self._refused is not None:
                raise self._refused
            if time.monotonic() > deadline or self._ended.is_set():
                self._stopping.set()
                where = f"{self._settings.host}:{self._settings.port}"
                raise S2M3Error(f"no MQTT v5 broker answers at {where} within {timeout_s:g} s")

    def stop(self, timeout_s: float = 5.0) -> None:
        """Sends what is queued, says goodbye (no last will follows) and ends."""
        deadline = time.monotonic() + timeout_s
        while self._connected.is_set() and self._delivering and time.monotonic() < deadline:
            self._ended.wait(0.005)
        self._stopping.set()
        self._client.disconnect()
        self._thread.join(max(0.0, deadline - time.monotonic()))

    def abort(self) -> None:
        """Ends without a goodbye, as a crash would: the session and what was not acknowledged stay at the broker."""
        self._stopping.set()
        sock = self._client.socket()
        if sock is not None:
            try:
                sock.shutdown(socket.SHUT_RDWR)  # type: ignore[attr-defined]
            except OSError:
                _log.debug("socket_already_closed", client=self.client_id)

    @property
    def connected(self) -> bool:
        """Whether the broker is there now."""
        return self._connected.is_set()

    def wait_ended(self, timeout_s: float) -> bool:
        """Waits until the link is over (stopped, refused, or lost with reconnect off); returns whether it is."""
        return self._ended.wait(timeout_s)

    @property
    def refused(self) -> S2M3Error | None:
        """Why the broker will not have us; None while it does."""
        return self._refused

    def _network(self) -> None:
        attempt = 0
        while not self._stopping.is_set():
            attempt += 1
            before = self._generation
            try:
                self._connect()
                while self._client.loop(1.0) == MQTTErrorCode.MQTT_ERR_SUCCESS and not self._stopping.is_set():
                    continue
            except OSError as error:
                self._silent_refusals = 0
                _log.debug("connect_failed", client=self.client_id, error=str(error))
            except Exception:  # noqa: BLE001  # paho lets whatever a mangled packet makes it raise through: that connection is over
                _log.exception("connection_broken", client=self.client_id)
                self._disconnected()
            if self._generation != before:
                attempt = 1
            if self._stopping.is_set() or self._refused is not None or not self._reconnect:
                break
            self._stopping.wait(_delay(attempt))
        self._drain_goodbye()
        self._ended.set()
        if self._on_ended is not None and not self._stopping.is_set():
            self._loop.call(self._on_ended)

    def _drain_goodbye(self) -> None:
        """Writes the DISCONNECT that `stop` queued."""
        deadline = time.monotonic() + _GOODBYE_S
        while time.monotonic() < deadline and self._client.loop(0.05) == MQTTErrorCode.MQTT_ERR_SUCCESS:
            continue

    def _connect(self) -> None:
        properties = _properties(PacketTypes.CONNECT)
        properties.ReceiveMaximum = self._receive_maximum
        properties.MaximumPacketSize = self._settings.max_message_bytes + _OVERHEAD
        if self._session_expiry_s is not None:
            properties.SessionExpiryInterval = self._session_expiry_s
        self._client.connect(
            self._settings.host,
            self._settings.port,
            keepalive=self._settings.keepalive_s,
            clean_start=self._session_expiry_s is None,
            properties=properties,
        )

    # ---- callbacks of the network thread: they hand over, and do nothing else ---------------------------------------

    def _connack(
        self, _c: Client, _u: object, _flags: ConnectFlags, reason: ReasonCode, properties: Properties | None
    ) -> None:
        self._silent_refusals = 0
        if reason.is_failure:
            if reason.getName() in _FOR_GOOD:
                self._refused = UnauthorisedError(f"the broker refuses {self.client_id}: {reason}")
                _log.error("login_refused", client=self.client_id, reason=str(reason))
            return
        limit = getattr(properties, "MaximumPacketSize", None) if properties else None
        self._limit = min(self._settings.max_message_bytes, (limit or 2**31) - _OVERHEAD)
        self._generation += 1
        self._connected.set()
        with self._lock:
            filters, then, self._then = dict(self._filters), self._then, []
        if filters:
            self._send_subscribe(filters, then)
        if self._on_connected is not None:
            self._loop.call(self._on_connected)

    def _disconnected(self, *_: object) -> None:
        was_connected = self._connected.is_set()
        self._connected.clear()
        self._subscribing.clear()
        for mid, (qos, _then) in list(self._delivering.items()):
            if qos == 0:  # sent or lost, nobody will say
                self._delivering.pop(mid, None)
        if was_connected:
            if not self._stopping.is_set():
                _log.info("disconnected", client=self.client_id)
            if self._on_disconnected is not None:
                self._loop.call(self._on_disconnected)
            return
        self._silent_refusals += 1
        if self._silent_refusals >= _SILENT_REFUSALS:
            self._refused = UnauthorisedError(
                f"the broker closed {self.client_id}'s connection {self._silent_refusals} times before an answer: "
                "a refused login, or a listener that does not speak MQTT v5"
            )
            _log.error("login_refused", client=self.client_id, reason="closed without a reason code")

    def _message(self, _c: Client, _u: object, message: MQTTMessage) -> None:
        incoming = _incoming(message, self._generation)
        with self._lock:
            handlers = list(self._handlers.iter_match(incoming.topic))  # type: ignore[no-untyped-call]
        for handler in handlers:
            self._loop.offer(partial(handler, incoming))

    def _suback(self, _c: Client, _u: object, mid: int, reasons: list[ReasonCode], _p: Properties | None) -> None:
        with self._lock:
            filters, thens = self._subscribing.pop(mid, ([], []))
        for topic_filter, reason in zip(filters, reasons, strict=False):
            if reason.is_failure:
                _log.error("subscription_refused", client=self.client_id, filter=topic_filter, reason=str(reason))
        for then in thens:
            self._loop.call(then)

    def _puback(self, _c: Client, _u: object, mid: int, reason: ReasonCode, _p: Properties | None) -> None:
        # No lock here: paho holds one of its own now, and a publisher may hold ours while it waits for that one.
        if reason.is_failure:
            _log.error("publish_refused", client=self.client_id, reason=str(reason))
        self._settle(mid, _ACKNOWLEDGED)

    def _settle(self, mid: int, mine: tuple[int, Callable[[], None] | None]) -> None:
        """Brings publisher and acknowledgement together, whichever is first: setdefault is one atomic step."""
        theirs = self._delivering.setdefault(mid, mine)
        if theirs is mine:
            return
        self._delivering.pop(mid, None)
        then = theirs[1] or mine[1]
        if then is not None:
            self._loop.call(then)

    # ---- what its owner does --------------------------------------------------------------------------------------

    def subscribe(
        self, topic_filter: str, handler: Handler, *, qos: int = 1, then: Callable[[], None] | None = None
    ) -> None:
        """Subscribes now and on every connect; overlapping filters deliver twice, so keep them apart.

        Args:
            topic_filter: May hold + and #.
            handler: Takes each message.
            qos: At most this.
            then: Called once when the broker has confirmed (now, or at the next connect).
        """
        with self._lock:
            self._handlers[topic_filter] = handler
            self._filters[topic_filter] = qos
            if not self._connected.is_set():
                self._then += [then] if then else []
                return
        self._send_subscribe({topic_filter: qos}, [then] if then else [])

    def _send_subscribe(self, filters: dict[str, int], then: list[Callable[[], None]]) -> None:
        pairs = [(name, SubscribeOptions(qos=qos)) for name, qos in filters.items()]
        with self._lock:  # so that a confirmation that is faster than us finds its callbacks
            code, mid = self._client.subscribe(pairs)
            if code == MQTTErrorCode.MQTT_ERR_SUCCESS and mid is not None:
                self._subscribing[mid] = (list(filters), then)
            else:  # the connection went this moment: at the next connect
                self._then += then

    def unsubscribe(self, topic_filter: str) -> None:
        """Takes a subscription back."""
        with self._lock:
            if self._filters.pop(topic_filter, None) is None:
                return
            del self._handlers[topic_filter]  # type: ignore[no-untyped-call]
        if self._connected.is_set():
            self._client.unsubscribe(topic_filter)

    def publish(
        self,
        topic: str,
        payload: bytes,
        *,
        qos: int = 1,
        retain: bool = False,
        reply_to: str | None = None,
        correlation: bytes | None = None,
        content_type: str | None = None,
        expiry_s: float | None = None,
        user: Iterable[tuple[str, str]] = (),
        delivered: Callable[[], None] | None = None,
    ) -> None:
        """Queues a message; with none of the v5 arguments it goes out without properties.

        Args:
            topic: Where to.
            payload: At most what the broker and the settings allow.
            qos: 0 or 1.
            retain: Keep it for those who come later.
            reply_to: Response Topic.
            correlation: Correlation Data.
            content_type: Content Type.
            expiry_s: Message Expiry Interval, rounded up to whole seconds.
            user: User properties.
            delivered: Called when the broker has acknowledged (QoS 1).

        Raises:
            TooLargeError: Over the limit; nothing was sent.
            BusyError: The outgoing queue is full; nothing was queued.
        """
        if len(payload) > self._limit:
            raise TooLargeError(
                f"{len(payload)} bytes are over the limit of {self._limit}", size=len(payload), limit=self._limit
            )
        properties = _outgoing(reply_to, correlation, content_type, expiry_s, user)
        info = self._client.publish(topic, payload, qos=qos, retain=retain, properties=properties)
        if info.rc == MQTTErrorCode.MQTT_ERR_QUEUE_SIZE:
            raise BusyError(f"{_OUTGOING} messages wait for the broker's acknowledgement")
        if qos or info.rc == MQTTErrorCode.MQTT_ERR_SUCCESS:
            self._settle(info.mid, (qos, delivered))

    def ack(self, message: Message) -> None:
        """Acknowledges a message of a manual_ack link; of an earlier connection: no, the broker sends it again."""
        if message.mid and message.generation == self._generation:
            self._client.ack(message.mid, 1)


#: CONNACK reasons that trying again will not change.
_FOR_GOOD = frozenset(
    {
        "Bad user name or password",
        "Not authorized",
        "Client identifier not valid",
        "Banned",
        "Bad authentication method",
        "Unsupported protocol version",
    }
)


def _no_delay(_c: Client, _u: object, sock: Any) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _delay(attempt: int) -> float:
    state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]  # only the number is read
    state.attempt_number = attempt
    return _backoff(state) + random.uniform(0.0, 0.05)  # noqa: S311  # jitter, not a secret


def _properties(packet_type: int) -> Properties:
    return Properties(packet_type)  # type: ignore[no-untyped-call]


def _incoming(message: MQTTMessage, generation: int) -> Message:
    p = message.properties
    return Message(
        topic=message.topic,
        payload=bytes(message.payload),
        retain=message.retain,
        reply_to=getattr(p, "ResponseTopic", None),
        correlation=getattr(p, "CorrelationData", None),
        content_type=getattr(p, "ContentType", None),
        expiry_s=getattr(p, "MessageExpiryInterval", None),
        user=dict(getattr(p, "UserProperty", ())),
        mid=message.mid,
        generation=generation,
    )


def _outgoing(
    reply_to: str | None,
    correlation: bytes | None,
    content_type: str | None,
    expiry_s: float | None,
    user: Iterable[tuple[str, str]],
) -> Properties | None:
    properties = _properties(PacketTypes.PUBLISH)
    if reply_to is not None:
        properties.ResponseTopic = reply_to
    if correlation is not None:
        properties.CorrelationData = correlation
    if content_type is not None:
        properties.ContentType = content_type
    if expiry_s is not None:
        properties.MessageExpiryInterval = max(1, math.ceil(expiry_s))
    if pairs := list(user):
        properties.UserProperty = pairs
    return None if properties.isEmpty() else properties  # type: ignore[no-untyped-call]
