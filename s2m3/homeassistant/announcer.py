"""Publishes the site for Home Assistant: retained states under our root, discovery documents under its prefix."""

import json
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from s2m3.bridge.drawing import Drawing
from s2m3.bridge.retention import Kept, Retention
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.homeassistant.discovery import Devices, without
from s2m3.homeassistant.view import View
from s2m3.schemas import topics
from s2m3.schemas.bridge import BridgeAnswer
from s2m3.schemas.errors import S2M3Error

__all__ = ["Announcer"]

_log = structlog.get_logger(__name__)
#: Several changes within this time are published once.
_SETTLE_S = 0.1
#: Delay of the answer to Home Assistant's birth message, seconds: random between these.
_BIRTH_S = (0.2, 3.0)
#: A device that was removed while Home Assistant was offline is announced again, and removed after this time.
_REMOVE_S = 5.0
_MOST_REMOVED = 100
#: Largest published picture, bytes: dashboards need no larger one, and the broker retains one per task.
_LARGEST_PICTURE = 4_000_000
#: How long a picture is kept in memory for questions about it, if pictures are not published.
_REMEMBERED_S = 600.0
_CLEAR_S = 1.0


@dataclass(frozen=True, slots=True)
class _Picture:
    """The last picture that was an input of a task."""

    file: bytes
    source: str
    until: float


