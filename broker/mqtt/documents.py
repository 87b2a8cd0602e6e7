"""Subscribes to the documents of a topic family: decodes each document and calls a handler; logs malformed ones."""

from collections.abc import Callable
from typing import TypeVar

import structlog

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.document import Document
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.topics import Topic

__all__ = ["listen"]

_log = structlog.get_logger(__name__)
D = TypeVar("D", bound=Document)


def listen(
    link: Link,
    path: Topic[D],
    handler: Callable[[str, D | None], None],
    *,
    on_subscribed: Callable[[], object] | None = None,
    counts: Callable[[str, bytes], bool] | None = None,
    required: bool = True,
    **ids: str,
) -> str:
    """Subscribes to all topics of a family, or to those with the given ids.

    Args:
        link: The connection.
        path: The topic family; it also decodes the payload.
        handler: Called with the first id in the topic ("" if the topic has none) and the document; with None when the
            retained document was cleared (empty payload).
        on_subscribed: Called once at the SUBACK.
        counts: Called before decoding with the id and the payload; if it returns False, the message is ignored.
        required: Whether a refusal of the subscription ends the link.
        **ids: Values for placeholders of the topic, e.g. `node="attic"`; the others become wildcards.

    Returns:
        The topic filter, for `Link.unsubscribe`.
    """

    def on_message(message: Message) -> None:
        found = path.ids(link.root, message.topic)
        if found is None:
            return
        name = next(iter(found.values()), "")
        if counts is not None and not counts(name, message.payload):
            return
        try:
            document = path.decode(message.payload) if message.payload else None
        except S2M3Error as error:
            _log.warning("bad_document", client=link.client_id, topic=message.topic, error=str(error))
            return
        handler(name, document)

    topic_filter = path.all(link.root, **ids)
    link.subscribe(topic_filter, on_message, qos=path.qos, on_subscribed=on_subscribed, required=required)
    return topic_filter
