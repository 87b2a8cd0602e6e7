"""Subscribes to documents: decodes each, and hands it on with the id in its topic; what is not one is logged."""

from collections.abc import Callable
from typing import TypeVar

import structlog

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.messages import Document
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
    **ids: str,
) -> str:
    """Subscribes to a family of topics, or to those with the given ids.

    Args:
        link: Where.
        path: Which.
        handler: Gets the id in the topic ("" if it has none) and the document; None when it was cleared.
        on_subscribed: Called once when the broker has confirmed.
        counts: Gets the id and the payload first; where it returns False, the handler is not called.
        **ids: Narrow the family.

    Returns:
        The filter, for `unsubscribe`.
    """

    def take(message: Message) -> None:
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
    link.subscribe(topic_filter, take, qos=path.qos, on_subscribed=on_subscribed)
    return topic_filter
