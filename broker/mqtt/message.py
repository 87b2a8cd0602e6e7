"""Messages as the rest of the project sees them, with the v5 properties it uses, and the last will."""

from dataclasses import dataclass, field

__all__ = ["Message", "Outgoing", "Will"]


@dataclass(frozen=True, slots=True)
class Message:
    """What came in."""

    topic: str
    payload: bytes
    retain: bool = False
    reply_to: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_s: int | None = None
    user: dict[str, str] = field(default_factory=dict)
    #: the user properties as they came: a name may be there twice
    user_properties: tuple[tuple[str, str], ...] = ()
    #: for Link.ack: packet id, and which connection it belongs to
    mid: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What is to go out.

    Args:
        topic: Where to.
        payload: The bytes.
        qos: 0 or 1.
        retain: Keep it for those who come later.
        reply_to: Response Topic.
        correlation: Correlation Data.
        content_type: Content Type.
        expiry_s: Message Expiry Interval, rounded up to whole seconds.
        user: User properties.
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
    def plain(self) -> bool:
        """Whether it has no v5 property: then 3.1.1 clients of every broker may read it (docs/protocol.md)."""
        return (
            self.reply_to is None
            and self.correlation is None
            and self.content_type is None
            and self.expiry_s is None
            and not self.user
        )


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us when we are gone without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = True