class Announcer:
    """Publishes retained documents for Home Assistant when the view changes. All methods run in the loop's thread.

    Args:
        link: The bridge's connection.
        loop: The event loop.
        view: The documents that the bridge has received.
        devices: Makes the discovery documents; None publishes none.
        republish: Publishes all retained documents of the bridge; called after Home Assistant has started.
        retention: How long pictures and answers stay retained.
    """

    def __init__(
        self,
        link: Link,
        loop: Loop,
        view: View,
        devices: Devices | None,
        republish: Callable[[], None],
        *,
        retention: Retention,
    ) -> None:
        self._retention = retention
        #: topics of retained pictures and answers
        self._kept = Kept()
        self._pictures: dict[str, _Picture] = {}
        self._drawing = Drawing(loop)
        self._republish = republish
        self._link = link
        self._loop = loop
        self._view = view
        self._devices = devices
        self._retained: dict[str, bytes] = {}
        #: topic -> the discovery document of a device; the same as published last, with the removal of entities
        self._documents: dict[str, dict[str, Any]] = {}
        self._shown: dict[str, dict[str, Any]] = {}
        self._changed: set[tuple[str, str]] = set()
        self._is_scheduled = False
        self._is_online = False
        #: their last documents
        self._removed_offline: dict[tuple[str, str], dict[str, Any]] = {}
        #: topic -> retained message that is held back; None: messages are published at once
        self._held: dict[str, Outgoing] | None = None
        if devices is not None:
            link.subscribe(devices.birth, self._on_birth)
        loop.every(_CLEAR_S, self._clear_due)

    def hold(self) -> None:
        """Holds retained messages back until `release`, because another bridge may be the leader."""
        self._held = {}

    def release(self) -> None:
        """Publishes the messages that were held back."""
        held, self._held = self._held or {}, None
        for message in held.values():
            self._publish(message)

    def changed(self, kind: str, name: str = "") -> None:
        """Schedules the publication of a node, a task or the planner after it has changed.

        The kind `presence` is that of a node which has come or gone: tasks are published that depend on it.
        """
        self._changed.add((kind, name))
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.after(_SETTLE_S, self._publish_changes)

    def forget(self, kind: str, name: str) -> None:
        """Clears all topics of a removed node or task; the discovery document first, as it refers to the others."""
        self._changed.discard((kind, name))
        if self._devices is not None:
            topic = self._devices.topic(kind, name)
            document = self._documents.pop(topic, None) or self._devices.gone(kind, name)
            if not self._is_online and len(self._removed_offline) < _MOST_REMOVED:
                self._removed_offline[kind, name] = document
            self._clear(topic)
            self._remember_removed(topic)
        paths: list[topics.TopicPath] = [topics.BRIDGE_NODE]
        if kind == "task":
            self._pictures.pop(name, None)
            paths = [topics.BRIDGE_ANSWER, topics.BRIDGE_PICTURE, topics.BRIDGE_TASK]
        for path in paths:
            self._clear(path.at(self._link.root, **{kind: name}))

    def _remember_removed(self, topic: str) -> None:
        """Keeps what was shown of a device that is gone: should it come back, other entities of it are removed."""
        if (shown := self._shown.pop(topic, None)) is not None:
            self._shown[topic] = shown
        gone = [known for known in self._shown if known not in self._documents]
        for known in gone[:-_MOST_REMOVED]:
            del self._shown[known]

    def answered(
        self, task: str, answer: BridgeAnswer, picture: bytes | None, boxes: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        """Publishes a task's answer, and the picture that it is about, with the answer's boxes drawn on it."""
        root, now = self._link.root, time.monotonic()
        if answer.event_type == "answered":  # a failure does not replace the last answer
            source = answer.source
            if picture is not None and len(picture) <= _LARGEST_PICTURE:
                if answer.source == "question" and (known := self._pictures.get(task)) is not None:
                    source = known.source  # a question about a binding's picture: cleared with the binding
                else:
                    until = now + (self._retention.pictures_s or _REMEMBERED_S)
                    self._keep(task, _Picture(picture, source, until), boxes)
            topic = topics.BRIDGE_ANSWER.at(root, task=task)
            if self._retention.answers_s:
                self._kept.keep(topic, now + self._retention.answers_s, source)
                self._retain(topic, answer.encode())
            else:
                self._publish(Outgoing(topic, answer.encode()))
        self._publish(Outgoing(topics.BRIDGE_ANSWERED.at(root, task=task), answer.encode()))

    def _keep(self, task: str, picture: _Picture, boxes: Sequence[Mapping[str, Any]]) -> None:
        self._pictures[task] = picture
        if self._retention.pictures_s:
            is_current = partial(self._is_last, task, picture)
            self._drawing.draw(picture.file, boxes, is_current, partial(self._show, task, picture))

    def _is_last(self, task: str, picture: _Picture) -> bool:
        return self._pictures.get(task) is picture

    def _show(self, task: str, picture: _Picture, file: bytes) -> None:
        if self._is_last(task, picture):  # else it was replaced or cleared while boxes were drawn
            topic = topics.BRIDGE_PICTURE.at(self._link.root, task=task)
            self._kept.keep(topic, picture.until, picture.source)
            self._retain(topic, file)

    def last_picture(self, task: str) -> bytes | None:
        """Returns the last picture that was an input of a task, while it is kept."""
        found = self._pictures.get(task)
        return found.file if found is not None and found.until > time.monotonic() else None

    def adopt(self, topic: str, source: str | None, expiry_s: float | None) -> None:
        """Takes over a retained picture or answer of an earlier bridge, for at most the time of our own ones.

        Args:
            topic: The topic.
            source: What made the request, e.g. binding:<name>; None if unknown.
            expiry_s: Remaining message expiry, seconds; None if it does not expire.
        """
        if topic in self._retained or topic in self._kept:
            return
        is_picture = topics.BRIDGE_PICTURE.ids(self._link.root, topic) is not None
        stays = self._retention.pictures_s if is_picture else self._retention.answers_s
        self._kept.keep(topic, time.monotonic() + min(stays, stays if expiry_s is None else expiry_s), source)

    def forget_binding(self, name: str, task: str | None) -> None:
        """Clears the pictures and answers of a removed binding."""
        source = f"binding:{name}"
        self._pictures = {task: known for task, known in self._pictures.items() if known.source != source}
        root, gone = self._link.root, self._kept.of_source(source)
        tasks = {task} | {(topics.BRIDGE_ANSWER.ids(root, topic) or {}).get("task") for topic in gone}
        for name_of_task in filter(None, tasks):  # the source of an earlier bridge's picture is that of the answer
            picture = topics.BRIDGE_PICTURE.at(root, task=name_of_task)
            gone += [picture] if picture in self._kept and self._kept.source(picture) is None else []
        for topic in gone:
            self._clear(topic)

    def end(self) -> None:
        """Clears the pictures and answers that must not stay after the bridge has stopped."""
        self._drawing.stop()
        self._pictures.clear()
        for topic in self._kept.ending():
            self._clear(topic)

    def _clear_due(self) -> None:
        now = time.monotonic()
        for topic in self._kept.due(now):
            self._clear(topic)
        self._pictures = {task: known for task, known in self._pictures.items() if known.until > now}

    def repeat(self) -> None:
        """Publishes all retained documents again."""
        for topic, payload in list(self._retained.items()):
            self._publish(Outgoing(topic, payload, retain=True))

    def repeat_documents(self) -> None:
        """Publishes the documents under our root again, except pictures, which may be large."""
        root = self._link.root
        for topic, payload in list(self._retained.items()):
            if topic.startswith(f"{root}/") and topics.BRIDGE_PICTURE.ids(root, topic) is None:
                self._publish(Outgoing(topic, payload, retain=True))

    def _on_birth(self, message: Message) -> None:
        self._is_online = message.payload == b"online"
        if self._is_online and not message.retain:
            wait = random.uniform(*_BIRTH_S)  # noqa: S311  # jitter
            _log.info("homeassistant_started", repeat_in_s=round(wait, 1))
            self._loop.after(wait, self._republish)
            self._loop.after(wait, self._remove_missed)

    def _remove_missed(self) -> None:
        """Removes devices that went while Home Assistant was offline: it removes only what it has seen since."""
        buried, self._removed_offline = self._removed_offline, {}
        for (kind, name), document in buried.items():
            if self._devices is not None and (topic := self._devices.topic(kind, name)) not in self._retained:
                self._publish(Outgoing(topic, _json(document)))
                self._loop.after(_REMOVE_S, partial(self._clear_if_gone, topic))

    def _clear_if_gone(self, topic: str) -> None:
        if topic not in self._retained:
            self._clear(topic)

    def _publish_changes(self) -> None:
        self._is_scheduled = False
        changed, self._changed = self._changed, set()
        moved = {name for kind, name in changed if kind == "presence"}
        changed |= {("task", task) for task in self._view.tasks_on(moved)}
        for kind, name in sorted(changed):  # the planner's device first: the others refer to it (via_device)
            if kind == "node":
                self._publish_node(name)
            elif kind == "task" and name in self._view.tasks:
                self._publish_task(name)
        if all(kind == "node" for kind, _ in changed):
            return  # loads and reports, which no count of the planner's document depends on
        document = self._view.planner_document()
        self._announce("planner", "", self._devices.planner() if self._devices else None)
        self._retain_if_changed(topics.BRIDGE_PLANNER.at(self._link.root), document.encode())

    def _publish_node(self, node: str) -> None:
        document = self._view.node(node)
        self._announce("node", node, self._devices.node(node, document.version) if self._devices else None)
        self._retain_if_changed(topics.BRIDGE_NODE.at(self._link.root, node=node), document.encode())

    def _publish_task(self, task: str) -> None:
        routed, labels = self._view.routes.get(task), self._view.labels(task)
        self._announce("task", task, self._devices.task(task, routed, labels) if self._devices else None)
        self._retain_if_changed(topics.BRIDGE_TASK.at(self._link.root, task=task), self._view.task(task).encode())

    def _announce(self, kind: str, name: str, document: dict[str, Any] | None) -> None:
        if self._devices is None or document is None:
            return
        topic = self._devices.topic(kind, name)
        if self._documents.get(topic) == document:
            return
        self._documents[topic] = document
        shown = self._shown.get(topic)
        # of messages that wait on one topic the newest alone is sent: each removes all that is gone
        self._shown[topic] = without(shown, document) if shown is not None else document
        self._retain_if_changed(topic, _json(self._shown[topic]))

    def _retain_if_changed(self, topic: str, payload: bytes) -> None:
        if self._retained.get(topic) != payload:
            self._retain(topic, payload)

    def _retain(self, topic: str, payload: bytes) -> None:
        self._retained[topic] = payload
        self._publish(Outgoing(topic, payload, retain=True))

    def _clear(self, topic: str) -> None:
        self._retained.pop(topic, None)
        self._kept.drop(topic)
        self._publish(Outgoing(topic, b"", retain=True))

    def _publish(self, message: Outgoing) -> None:
        if self._held is not None and message.retain:
            self._held[message.topic] = message
            return
        try:
            self._link.publish(self._kept.dated(message, time.monotonic()))
        except S2M3Error as error:  # published again after the next connect
            _log.warning("not_published", topic=message.topic, error=str(error))


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode()
