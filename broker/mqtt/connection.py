"""One MQTT v5 connection, from connect to loss, never back by itself. The only file that imports paho.

Paho is used through its public interface for external event loops. What is built on paho's private names, for speed and
for the reason of a failed TLS handshake, is in fast_path.py, and is left out of a paho that has changed them.
"""

import socket
import ssl
import threading
import time
from contextlib import suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

import paho.mqtt
import structlog
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from s2m3.broker.event_loop import Loop, SocketHandlers, Timer
from s2m3.broker.mqtt import fast_path, properties
from s2m3.broker.mqtt.connection_events import ConnectionEvents
from s2m3.broker.mqtt.message import Message, Outgoing, Will
from s2m3.broker.mqtt.sockets import ConnectFailures, cork, no_delay, tls_context
from s2m3.schemas.sessions import without_tag
from s2m3.schemas.settings import BrokerSettings

if TYPE_CHECKING:
    from s2m3.schemas.errors import UnauthorisedError

__all__ = ["Connection"]

_log = structlog.get_logger(__name__)
_CONNECT_TIMEOUT_S = 5.0
_CONNACK_S = 5.0
_MISC_S = 0.5
_INFLIGHT = 100
#: Fixed header, topic and properties beside the payload.
_OVERHEAD = 1_024
_NO_SUBSCRIBERS = 0x10


