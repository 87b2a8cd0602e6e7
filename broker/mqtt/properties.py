"""The v5 properties of PUBLISH, packed and unpacked in one pass (MQTT 5, sections 2.2.2 and 3.3.2.3). Pure.

Paho's general code needs 75 us to read the seven properties of a work message, 55 us to write them, and copies the
payload both times: a third of the cost of a hop. `pack` and `unpack` need 4 us each (bench/bus.py).
"""

import math
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.schemas.errors import BadInputError

__all__ = [
    "KEPT_BYTES",
    "Packed",
    "Properties",
    "bearable",
    "bounded",
    "may_expire",
    "named",
    "pack",
    "received",
    "sends_one_by_one",
    "unpack",
]

_EXPIRY, _CONTENT_TYPE, _RESPONSE_TOPIC, _CORRELATION, _USER = 0x02, 0x03, 0x08, 0x09, 0x26
#: Other properties that a broker may send with PUBLISH -> length in bytes; None: a variable byte integer.
_SKIPPED: dict[int, int | None] = {0x01: 1, 0x23: 2, 0x0B: None}
#: Topic Alias Maximum in rumqttd's CONNACK; Mosquitto says 10, others 0, 5 or 65,535.
_RUMQTTD_ALIASES = 4_096
_LONGEST = 65_535
#: Of a packet over the limit so many bytes are kept, at its beginning: more than the longest topic (65,535) takes, then
#: properties and the start of the payload.
KEPT_BYTES = 131_072
_MORE = 0x80


@dataclass(slots=True)
class Properties:
    """The properties of a received PUBLISH; names as in paho's Properties, so that both can be read alike."""

    ResponseTopic: str | None = None
    CorrelationData: bytes | None = None
    ContentType: str | None = None
    MessageExpiryInterval: int | None = None
    UserProperty: list[tuple[str, str]] | None = None


class Packed:
    """The packed properties of an outgoing message; paho calls only `pack` of its Properties object."""

    def __init__(self, message: Outgoing) -> None:
        self._packed = pack(message, _whole_seconds(message))

    def pack(self) -> bytes:
        """Returns the property section."""
        return self._packed


def _whole_seconds(message: Outgoing) -> int | None:
    return None if message.expiry_s is None else max(1, math.ceil(message.expiry_s))


def named(message: Outgoing) -> dict[str, Any]:
    """Returns the properties of a message that goes out by paho's names, for paho's own Properties.

    Raises:
        BadInputError: A property is longer than the protocol has room for.
    """
    pack(message, None)  # paho would raise an error of its own
    found = {
        "MessageExpiryInterval": _whole_seconds(message),
        "ContentType": message.content_type,
        "ResponseTopic": message.reply_to,
        "CorrelationData": message.correlation,
        "UserProperty": list(message.user) or None,
    }
    return {name: value for name, value in found.items() if value is not None}


def received(topic: str, payload: bytes, found: Any, *, retain: bool, mid: int) -> Message:
    """Returns an incoming message; `found` is a `Properties`, or paho's, where absent properties have no attribute."""
    pairs = getattr(found, "UserProperty", None) or ()
    return Message(
        topic=topic,
        payload=payload,
        retain=retain,
        reply_to=getattr(found, "ResponseTopic", None),
        correlation=getattr(found, "CorrelationData", None),
        content_type=getattr(found, "ContentType", None),
        expiry_s=getattr(found, "MessageExpiryInterval", None),
        user=dict(pairs),
        user_properties=tuple(pairs),
        mid=mid,
    )


def bounded(message: Message, size: int, limit: int) -> Message:
    """Returns a message whose payload is over the limit with the payload's beginning only; others unchanged.

    Args:
        message: The message; its payload may already be cut.
        size: The size of the whole payload, bytes.
        limit: The largest payload that is kept, bytes.
    """
    return message if size <= limit else replace(message, payload=message.payload[:KEPT_BYTES], oversize=size)


def may_expire(connack: Any) -> bool:
    """Returns whether what is retained for everybody may carry an expiry, by the CONNACK's properties.

    rumqttd 0.20 disconnects all its MQTT 3.1.1 clients when one of them is to receive a message with a v5 property.
    """
    return getattr(connack, "TopicAliasMaximum", None) != _RUMQTTD_ALIASES


