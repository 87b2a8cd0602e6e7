"""What comes in over a link, and what the broker says for us when we are gone."""

from dataclasses import dataclass, field

__all__ = ["Message", "Will"]


@dataclass(frozen=True, slots=True)
class Message:
    """What came in, with the v5 properties this project uses."""

    topic: str
    payload: bytes
    retain: bool = False
    reply_to: str | None = None
    correlation: bytes | None = None
    content_type: str | None = None
    expiry_s: int | None = None
    user: dict[str, str] = field(default_factory=dict)
    #: for Link.ack: packet id, and which connection it belongs to
    mid: int = 0
    generation: int = 0


@dataclass(frozen=True, slots=True)
class Will:
    """What the broker says for us when we are gone without a goodbye."""

    topic: str
    payload: bytes
    retain: bool = True
