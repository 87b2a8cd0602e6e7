"""Keeps the documents of people, which are tasks and nodes' settings, and restores them on a broker that lost them."""

import time
from collections.abc import Callable
from typing import Generic, TypeVar

from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.planner.site.desired_tasks import DesiredTasks
from s2m3.schemas.document import Document
from s2m3.schemas.topics import Topic

__all__ = ["DesiredDocuments"]

D = TypeVar("D", bound=Document)


class DesiredDocuments(Generic[D]):
    """Listens to the documents of one family, and publishes them again byte for byte.

    All methods run in the loop's thread, except `start`.

    Args:
        link: The planner's connection.
        path: The topics, with one id each.
        publish: Publishes a retained document, given topic and payload; returns whether the message was queued.
        on_document: Called with each id and document; None was removed, also while the connection was down.
        required: Whether a broker that denies the subscription ends the planner.
    """

    def __init__(
        self,
        link: Link,
        path: Topic[D],
        publish: Callable[[str, bytes], bool],
        on_document: Callable[[str, D | None], None],
        *,
        required: bool = True,
    ) -> None:
        self._link, self._path, self._required = link, path, required
        (self._id,) = path.ids_named
        self._publish, self._on_document = publish, on_document
        self._desired = DesiredTasks(publish=self._publish_one)

    def start(self) -> None:
        """Subscribes."""
        listen(self._link, self._path, self._on_document, counts=self._accepts, required=self._required)

    def on_connected(self) -> None:
        """Handles a new connection: the retained documents come again."""
        self._desired.on_connected(time.monotonic())

    def wait_s(self) -> float:
        """Returns the seconds within which retained documents may still arrive."""
        return self._desired.wait_s(time.monotonic())

    def drop_removed(self) -> None:
        """Drops the documents that were removed while the connection was down."""
        for name in self._desired.take_removed():
            self._on_document(name, None)

    def repeat(self) -> None:
        """Publishes all documents again.

        A document that waits in a full queue already does so once: the broker would deliver two as one.
        """
        for name, payload in self._desired.payloads.items():
            if not self._link.has_room and self._desired.is_on_its_way(name):
                continue
            if self._publish_one(name, payload):
                self._desired.on_repeated(name)

    def _accepts(self, name: str, payload: bytes) -> bool:
        return self._desired.heard(name, payload, time.monotonic())

    def _publish_one(self, name: str, payload: bytes) -> bool:
        return self._publish(self._path.at(self._link.root, **{self._id: name}), payload)