class Connection:
    """Paho, driven by our loop through its interface for external event loops.

    All of it runs in the loop's thread, but for connecting, which may block and has a short-lived thread of its own.

    Args:
        settings: Where the broker is and who we are.
        client_id: Ours.
        loop: Serves the socket.
        events: Our owner's callbacks.
        will: Last will.
        session_expiry_s: None starts clean each time.
        manual_ack: QoS 1 messages are acknowledged by `ack`.
        receive_maximum: Unacknowledged messages the broker may send at once.
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
    ) -> None:
        self._settings = settings
        self._name = without_tag(client_id)
        self._loop = loop
        self._events = events
        self._session_expiry_s = session_expiry_s
        self._receive_maximum = receive_maximum
        self.failures = ConnectFailures(settings, self._name)
        self._refused: UnauthorisedError | None = None
        self._connected = self._can_expire = False
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._began = 0.0
        self._client = self._make_client(client_id, will, manual_ack=manual_ack)
        #: the same object where it has the fast path; None: stock paho
        self._fast = self._client if isinstance(self._client, _FastClient) else None

    def _make_client(self, client_id: str, will: Will | None, *, manual_ack: bool) -> Client:
        settings = self._settings
        client = _client_class()(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTv5,
            manual_ack=manual_ack,
            reconnect_on_failure=False,
        )
        client.connect_timeout = _CONNECT_TIMEOUT_S
        client.max_queued_messages_set(0)  # the link keeps its own bound
        client.max_inflight_messages_set(_INFLIGHT)
        if settings.username is not None:
            password = settings.password.get_secret_value() if settings.password else None
            client.username_pw_set(settings.username, password)
        context = tls_context(settings)
        if context is not None:
            client.tls_set_context(context)
        if will is not None:
            client.will_set(will.topic, will.payload, qos=1, retain=will.retain)
        client.on_socket_open = lambda _c, _u, sock: no_delay(sock)
        client.on_socket_close = self._socket_closes
        client.on_socket_register_write = lambda *_: None  # paho then never writes by itself: `_flush` does
        client.on_connect = self._connack
        client.on_disconnect = lambda *_: None  # `_socket_closes` has said it
        client.on_message = self._paho_message
        client.on_subscribe = self._suback
        client.on_publish = self._puback
        if isinstance(client, _FastClient):
            client.use(self._message, manual_ack=manual_ack, taken=_TAKEN, no_properties=_NO_PROPERTIES)
        return client

    # ---- up and down ------------------------------------------------------------------------------------------------

    def connect(self) -> None:
        """Connects in a thread of its own; `up` or `down` tells what became of it."""
        threading.Thread(target=self._connect, name=f"connect-{self._name}", daemon=True).start()

    def _connect(self) -> None:
        ours = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        ours.ReceiveMaximum = self._receive_maximum
        ours.MaximumPacketSize = self._settings.max_message_bytes + _OVERHEAD
        if self._session_expiry_s is not None:
            ours.SessionExpiryInterval = self._session_expiry_s
        if self._fast is not None:
            self._fast.forget()
        try:
            self._client.connect(
                self._settings.host,
                self._settings.port,
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
        self._began = time.monotonic()
        self._loop.watch(sock, SocketHandlers(self._readable, self._write))
        self._timer = self._loop.every(_MISC_S, self._misc)
        self.flush()

    def _socket_closes(self, _c: Client, _u: object, sock: Any) -> None:
        """Paho is about to close its socket, for whatever reason."""
        if self._sock is None or sock is not self._sock:
            return
        self._loop.unwatch(self._sock)
        self._sock = None
        if self._timer is not None:
            self._timer.cancel()
        if not self._connected and self._refused is None:
            # TLS 1.3: the broker looks at our certificate only after we think the handshake is over
            self._refused = self.failures.before_an_answer(self._fast.alert if self._fast is not None else None)
        self._connected = False
        self._loop.call(partial(self._events.down, self._refused))

    def disconnect(self) -> None:
        """Says goodbye: no last will follows."""
        self._client.disconnect()
        self.flush()

    def abort(self) -> None:
        """Closes without a goodbye, as a crash would: session and last will stay at the broker."""
        if self._sock is not None:
            with suppress(OSError):  # the other side was faster
                self._sock.shutdown(socket.SHUT_RDWR)
            self._readable()

    # ---- the socket -------------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        try:
            self._client.loop_read()
            while self._has_more():
                self._client.loop_read()
        except Exception:  # noqa: BLE001  # paho lets whatever a mangled packet makes it raise through: that connection is over
            _log.exception("connection_broken", client=self._name)
            self._break_off()
        self.flush()

    def _has_more(self) -> bool:
        """Whether something that the socket will not wake the loop for is still to be read."""
        if self._sock is None:
            return False
        if self._fast is not None:
            return self._fast.has_more
        return isinstance(self._sock, ssl.SSLSocket) and self._sock.pending() > 0

    def _break_off(self) -> None:
        """Closes the socket without a goodbye; reading on would handle the same mangled packet again."""
        sock = self._sock
        if sock is not None:
            self._socket_closes(self._client, None, sock)
            sock.close()  # paho closes it once more when it connects again, which does nothing

    def flush(self) -> None:
        """Writes what is queued once the loop has done what there is to do: acknowledgements travel with answers."""
        self._loop.at_end(self._write)

    def _write(self) -> None:
        if self._sock is None:
            return
        if self._client.want_write():
            cork(self._sock, 1)  # paho sends packet by packet; each would wake the broker by itself
            self._client.loop_write()
            if self._sock is not None:
                cork(self._sock, 0)
        if self._sock is not None:
            self._loop.want_write(self._sock, self._client.want_write())

    def _misc(self) -> None:
        if self._sock is not None and not self._connected and time.monotonic() - self._began > _CONNACK_S:
            self.failures.no_answer(_CONNACK_S)
            self.abort()
        self._client.loop_misc()
        self.flush()

    # ---- what comes in: paho calls these from loop_read; handlers run after it ---------------------------------------

    def _connack(self, _c: Client, _u: object, _f: ConnectFlags, reason: ReasonCode, theirs: Properties | None) -> None:
        self.failures.forget()
        if reason.is_failure:
            self._refused = self.failures.with_reason(reason.getName())
            return
        self.failures.let_in()
        self._connected = True
        self._can_expire = properties.may_expire(theirs)
        payload = min(self._settings.max_message_bytes, (getattr(theirs, "MaximumPacketSize", 0) or 2**31) - _OVERHEAD)
        self._loop.call(lambda: self._events.up(payload))

    def _paho_message(self, _c: Client, _u: object, m: MQTTMessage) -> None:
        self._message(properties.received(m.topic, bytes(m.payload), m.properties, retain=m.retain, mid=m.mid))

    def _message(self, message: Message) -> None:
        self._loop.call(lambda: self._events.message(message))

    def _suback(self, _c: Client, _u: object, mid: int, reasons: list[ReasonCode], _p: Properties | None) -> None:
        refused = [str(reason) if reason.is_failure else None for reason in reasons]
        self._loop.call(lambda: self._events.subscribed(mid, refused))

    def _puback(self, _c: Client, _u: object, mid: int, reason: ReasonCode, _p: Properties | None) -> None:
        refused = str(reason) if reason.is_failure else None
        heard = reason.value != _NO_SUBSCRIBERS
        self._loop.call(lambda: self._events.acknowledged(mid, refused, heard))

    # ---- what goes out ----------------------------------------------------------------------------------------------

    def publish(self, message: Outgoing) -> int:
        """Queues a message for the next `flush`; returns its packet id. With no connection QoS 1 waits for one."""
        packed: Any = None
        message = properties.bearable(message, can_expire=self._can_expire)
        if not message.plain:
            packed = properties.Packed(message) if self._fast is not None else _paho_properties(message)
        return self._client.publish(
            message.topic, message.payload, qos=message.qos, retain=message.retain, properties=packed
        ).mid

    def subscribe(self, filters: dict[str, int]) -> int | None:
        """Asks for filters with their QoS; returns the packet id, or None when the connection is gone."""
        code, mid = self._client.subscribe([(name, SubscribeOptions(qos=qos)) for name, qos in filters.items()])
        return mid if code == MQTTErrorCode.MQTT_ERR_SUCCESS else None

    def unsubscribe(self, topic_filter: str) -> None:
        """Takes a filter back."""
        self._client.unsubscribe(topic_filter)

    def ack(self, mid: int) -> None:
        """Acknowledges a QoS 1 message of a manual_ack connection."""
        self._client.ack(mid, 1)


def _paho_properties(message: Outgoing) -> Properties:
    """The v5 properties of a message as paho's own object."""
    found = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in properties.named(message).items():
        setattr(found, name, value)
    return found


class _FastClient(fast_path.FastPath, Client):
    """Paho with the fast path in front of it."""


_TAKEN, _NO_PROPERTIES = ReasonCode(PacketTypes.PUBACK), Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]
#: What the fast path relies on and this paho has not, or has otherwise. Found at import.
_CHANGED = fast_path.changed_in(Client(CallbackAPIVersion.VERSION2))


@cache
def _client_class() -> type[Client]:
    """Returns the class of every connection; logs once that paho has changed, when the first connection is made."""
    if not _CHANGED:
        return _FastClient
    _log.warning("paho_changed", version=paho.mqtt.__version__, changed=" ".join(_CHANGED), way="stock paho, slower")
    return Client
