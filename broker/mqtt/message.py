"""MQTT messages and the last will, independent of paho, with the v5 properties that this project uses."""

import itertools
from dataclasses import dataclass, field

__all__ = ["Message", "Outgoing", "Will"]

#: Characters of topic and properties up to which bytes are not counted, and the most bytes of one character in UTF-8.
_SHORT, _MOST_BYTES = 200, 4


@dataclass(frozen=True, slots=True)
class Message:
    """An incoming message; fields as in `Outgoing`, with `retain` as the broker set it."""

    topic: str
    payload: bytes
    retain: bool = False
    reply_to: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_s: int | None = None
    user: dict[str, str] = field(default_factory=dict)
    #: the user properties in order; a name may occur twice
    user_properties: tuple[tuple[str, str], ...] = ()
    #: of a payload over the link's limit: its size in bytes; only its beginning was kept. 0: the payload is whole
    oversize: int = 0
    #: for Link.ack: the packet id, and the number of the connection that it belongs to
    mid: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to publish.

    Args:
        topic: The topic.
        payload: The payload.
        qos: 0 or 1.
        retain: Whether the broker retains the message for later subscribers.
        reply_to: Response Topic.
        correlation: Correlation Data.
        content_type: Content Type.
        expiry_s: Message Expiry Interval, seconds, rounded up to whole ones.
        user: User properties, (name, value).
    """

    topic: str
    payload: bytes
    qos: int = 1
    retain: bool = False
    reply_to: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_s: float | None = None
    user: tuple[tuple[str, str], ...] = ()

    @property
    def header_bytes(self) -> int:
        """Bytes of topic and properties in the packet; of short ones an upper bound, which is quicker to have."""
        texts = (self.topic, self.reply_to or "", self.content_type or "", *itertools.chain(*self.user))
        characters = sum(map(len, texts))
        if characters > _SHORT:
            characters = sum(len(text.encode(errors="replace")) for text in texts)
        else:
            characters *= _MOST_BYTES
        return characters + len(self.correlation or b"")

    @property
    def plain(self) -> bool:
        """Whether the message has no v5 property: rumqttd 0.20 drops all 3.1.1 clients if one receives properties."""
        return (
            self.reply_to is None
            and self.correlation is None
            and self.content_type is None
            and self.expiry_s is None
            and not self.user
        )


@dataclass(frozen=True, slots=True)
class Will:
    """The last will: the broker publishes it when the connection ends without a DISCONNECT."""

    topic: str
    payload: bytes
    retain: bool = True