def sends_one_by_one(connack: Any) -> bool:
    """Returns whether a broker sends a QoS 1 message only when the one before is acknowledged, by its CONNACK.

    ejabberd 23.01 does so, whatever Receive Maximum says. It is the only supported broker without shared subscriptions,
    which is how it is recognised.
    """
    return getattr(connack, "SharedSubscriptionAvailable", None) == 0


def bearable(message: Outgoing, *, can_expire: bool) -> Outgoing:
    """Returns a message as a broker takes it: a retained one without its expiry where the broker fails with it."""
    return replace(message, expiry_s=None) if message.retain and not can_expire else message


def _field(data: bytes) -> bytes:
    if len(data) > _LONGEST:
        raise BadInputError(f"an MQTT property of {len(data)} bytes; at most {_LONGEST} travel")
    return struct.pack("!H", len(data)) + data


@lru_cache(maxsize=1024)
def _user(name: str, value: str) -> bytes:
    """Returns a packed user property; cached, because every message has the same few (step, attempt, epoch)."""
    return b"\x26" + _field(name.encode()) + _field(value.encode())


def _length(n: int) -> bytes:
    out = bytearray()
    while True:
        n, low = divmod(n, _MORE)
        out.append(low | _MORE if n else low)
        if not n:
            return bytes(out)


def pack(message: Outgoing, expiry_s: int | None) -> bytes:
    """Returns the property section of a message, including its length prefix.

    Raises:
        BadInputError: A property is longer than 65,535 bytes.
    """
    parts = []
    if expiry_s is not None:
        parts.append(struct.pack("!BI", _EXPIRY, expiry_s))
    if message.content_type is not None:
        parts.append(b"\x03" + _field(message.content_type.encode()))
    if message.reply_to is not None:
        parts.append(b"\x08" + _field(message.reply_to.encode()))
    if message.correlation is not None:
        parts.append(b"\x09" + _field(message.correlation))
    parts += [_user(name, value) for name, value in message.user]
    body = b"".join(parts)
    return _length(len(body)) + body


def _variable(data: memoryview, at: int) -> tuple[int, int]:
    """Reads a variable byte integer at an offset; returns the value and the offset behind it."""
    value = shift = 0
    for _ in range(4):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & _MORE:
            return value, at
        shift += 7
    raise ValueError("a length of more than four bytes")


def _bytes(data: memoryview, at: int) -> tuple[bytes, int]:
    end = at + 2 + (data[at] << 8 | data[at + 1])
    if end > len(data):
        raise ValueError("a property is longer than its packet")
    return bytes(data[at + 2 : end]), end


def unpack(data: memoryview) -> tuple[Properties, int]:
    """Reads the property section at the start of `data`, which follows a PUBLISH's topic and packet id.

    Returns:
        The properties, and the section's length in bytes.

    Raises:
        ValueError: The section is malformed (UnicodeDecodeError is a ValueError).
        IndexError: The section is truncated.
    """
    length, at = _variable(data, 0)
    end = at + length
    data = data[:end]
    found = Properties()
    while at < end:
        kind = data[at]
        at += 1
        if kind == _USER:
            name, at = _bytes(data, at)
            value, at = _bytes(data, at)
            found.UserProperty = [*(found.UserProperty or ()), (name.decode(), value.decode())]
        elif kind == _CORRELATION:
            found.CorrelationData, at = _bytes(data, at)
        elif kind == _RESPONSE_TOPIC:
            raw, at = _bytes(data, at)
            found.ResponseTopic = raw.decode()
        elif kind == _CONTENT_TYPE:
            raw, at = _bytes(data, at)
            found.ContentType = raw.decode()
        elif kind == _EXPIRY:
            found.MessageExpiryInterval = data[at] << 24 | data[at + 1] << 16 | data[at + 2] << 8 | data[at + 3]
            at += 4
        elif kind in _SKIPPED:
            size = _SKIPPED[kind]
            at = at + size if size is not None else _variable(data, at)[1]
        else:
            raise ValueError(f"property {kind:#x} does not belong to PUBLISH")
    if at != end or end > len(data):
        raise ValueError("a property is longer than its section")
    return found, end
