"""A plain request that a gateway has taken and not acknowledged, and how its message is read. No I/O."""

import hashlib
import re
from dataclasses import dataclass

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.errors import BadInputError, TooLargeError
from s2m3.schemas.request_ids import CONTENT_BYTES, request_id_of
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.plain import PlainRequest, Transaction, parse_plain
from s2m3.schemas.wire.plain_topics import raw_levels, transaction_in
from s2m3.schemas.wire.raw_sound import as_file, input_and_type

__all__ = [
    "OpenRequest",
    "check_size",
    "id_for",
    "is_private",
    "is_same",
    "kind_of",
    "read_request",
    "request_answered_by",
]

#: Begins the names of kinds of requests with a Response Topic.
_PRIVATE = "r"
#: The beginning of a plain answer as `encode_plain_result` and `encode_plain_error` write it.
_ANSWER = re.compile(rb'\{"status": "(?:ok|error)", "transaction": .{1,2000}?, "request": "([0-9a-f]+)"', re.DOTALL)


@dataclass(slots=True, eq=False)
class OpenRequest:
    """A plain request that is not acknowledged yet."""

    request: bytes
    #: as last delivered, and the connection of that delivery; None: an orphan, whose connection was lost
    message: Message
    link: Link | None
    #: the caller's own id, echoed in every answer; known once the request was read or refused
    transaction: Transaction | None = None
    #: the caller's Response Topic; None for the task's shared response topic, also if the caller's is refused
    reply_to: str | None = None
    #: the answer (JSON) once it is known, the value alone if it is a result, and whether they have been published
    answer: bytes | None = None
    value: bytes | None = None
    sent: bool = False
    #: whether the answer was in flight when the broker was lost, and whether a broker acknowledged it after that
    in_doubt: bool = False
    was_acknowledged: bool = False
    #: whether an answer was dropped as a poison message
    was_dropped: bool = False
    #: whether nothing is to be published any more: answered, or left to the next gateway
    closed: bool = False
    #: the link of the listener that heard the request, for the answer; None: the agent's own link
    answers: Link | None = None
    #: how often it was requeued, and the earliest time of the next copy, monotonic seconds (`requeue`)
    copies: int = 0
    next_copy_at: float = 0.0

    def close(self) -> None:
        """Marks the request as one for which nothing is published any more, and drops its payloads."""
        self.closed = True
        self.message = Message(self.message.topic, b"")
        self.answer = self.value = None


def check_size(message: Message, limit: int) -> None:
    """Checks that a message is whole.

    Raises:
        TooLargeError: The payload exceeds the limit, bytes; only its beginning is here.
    """
    if message.oversize:
        size = message.oversize
        raise TooLargeError(f"a request of {size} bytes is over the limit of {limit}", size=size, limit=limit)


def read_request(root: str, message: Message) -> PlainRequest:
    """Returns the request in a whole message of one of the request topics.

    Raises:
        BadInputError: The message is no valid request.
    """
    levels = raw_levels(root, message.topic)
    if levels is None:
        return parse_plain(message.payload)
    transaction = transaction_in(root, message.topic, b"")
    if levels[1] and transaction is None:
        raise BadInputError("the transaction in the topic is longer than 256 characters")
    name, content_type = input_and_type(levels[0])
    return PlainRequest({name: as_file(message.payload, message.content_type or content_type)}, transaction)


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
    return request_id_of(_content(settings, message))


def kind_of(settings: BrokerSettings, message: Message) -> str:
    """Returns a name that equal requests have at all nodes of the site, and others do not.

    It tells nobody without the site's key what was asked. Of a request without a Response Topic it is the first half of
    the request id, which the answer on the task's shared response topic shows.
    """
    if message.reply_to is None:
        return _content(settings, message).hex()
    hashed = _hash(settings)
    reply_to = message.reply_to.encode(errors="replace")
    for part in (message.topic.encode(errors="replace"), message.payload, reply_to, message.correlation or b""):
        hashed.update(len(part).to_bytes(8, "big") + part)
    return f"{_PRIVATE}{hashed.hexdigest()}"


def is_private(kind: str) -> bool:
    """Returns whether requests of a kind are answered at a topic of their caller's own."""
    return kind.startswith(_PRIVATE)


def request_answered_by(payload: bytes) -> str | None:
    """Returns the request id, as hex, in a plain answer; None in what is no answer, or is a piece of one.

    The answer need not be whole, and is not decoded: it may be large.
    """
    found = _ANSWER.match(payload)
    return found[1].decode() if found is not None else None


def _content(settings: BrokerSettings, message: Message) -> bytes:
    hashed = _hash(settings)
    hashed.update(message.topic.encode(errors="replace") + b"\0")
    hashed.update(message.payload)
    return hashed.digest()


def _hash(settings: BrokerSettings) -> "hashlib.blake2b":
    key = settings.session_key.get_secret_value() if settings.session_key is not None else settings.root
    return hashlib.blake2b(key=hashlib.sha256(key.encode()).digest(), digest_size=CONTENT_BYTES)
