"""A plain request that a gateway has taken and not acknowledged. No I/O."""

import hashlib
from dataclasses import dataclass

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.ids import CONTENT_BYTES, request_id_of
from s2m3.schemas.settings import BrokerSettings

__all__ = ["OpenRequest", "id_for", "is_same"]


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


def id_for(settings: BrokerSettings, message: Message) -> bytes:
    """Returns a request id for a plain request, whichever gateway of the site takes it.

    Its first half depends on topic and payload: a node on which the request ended a process recognises the request when
    the session brings it to the next gateway. It is keyed with the site's session key, because request ids are shown in
    answers, and must not tell what was asked.
    """
    key = settings.session_key.get_secret_value() if settings.session_key is not None else settings.root
    hashed = hashlib.blake2b(key=hashlib.sha256(key.encode()).digest(), digest_size=CONTENT_BYTES)
    hashed.update(message.topic.encode(errors="replace") + b"\0")
    hashed.update(message.payload)
    return request_id_of(hashed.digest())
