"""A faster way through paho for incoming packets, on paho's private names, with a check of them. Imports no paho.

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

#: Methods of paho's Client that are overridden or called -> the names of their parameters.
METHODS = {
    "_handle_publish": (),
    "_handle_pubackcomp": ("cmd",),
    "_sock_recv": ("bufsize",),
    "_sock_send": ("buf",),
    "_do_on_publish": ("mid", "reason_code", "properties"),
    "_send_puback": ("mid",),
}
#: Attributes of paho's Client that are read -> their required type.
ATTRIBUTES: dict[str, type] = {
    "_in_packet": Mapping,
    "_out_messages": Mapping,
    "_out_message_mutex": AbstractContextManager,
}
#: Keys of `_in_packet` that are read -> the required type of their value.
_IN_PACKET: dict[str, type] = {"command": int, "packet": bytearray, "remaining_length": int, "to_process": int}

#: Bytes per read. More than a TLS record (16 KiB), so that no decrypted bytes stay in the SSL object.
_READ_BYTES = 65_536
#: The QoS bits of a PUBLISH packet's first byte, and their value for QoS 2.
_QOS, _QOS_2 = 0b110, 0b100
#: Length of a PUBACK with a packet id only, which means success. Paho spends 10 us on creating objects for it.
_PUBACK_BYTES = 2
#: The value of MQTTErrorCode.MQTT_ERR_SUCCESS.
_SUCCESS = 0


def changed_in(client: object) -> list[str]:
    """Returns the names above that a paho Client lacks, or has with another signature or type."""
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
        """The part of paho's Client that mypy needs to know; at run time, Client follows FastPath in the MRO."""

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
    """A mixin in front of paho's Client (`class C(FastPath, Client)`) that handles incoming packets itself.

    `_handle_publish` and `_handle_pubackcomp` override paho's methods. If a later paho no longer calls them, messages
    and PUBACKs still arrive through paho's public callbacks `on_message` and `on_publish`.
    """

    #: the last TLS error of the socket; paho itself only reports that the connection was lost
    alert: ssl.SSLError | None = None
    #: whether the socket may be read once more; then it is the turn of timers, calls and other sockets
    may_read: bool = True
    #: the bytes last read from the socket, and how many of them paho has consumed
    _read_ahead: bytes = b""
    _consumed: int = 0
    _incoming: Callable[[Message], None]
    _limit: int
    _owner_acks: bool
    _plain_puback: tuple[Any, Any]

    def use(
        self, incoming: Callable[[Message], None], limit: int, *, manual_ack: bool, taken: Any, no_properties: Any
    ) -> None:
        """Sets what the overridden methods need.

        Args:
            incoming: Called with each message.
            limit: Largest payload that is kept whole, bytes.
            manual_ack: Whether the owner acknowledges QoS 1 messages.
            taken: Paho's ReasonCode for a PUBACK without reason code (success).
            no_properties: Paho's Properties for a PUBACK without properties.
        """
        self._incoming, self._limit, self._owner_acks = incoming, limit, manual_ack
        self._plain_puback = (taken, no_properties)

    @property
    def has_more(self) -> bool:
        """Whether bytes that were read from the socket are not yet consumed by paho."""
        return self._consumed < len(self._read_ahead)

    def _sock_recv(self, bufsize: int) -> bytes:
        """Returns up to `bufsize` bytes from a buffer: paho reads a packet's type, length bytes and rest one by one."""
        if not self.has_more:
            if not self.may_read:
                raise BlockingIOError
            self.may_read = False
            try:
                self._read_ahead, self._consumed = super()._sock_recv(_READ_BYTES), 0
            except ssl.SSLError as error:
                self.alert = error
                raise
        begin, self._consumed = self._consumed, min(self._consumed + bufsize, len(self._read_ahead))
        data = self._read_ahead[begin : self._consumed]
        return self._thinned(data) if self._is_oversize and len(data) > 1 else data

    @property
    def _is_oversize(self) -> bool:
        """Whether the packet that is being read is over the limit, and its beginning has been read."""
        packet, most = self._in_packet, self._limit + properties.KEPT_BYTES
        return bool(packet["remaining_length"] > most and len(packet["packet"]) >= properties.KEPT_BYTES)

    def _thinned(self, data: bytes) -> bytes:
        """Returns one byte of the data, and has paho count all of them: the rest of an oversize packet is not kept."""
        self._in_packet["to_process"] -= len(data) - 1
        return data[:1]

    def _sock_send(self, buf: bytes | bytearray) -> int:
        try:
            return super()._sock_send(buf)
        except (ssl.SSLEOFError, ConnectionError):  # the broker has closed: read its TLS alert, which has the reason
            self.may_read = True
            with suppress(OSError):
                self._sock_recv(1)
            raise

    def _handle_publish(self) -> Any:
        header, packet = self._in_packet["command"], self._in_packet["packet"]
        if (header & _QOS) == _QOS_2:
            return super()._handle_publish()
        whole = self._in_packet["remaining_length"]
        if is_cut := len(packet) < whole:
            packet = packet[: properties.KEPT_BYTES]
        end = 2 + (packet[0] << 8 | packet[1])
        topic = bytes(packet[2:end]).decode()
        mid = 0
        if header & _QOS:
            mid = packet[end] << 8 | packet[end + 1]
            end += 2
        found, length = _unpacked(memoryview(packet)[end:], is_cut=is_cut)
        payload = bytes(memoryview(packet)[end + length :])
        message = properties.received(topic, payload, found, retain=bool(header & 1), mid=mid)
        self._incoming(properties.bounded(message, whole - end - length, -1 if is_cut else self._limit))
        if mid and not self._owner_acks:
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


def _unpacked(data: memoryview, *, is_cut: bool) -> tuple[properties.Properties, int]:
    """Returns a packet's properties and their length; none of a cut packet whose properties go on behind the cut."""
    try:
        return properties.unpack(data)
    except (ValueError, IndexError):
        if not is_cut:
            raise
        return properties.Properties(), len(data)
