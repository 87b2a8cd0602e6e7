"""One MQTT v5 connection, from connect to loss. The only file that knows paho; it comes back for nobody by itself."""

import socket
import ssl
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import structlog
from paho.mqtt.client import Client, ConnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from s2m3.broker.event_loop import Loop, SocketHandlers, Timer
from s2m3.broker.mqtt import properties
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
#: More than a TLS record holds (16 KiB): what the socket itself has read is then never left lying there.
_AHEAD = 65_536
_QOS, _QOS_2 = 0b110, 0b100
#: A PUBACK that holds a packet id and nothing else: taken. Paho takes 10 us to say so in objects made anew.
_PUBACK_BYTES = 2
_TAKEN, _NO_PROPERTIES = ReasonCode(PacketTypes.PUBACK), Properties(PacketTypes.PUBACK)  # type: ignore[no-untyped-call]


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
        self._connected = False
        self._sock: socket.socket | None = None
        self._timer: Timer | None = None
        self._began = 0.0
        self._client = self._make_client(client_id, will, manual_ack=manual_ack)

    def _make_client(self, client_id: str, will: Will | None, *, manual_ack: bool) -> "_Client":
        settings = self._settings
        client = _Client(
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
        client.incoming = self._message
        client.takes_acks = manual_ack
        client.on_subscribe = self._suback
        client.on_publish = self._puback
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
        self._client.forget()
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
            self._refused = self.failures.before_an_answer(self._client.alert)
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
            while self._sock is not None and self._client.has_more:
                self._client.loop_read()
        except Exception:  # noqa: BLE001  # paho lets whatever a mangled packet makes it raise through: that connection is over
            _log.exception("connection_broken", client=self._name)
            self._client.break_off()
        self.flush()

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
        limit = getattr(theirs, "MaximumPacketSize", None) or 2**31
        payload = min(self._settings.max_message_bytes, limit - _OVERHEAD)
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
        packed: Any = None if message.plain else properties.Packed(message)
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


class _Client(Client):
    """Paho with a shorter way for what comes in: see broker/mqtt/properties.py for what it saves.

    `_handle_publish` and `_handle_pubackcomp` are paho's own names: should a later paho not call them, `on_message` and
    `on_publish` are told the same.
    """

    incoming: Callable[[Message], None]
    takes_acks: bool
    #: the last TLS error of the socket: paho itself only says that the connection is lost
    alert: ssl.SSLError | None = None
    #: what came from the socket last, and how much of it paho has asked for
    _ahead: bytes = b""
    _taken: int = 0

    @property
    def has_more(self) -> bool:
        """Whether something that the socket will not wake us for is still to be read."""
        return self._taken < len(self._ahead)

    def forget(self) -> None:
        """Drops what is still to be read: the connection is another one."""
        self._ahead, self._taken, self.alert = b"", 0, None

    def break_off(self) -> None:
        """Closes the socket without a goodbye; reading on would handle the same mangled packet again."""
        self._loop_rc_handle(MQTTErrorCode.MQTT_ERR_PROTOCOL)

    def _sock_recv(self, bufsize: int) -> bytes:
        """Reads ahead: paho asks for each packet's type, each byte of its length, and the rest, one by one."""
        if not self.has_more:
            try:
                self._ahead, self._taken = super()._sock_recv(_AHEAD), 0
            except ssl.SSLError as error:
                self.alert = error
                raise
        begin, self._taken = self._taken, min(self._taken + bufsize, len(self._ahead))
        return self._ahead[begin : self._taken]

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except (ssl.SSLEOFError, ConnectionError):  # the broker was faster: why it closed is still to be read
            with suppress(OSError):
                self._sock_recv(1)
            raise

    def _handle_publish(self) -> MQTTErrorCode:
        header, packet = self._in_packet["command"], self._in_packet["packet"]
        if (header & _QOS) == _QOS_2:
            return super()._handle_publish()
        end = 2 + (packet[0] << 8 | packet[1])
        topic = bytes(packet[2:end]).decode()
        mid = 0
        if header & _QOS:
            mid = packet[end] << 8 | packet[end + 1]
            end += 2
        found, length = properties.unpack(memoryview(packet)[end:])
        payload = bytes(memoryview(packet)[end + length :])
        self.incoming(properties.received(topic, payload, found, retain=bool(header & 1), mid=mid))
        if mid and not self.takes_acks:
            return self._send_puback(mid)
        return MQTTErrorCode.MQTT_ERR_SUCCESS

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> MQTTErrorCode:
        packet = self._in_packet["packet"]
        if len(packet) != _PUBACK_BYTES:  # with a reason or properties
            return super()._handle_pubackcomp(cmd)
        mid = packet[0] << 8 | packet[1]
        with self._out_message_mutex:
            if mid in self._out_messages:
                return self._do_on_publish(mid, _TAKEN, _NO_PROPERTIES)
        return MQTTErrorCode.MQTT_ERR_SUCCESS
