"""The requests of the bridge: sends them, publishes every answer for the house, and every failure as an event."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

import structlog

from s2m3.bindings.bound_topic import Asked, picture_of
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.actions import Result
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.history.entries import AnswerRecord
from s2m3.history.plain_requests import PlainRequests, picture_in
from s2m3.homeassistant.announcer import Announcer
from s2m3.homeassistant.answers import failure, of_plain, of_result, steps_of_plain
from s2m3.homeassistant.view import View
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.ids import shown_id
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.wire.plain import PlainRequest, parse_plain, transaction_of
from s2m3.schemas.wire.values import Kind, boxes_in

__all__ = ["Requests"]

_log = structlog.get_logger(__name__)


class Requests:
    """Sends the requests of bindings and questions. All methods run in the loop's thread.

    Args:
        link: The bridge's connection.
        dispatcher: Sends the requests.
        view: The documents that the bridge has received.
        announcer: Publishes answers.
        record: Keeps an answer in the history.
        binding_changed: Called when a binding listens, or has been refused.
    """

    def __init__(
        self,
        link: Link,
        dispatcher: Dispatcher,
        view: View,
        announcer: Announcer,
        *,
        record: Callable[[AnswerRecord], None],
        binding_changed: Callable[[], None],
    ) -> None:
        self._link = link
        self._dispatcher = dispatcher
        self._view = view
        self._announcer = announcer
        self._record = record
        self._binding_changed = binding_changed
        self._plain = PlainRequests()

    def ask(self, asked: Asked, inputs: Mapping[str, Any], done: Callable[[Result], None]) -> None:
        """Asks a task; `done` is called once, in the loop's thread."""

        def settle(result: Result) -> None:
            nonlocal asked
            if asked.picture is None:  # at the first request of a new task its kinds of inputs were not known
                asked = replace(asked, picture=picture_of(inputs, self.kinds(asked.task)))
            steps = {step: m.StepTiming(**timing.as_dict()) for step, timing in result.timings.items()}
            boxes, answer = boxes_in(result.outputs) or (), of_result(asked, result, _now())
            self._publish_record(
                AnswerRecord(asked, answer, self._whole(asked.task, inputs), boxes, steps, self._model(asked.task))
            )
            if result.error is not None:
                self._publish_failure(asked.task, result.request, result.error)
            done(result)

        self._dispatcher.submit(asked.task, inputs, None, settle)

    def failed(self, asked: Asked, request: bytes, error: S2M3Error) -> None:
        """Publishes a failure before or after a request."""
        self._publish_record(AnswerRecord(asked, failure(asked, error, _now()), model=self._model(asked.task)))
        self._publish_failure(asked.task, request, error)

    def refuse(self, asked: Asked, error: S2M3Error) -> None:
        """Publishes why a request is not made."""
        self.failed(asked, new_request_id(), error)

    def kinds(self, task: str) -> Mapping[str, Kind]:
        """Returns input name -> kind of a task; {} while its route is unknown."""
        return self._view.kinds(task)

    def binding_changed(self) -> None:
        """Called when a binding listens, has been refused, or retains an answer on a further topic."""
        self._binding_changed()

    def listen(self, *, pictures: bool) -> None:
        """Subscribes to answers to other callers' plain requests and, if wanted, to the requests for the pictures."""
        self._link.subscribe(topics.RESPONSE.all(self._link.root), self._on_response)
        for path in (topics.REQUEST, topics.REQUEST_INPUT, topics.REQUEST_TRANSACTION) if pictures else ():
            # not required: an access list that an earlier release wrote does not grant them
            self._link.subscribe(path.all(self._link.root), partial(self._on_request, path), required=False)

    def _on_response(self, message: Message) -> None:
        """Handles an answer on `response/<task>`, which is another caller's."""
        task = (topics.RESPONSE.ids(self._link.root, message.topic) or {}).get("task")
        answer = None if task is None else of_plain(task, message.payload, _now())
        if task is None or answer is None or task not in self._view.tasks:
            return
        asked = Asked(task, "plain")
        self._announcer.answered(task, answer, None, ())
        kinds, inputs = self.kinds(task), self._plain.answered(task, transaction_of(message.payload))
        steps, boxes = steps_of_plain(message.payload), boxes_in(answer.outputs) or ()
        known = replace(asked, picture=picture_in(inputs, kinds))
        whole = self._whole(task, inputs) if inputs else {}
        self._record(AnswerRecord(known, answer, whole, boxes, steps, self._model(task)))

    def _on_request(self, path: topics.TopicPath, message: Message) -> None:
        """Handles another caller's plain request: its picture belongs to its answer.

        Args:
            path: The family of its topic.
            message: The request. One with a Response Topic is answered to its caller alone.
        """
        if message.retain or message.reply_to or not (message.payload or message.oversize):
            return
        ids = path.ids(self._link.root, message.topic) or {}
        if (task := ids.get("task", "")) not in self._view.routes:
            return
        if (name := ids.get("input")) is not None:
            request = PlainRequest({name: message.payload}, ids.get("transaction"))
        else:
            try:
                request = parse_plain(message.payload)
            except BadInputError:  # such a request gets an answer, too
                request = PlainRequest(transaction=transaction_of(message.payload))
        deadline_s = request.deadline_s or self._view.routes[task].deadline_s
        kinds, now = self.kinds(task), time.monotonic()
        self._plain.asked(task, request.transaction, request.inputs, kinds, deadline_s=deadline_s, now=now)

    def _publish_record(self, record: AnswerRecord) -> None:
        if record.asked.task in self._view.tasks:
            self._announcer.answered(record.asked.task, record.answer, record.asked.picture, record.boxes)
            self._record(record)

    def _whole(self, task: str, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Returns the inputs of a request, with the task's defaults for missing ones."""
        doc = self._view.routes.get(task)
        return {**(doc.defaults if doc else {}), **inputs}

    def _model(self, task: str) -> str | None:
        doc = self._view.routes.get(task)
        return doc.model if doc else None

    def _publish_failure(self, task: str, request: bytes, error: S2M3Error) -> None:
        detail = f"{error.code}: {error.detail}"
        event = m.Event(event="request_failed", task=task, request=shown_id(request), detail=detail)
        topic = topics.EVENT.at(self._link.root)
        try:
            self._link.publish(Outgoing(topic, event.encode()))
        except S2M3Error as unsent:
            _log.warning("not_published", topic=topic, error=str(unsent))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
