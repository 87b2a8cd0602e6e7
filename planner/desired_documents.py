"""Keeps the documents of people, which are tasks and nodes' settings, and restores them on a broker that lost them."""

from collections.abc import Callable, Collection
from functools import partial
from typing import Any, Generic, TypeVar

from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.planner.site.desired_tasks import DesiredTasks
from s2m3.schemas.document import Document
from s2m3.schemas.topics import Topic

__all__ = ["DesiredDocuments"]

D = TypeVar("D", bound=Document)
#: Documents that are asked for at once.
_AT_ONCE = 50


class DesiredDocuments(Generic[D]):
    """Listens to the documents of one family, and publishes them again byte for byte.

    All methods run in the loop's thread, except `start`.

    Args:
        link: The planner's connection.
        path: The topics, with one id each.
        publish: Publishes a retained document, given topic and payload; returns whether the message was queued.
        on_document: Called with each id and document; None was removed, also while the connection was down.
        probe: Calls back once the broker has delivered all that it was asked for before.
        required: Whether a broker that denies the subscription ends the planner.
    """

    def __init__(
        self,
        link: Link,
        path: Topic[D],
        publish: Callable[[str, bytes], bool],
        on_document: Callable[[str, D | None], None],
        *,
        probe: Callable[[Callable[[], None]], None],
        required: bool = True,
    ) -> None:
        self._link, self._path, self._required = link, path, required
        (self._id,) = path.ids_named
        self._publish, self._on_document, self._probe = publish, on_document, probe
        #: on this connection: what was asked for by name, and what is asked for now
        self._asked: set[str] = set()
        self._asking: list[str] = []
        self._desired = DesiredTasks(publish=self._publish_one)

    def start(self) -> None:
        """Subscribes."""
        self._listen()

    def _listen(self, **ids: Any) -> None:
        listen(self._link, self._path, self._on_document, counts=self._accepts, required=self._required, **ids)

    def on_connected(self) -> None:
        """Handles a new connection: the retained documents come again."""
        self._desired.on_connected()
        self._asked.clear()
        self._end_asking()

    def is_certain(self) -> bool:
        """Returns whether it is certain which documents were removed while the connection was down; else finds out."""
        return self.has_asked_for(self._desired.unconfirmed)

    def has_asked_for(self, names: Collection[str]) -> bool:
        """Returns whether the broker was asked for these documents by name on this connection; else begins to ask.

        One that did not come with the others need not be gone: the embedded broker sends a newcomer no more than 100
        retained messages at once, and forgets the rest.
        """
        waiting = sorted(set(names) - self._asked)
        if waiting and not self._asking:
            self._asking = waiting[:_AT_ONCE]
            for name in self._asking:
                self._listen(**{self._id: name})
            self._probe(partial(self._came, self._asking))
        return not waiting

    def _came(self, names: list[str]) -> None:
        if names is self._asking:
            self._asked.update(names)
            self._end_asking()

    def _end_asking(self) -> None:
        for name in self._asking:
            self._link.unsubscribe(self._path.at(self._link.root, **{self._id: name}))
        self._asking = []

    def drop_removed(self) -> None:
        """Drops the documents that were removed while the connection was down; to be called once `is_certain`."""
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
        return self._desired.heard(name, payload)

    def _publish_one(self, name: str, payload: bytes) -> bool:
        return self._publish(self._path.at(self._link.root, **{self._id: name}), payload)
