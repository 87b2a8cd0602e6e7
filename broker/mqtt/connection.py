"""One MQTT v5 connection, from connect to loss; it does not reconnect. The only file that imports paho.

Paho is driven through its public interface for external event loops. What depends on paho's private names (speed, and
the reason of a failed TLS handshake) is in fast_path.py and is not used if an installed paho has changed those names.
"""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import paho.mqtt
import structlog
from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from s2m3.broker.event_loop import Loop, SocketHandlers, Timer
from s2m3.broker.mqtt import fast_path, properties
from s2m3.broker.mqtt.connection_events import ConnectionEvents
from s2m3.broker.mqtt.message import Message, Outgoing, Will
from s2m3.broker.mqtt.outbox import IN_FLIGHT, OVERHEAD_BYTES
from s2m3.broker.mqtt.sockets import ConnectFailures, cork, no_delay, tls_context
from s2m3.schemas.sessions import without_tag
from s2m3.schemas.settings import BrokerSettings

if TYPE_CHECKING:
    from s2m3.schemas.errors import UnauthorisedError

__all__ = ["Connection"]

_log = structlog.get_logger(__name__)
_CONNECT_TIMEOUT_S = 5.0
#: Longest wait for the CONNACK once the socket is open.
_CONNACK_S = 5.0
_MISC_S = 0.5
#: Reason codes: of a PUBACK "No matching subscribers", of a DISCONNECT "Session taken over".
_NO_SUBSCRIBERS, _TAKEN_OVER = 0x10, 0x8E


