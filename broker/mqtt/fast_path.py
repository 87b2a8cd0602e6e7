"""A faster way through paho for incoming packets, on paho's private names; checks that paho has them. Imports no paho.

docs/decisions/0003-private-names-of-paho.md says why each name is used and what is lost without it; properties.py says
what the fast path saves.
"""

import inspect
import ssl
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, Literal

from s2m3.broker.mqtt import properties
from s2m3.broker.mqtt.message import Message

__all__ = ["ATTRIBUTES", "METHODS", "FastPath", "changed_in"]

#: Methods of paho's Client that are overridden or called -> their parameters.
METHODS = {
    "_handle_publish": (),
    "_handle_pubackcomp": ("cmd",),
    "_sock_recv": ("bufsize",),
    "_sock_send": ("buf",),
    "_do_on_publish": ("mid", "reason_code", "properties"),
    "_send_puback": ("mid",),
}
#: Attributes of a Client that are read -> what they have to be.
ATTRIBUTES: dict[str, type] = {
    "_in_packet": Mapping,
    "_out_messages": Mapping,
    "_out_message_mutex": AbstractContextManager,
}
#: Keys of `_in_packet` that are read -> what is in them.
_IN_PACKET: dict[str, type] = {"command": int, "packet": bytearray}

#: More than a TLS record holds (16 KiB): what the socket itself has read is then never left lying there.
_AHEAD = 65_536
_QOS, _QOS_2 = 0b110, 0b100
#: A PUBACK that holds a packet id and nothing else: taken. Paho takes 10 us to say so in objects made anew.
_PUBACK_BYTES = 2
#: MQTTErrorCode.MQTT_ERR_SUCCESS, a whole number
_SUCCESS = 0


def changed_in(client: object) -> list[str]:
    """Returns which of the names above a Client of paho has not, or has with another signature or type."""
    found = [name for name, parameters in METHODS.items() if _parameters(client, name) != parameters]
    found += [name for name, kind in ATTRIBUTES.items() if not isinstance(getattr(client, name, None), kind)]
    packet = getattr(client, "_in_packet", None)
    if isinstance(packet, Mapping):
        found += [f"_in_packet[{key}]" for key, kind in _IN_PACKET.items() if not isinstance(packet.get(key), kind)]
    return found


def _parameters(client: object, name: str) -> tuple[str, ...] | None:
    method = getattr(client, name, None)
    return tuple(inspect.signature(method).parameters) if inspect.ismethod(method) else None


if TYPE_CHECKING:

    class _Paho:
        """What is relied on of paho's Client, as mypy is to see it; at run time that class comes behind FastPath."""

        _in_packet: Any
        _out_messages: Any
        _out_message_mutex: Any

        def _handle_publish(self) -> Any: ...
        def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> Any: ...
        def _sock_recv(self, bufsize: int) -> bytes: ...
        def _sock_send(self, buf: bytes | bytearray) -> int: ...
        def _do_on_publish(self, mid: int, reason_code: Any, properties: Any) -> Any: ...
        def _send_puback(self, mid: int) -> Any: ...

else:
    _Paho = object


class FastPath(_Paho):
    """Stands in front of paho's Client (`class C(FastPath, Client)`) and handles what comes in itself.

    `_handle_publish` and `_handle_pubackcomp` are paho's own names: should a later paho have them and not call them,
    `on_message` and `on_publish` are told the same.
    """

    #: the last TLS error of the socket: paho itself only says that the connection is lost
    alert: ssl.SSLError | None = None
    #: what came from the socket last, and how much of it paho has asked for
    _ahead: bytes = b""
    _consumed: int = 0
    _incoming: Callable[[Message], None]
    _takes_acks: bool
    _plain_puback: tuple[Any, Any]

    def use(self, incoming: Callable[[Message], None], *, manual_ack: bool, taken: Any, no_properties: Any) -> None:
        """Sets up what is handled here.

        Args:
            incoming: Gets each message.
            manual_ack: Whether its owner acknowledges them.
            taken: Paho's ReasonCode of a PUBACK without one.
            no_properties: Paho's Properties of a PUBACK without any.
        """
        self._incoming, self._takes_acks = incoming, manual_ack
        self._plain_puback = (taken, no_properties)

    @property
    def has_more(self) -> bool:
        """Whether something that the socket will not wake the loop for is still to be read."""
        return self._consumed < len(self._ahead)

    def forget(self) -> None:
        """Drops what is still to be read: the connection is another one."""
        self._ahead, self._consumed, self.alert = b"", 0, None

    def _sock_recv(self, bufsize: int) -> bytes:
        """Reads ahead: paho asks for each packet's type, each byte of its length, and the rest, one by one."""
        if not self.has_more:
            try:
                self._ahead, self._consumed = super()._sock_recv(_AHEAD), 0
            except ssl.SSLError as error:
                self.alert = error
                raise
        begin, self._consumed = self._consumed, min(self._consumed + bufsize, len(self._ahead))
        return self._ahead[begin : self._consumed]

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except (ssl.SSLEOFError, ConnectionError):  # the broker was faster: why it closed is still to be read
            with suppress(OSError):
                self._sock_recv(1)
            raise

    def _handle_publish(self) -> Any:
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
        self._incoming(properties.received(topic, payload, found, retain=bool(header & 1), mid=mid))
        if mid and not self._takes_acks:
            return self._send_puback(mid)
        return _SUCCESS

    def _handle_pubackcomp(self, cmd: Literal["PUBACK", "PUBCOMP"]) -> Any:
        packet = self._in_packet["packet"]
        if len(packet) != _PUBACK_BYTES:  # with a reason or properties
            return super()._handle_pubackcomp(cmd)
        mid = packet[0] << 8 | packet[1]
        with self._out_message_mutex:
            if mid in self._out_messages:
                return self._do_on_publish(mid, *self._plain_puback)
        return _SUCCESS
