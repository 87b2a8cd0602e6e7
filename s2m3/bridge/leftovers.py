"""Finds the pictures and answers that an earlier bridge left retained; they expire as those of this bridge do."""

from functools import partial

from s2m3.bindings.bindings import Bindings
from s2m3.bridge.retention import source_of
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.homeassistant.announcer import Announcer
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error

__all__ = ["Leftovers"]

_PATHS = (topics.BRIDGE_ANSWER, topics.BRIDGE_PICTURE)


class Leftovers:
    """Passes the retained topics of an earlier bridge on. All methods run in the loop's thread.

    Args:
        link: The bridge's connection.
        announcer: Takes over pictures and answers.
        bindings: Takes over the topics that reports of bindings name.
    """

    def __init__(self, link: Link, announcer: Announcer, bindings: Bindings) -> None:
        self._link = link
        self._announcer = announcer
        self._bindings = bindings

    def listen(self) -> None:
        """Subscribes; the retained messages arrive once the link is connected."""
        for path in _PATHS:
            self._link.subscribe(path.all(self._link.root), partial(self._on_left, path))

    def stop_listening(self) -> None:
        """Ends the subscriptions: from now on they would deliver the bridge's own publications."""
        for path in _PATHS:
            self._link.unsubscribe(path.all(self._link.root))

    def of_report(self, binding: str, payload: bytes) -> None:
        """Takes the report of a binding that an earlier bridge published."""
        try:
            report = topics.BRIDGE_BINDING.decode(payload)
        except S2M3Error:
            return
        self._bindings.adopt(binding, report.retained)

    def _on_left(self, path: topics.TopicPath, message: Message) -> None:
        if not message.retain or not message.payload or path.ids(self._link.root, message.topic) is None:
            return
        source = source_of(message.payload) if path is topics.BRIDGE_ANSWER else None
        self._announcer.adopt(message.topic, source, message.expiry_s)