class Connection:
    """A paho client whose socket is served by our event loop.

    All methods run in the loop's thread. Only the connect itself, which blocks, runs in a short-lived thread.

    Args:
        settings: The broker's address, and the login.
        client_id: The MQTT client id.
        loop: The event loop that serves the socket.
        events: The owner's callbacks.
        will: The last will.
        session_expiry_s: Session Expiry Interval, seconds; None for a clean start.
        manual_ack: QoS 1 messages are acknowledged by `ack` instead of on arrival.
        receive_maximum: Most unacknowledged messages that the broker may send.
        cut_over: Of a payload over so many bytes only the beginning is kept, and no Maximum Packet Size is announced.
    """

    def __init__(
        self,
        settings: BrokerSettings,
        client_id: str,
        loop: Loop,
        events: ConnectionEvents,
        *,
        will: Will | None,
        session_expiry_s: int | None,
        manual_ack: bool,
        receive_maximum: int,
        cut_over: int | None = None,
    ) -> None:
        self._settings = settings
        self._name = without_tag(client_id)
        self._loop = loop
        self._events = events
        self._session_expiry_s = session_expiry_s
        self._receive_maximum = receive_maximum
        self._cut_over = cut_over
        self.failures = ConnectFailures(settings, self._name)
        self._refused: UnauthorisedError | None = None
        self._connected = self._can_expire = self.sends_one_by_one = False
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._opened_at = 0.0
        self._tls = tls_context(settings)
        self._make_client = partial(self._new_client, client_id, will, manual_ack=manual_ack)
        self._use(self._make_client())

    def _use(self, client: Client) -> None:
        self._client = client
        #: `_client` if it has the fast path; None with stock paho
        self._fast = client if isinstance(client, _FastClient) else None

    def _new_client(self, client_id: str, will: Will | None, *, manual_ack: bool) -> Client:
        client = _client_class()(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTv5,
            manual_ack=manual_ack,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_queued_messages_set(0)  # unlimited: the link's outbox has the bound
        client.max_inflight_messages_set(IN_FLIGHT)
        if (login := self.failures.login) is not None:
            client.username_pw_set(*login)
        if self._tls is not None:
            client.tls_set_context(self._tls)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_socket_open = lambda _c, _u, sock: no_delay(sock)
        client.on_socket_close = self._on_socket_close
        client.on_socket_register_write = lambda *_: None  # keeps paho from writing at once; `_write` does
        client.on_connect = self._connack
        client.on_disconnect = self._on_disconnect  # `_on_socket_close` reports the loss
        client.on_message = self._paho_message
        client.on_subscribe = self._suback
        client.on_publish = self._puback
        if isinstance(client, _FastClient):
            client.use(self._message, self._limit, manual_ack=manual_ack, taken=_SUCCESS, no_properties=_NO_PROPERTIES)
        return client

    # ---- connect and loss -------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connects in a separate thread; the callback `up` or `down` reports the outcome.

        Each connection has a new paho client: paho would send what it holds unacknowledged again at once, and the
        outbox decides that (`Outbox.connection_lost`).
        """
        self._use(self._make_client())
        threading.Thread(target=self._connect, name=f"connect-{self._name}", daemon=True).start()

    def _connect(self) -> None:
        ours = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        ours.ReceiveMaximum = self._receive_maximum
        if self._cut_over is None:
            ours.MaximumPacketSize = self._settings.max_message_bytes + OVERHEAD_BYTES
        if self._session_expiry_s is not None:
            ours.SessionExpiryInterval = self._session_expiry_s
        try:
            self._client.connect(
                *self.failures.address,
                keepalive=self._settings.keepalive_s,
                clean_start=self._session_expiry_s is None,
                properties=ours,
            )
        except (OSError, ValueError) as error:
            _log.debug("connect_failed", client=self._name, error=str(error))
            self._loop.call(partial(self._failed_to_open, error))
        else:
            self._loop.call(self._opened)

    def _failed_to_open(self, error: OSError | ValueError) -> None:
        self._refused = self.failures.could_not_open(error)
        self._events.down(self._refused)

    def _opened(self) -> None:
        sock: Any = self._client.socket()
        if sock is None:
            self._events.down(None)
            return
        self._sock = sock
        self._opened_at = time.monotonic()
        self._loop.watch(sock, SocketHandlers(self._readable, self._write))
        self._timer = self._loop.every(_MISC_S, self._misc)
        self.flush()

    def _on_socket_close(self, _c: Client, _u: object, sock: Any) -> None:
        """Handles the loss of the connection; paho calls this just before it closes its socket."""
        if self._sock is None or sock is not self._sock:
            return
        self._loop.unwatch(self._sock)
        self._sock = None
        if self._timer is not None:
            self._timer.cancel()
        if not self._connected and self._refused is None:
            # in TLS 1.3 the broker rejects a client certificate only after the client's handshake has succeeded
            self._refused = self.failures.before_an_answer(self._fast.alert if self._fast is not None else None)
        self._connected = False
        self._loop.call(partial(self._events.down, self._refused))

    def _on_disconnect(
        self, _c: Client, _u: object, flags: DisconnectFlags, reason: ReasonCode, _p: Properties | None
    ) -> None:
        """Logs the reason of the broker's DISCONNECT; Mosquitto 2.0.11 and rumqttd close without one."""
        if flags.is_disconnect_packet_from_server:
            shared = "; another client uses our client id" if reason.value == _TAKEN_OVER else ""
            _log.warning("disconnected_by_broker", client=self._name, reason=f"{reason.getName()}{shared}")

    def disconnect(self) -> None:
        """Sends DISCONNECT, so that the broker does not publish the last will."""
        self._client.disconnect()
        self.flush()

    def abort(self) -> None:
        """Closes without DISCONNECT, as a crash would: the broker keeps the session and publishes the last will."""
        if self._sock is not None:
            with suppress(OSError):  # the peer has closed the socket already
                self._sock.shutdown(socket.SHUT_RDWR)
            self._readable()

    # ---- socket -----------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        if self._fast is not None:
            self._fast.may_read = True
        try:
            self._client.loop_read()
            while self._has_more():
                self._client.loop_read()
        except Exception:  # noqa: BLE001  # a malformed packet makes paho raise errors of any class
            _log.exception("connection_broken", client=self._name)
            self._close_socket()
        self.flush()

    def _has_more(self) -> bool:
        """Whether unread bytes are in a buffer (read ahead, or TLS), for which the socket does not become readable."""
        if self._fast is not None:
            return self._sock is not None and self._fast.has_more
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def _close_socket(self) -> None:
        """Closes without DISCONNECT; reading on would parse the same malformed packet again."""
        sock = self._sock
        if sock is not None:
            self._on_socket_close(self._client, None, sock)
            sock.close()  # paho closes the socket again at its next connect, which has no effect

    def flush(self) -> None:
        """Writes queued packets at the end of the loop's iteration: PUBACKs share a segment with answers."""
        self._loop.at_end(self._write)

    def _write(self) -> None:
        if self._sock is None:
            return
        if self._client.want_write():
            cork(self._sock, 1)  # paho calls send() for each packet; each would wake the broker
            self._client.loop_write()
            if self._sock is not None:
                cork(self._sock, 0)
        if self._sock is not None:
            self._loop.want_write(self._sock, self._client.want_write())

    def _misc(self) -> None:
        if self._sock is not None and not self._connected and time.monotonic() - self._opened_at > _CONNACK_S:
            self.failures.no_answer(_CONNACK_S)
            self.abort()
        self._client.loop_misc()
        self.flush()

    # ---- incoming packets: paho calls these from loop_read; our handlers run in later callbacks of the loop ----------

    def _connack(self, _c: Client, _u: object, _f: ConnectFlags, reason: ReasonCode, theirs: Properties | None) -> None:
        self.failures.forget()
        if reason.is_failure:
            self._refused = self.failures.with_reason(reason.getName())
            return
        self.failures.let_in()
        self._connected = True
        self._can_expire = properties.may_expire(theirs)
        self.sends_one_by_one = properties.sends_one_by_one(theirs)
        payload = min(
            self._settings.max_message_bytes, (getattr(theirs, "MaximumPacketSize", 0) or 2**31) - OVERHEAD_BYTES
        )
        self._loop.call(lambda: self._events.up(payload))

    @property
    def _limit(self) -> int:
        """Largest payload that is kept whole, bytes; without `cut_over`, rumqttd may deliver larger ones, whole too."""
        return 2**31 if self._cut_over is None else self._cut_over

    def _paho_message(self, _c: Client, _u: object, m: MQTTMessage) -> None:
        message = properties.received(m.topic, bytes(m.payload), m.properties, retain=m.retain, mid=m.mid)
        self._message(properties.bounded(message, len(m.payload), self._limit))

    def _message(self, message: Message) -> None:
        self._loop.call(lambda: self._events.message(message))

    def _suback(self, _c: Client, _u: object, mid: int, reasons: list[ReasonCode], _p: Properties | None) -> None:
        refused = [str(reason) if reason.is_failure else None for reason in reasons]
        self._loop.call(lambda: self._events.subscribed(mid, refused))

    def _puback(self, _c: Client, _u: object, mid: int, reason: ReasonCode, _p: Properties | None) -> None:
        refused = str(reason) if reason.is_failure else None
        has_subscribers = reason.value != _NO_SUBSCRIBERS
        self._loop.call(lambda: self._events.acknowledged(mid, refused, has_subscribers))

    # ---- outgoing packets -------------------------------------------------------------------------------------------

    def publish(self, message: Outgoing) -> int:
        """Queues a message for the next `flush`; returns its packet id. Without a connection, the message is lost."""
        packed: Any = None
        message = properties.bearable(message, can_expire=self._can_expire)
        if not message.plain:
            packed = properties.Packed(message) if self._fast is not None else _paho_properties(message)
        return self._client.publish(
            message.topic, message.payload, qos=message.qos, retain=message.retain, properties=packed
        ).mid

    def subscribe(self, filters: dict[str, int], wants_retained: Callable[[str], bool]) -> int | None:
        """Sends SUBSCRIBE for topic filters and their QoS; returns the packet id, or None if the connection is gone."""
        handling = {True: SubscribeOptions.RETAIN_SEND_ON_SUBSCRIBE, False: SubscribeOptions.RETAIN_DO_NOT_SEND}
        options = [
            SubscribeOptions(qos, retainHandling=handling[wants_retained(name)]) for name, qos in filters.items()
        ]
        code, mid = self._client.subscribe(list(zip(filters, options, strict=True)))
        return mid if code == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def unsubscribe(self, topic_filter: str) -> None:
        """Sends UNSUBSCRIBE for a topic filter."""
        self._client.unsubscribe(topic_filter)

    def ack(self, mid: int) -> None:
        """Sends the PUBACK of a QoS 1 message of a `manual_ack` connection."""
        self._client.ack(mid, 1)


def _paho_properties(message: Outgoing) -> Properties:
    """Returns the v5 properties of a message as paho's object, for stock paho."""
    found = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in properties.named(message).items():
        setattr(found, name, value)
    return found


class _FastClient(fast_path.FastPath, Client):
    """A paho client with the fast path in front of it."""


_SUCCESS, _NO_PROPERTIES = ReasonCode(PacketTypes.PUBACK), Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]
#: Private names that the fast path needs and that this paho lacks or has changed. Determined at import.
_CHANGED = fast_path.changed_in(Client(CallbackAPIVersion.VERSION2))


@cache
def _client_class() -> type[Client]:
    """Returns the class for every connection; on its first call logs a warning if paho has changed."""
    if not _CHANGED:
        return _FastClient
    _log.warning("paho_changed", version=paho.mqtt.__version__, changed=" ".join(_CHANGED), way="stock paho, slower")
    return Client
