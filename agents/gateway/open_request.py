"""A plain request that a gateway has taken and not acknowledged. No I/O."""

from dataclasses import dataclass

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message

__all__ = ["OpenRequest", "is_same"]


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A plain request that is not acknowledged yet."""

    request: bytes
    #: as last delivered, and the connection of that delivery; None: an orphan, whose connection was lost
    message: Message
    link: Link | None
    #: the caller's Response Topic; None for the task's shared response topic, also if the caller's is refused
    reply_to: str | None = None
    #: the answer once it is known, and whether it has been published
    answer: bytes | None = None
    sent: bool = False
    #: whether an answer was dropped as a poison message
    was_dropped: bool = False


def is_same(one: Message, other: Message) -> bool:
    """Returns whether two messages are deliveries of equal requests."""
    return (one.topic, one.payload, one.reply_to, one.correlation) == (
        other.topic,
        other.payload,
        other.reply_to,
        other.correlation,
    )
