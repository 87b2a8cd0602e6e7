"""One binding at work: listens to its topic, asks the newest message, and publishes the answer. Its link is its own."""

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import structlog

from s2m3.bindings.answer import error_payload, payload_of, wanted
from s2m3.bindings.extract import Extract
from s2m3.bindings.gate import Gate
from s2m3.bindings.pattern import result_topic
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.actions import Result
from s2m3.schemas.bridge import Binding, BindingReport
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.ids import new_request_id
from s2m3.schemas.messages import ErrorBody
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.raw_sound import as_file
from s2m3.schemas.wire.values import Kind

__all__ = ["Asked", "Bound", "Hub"]

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that somebody made through the bridge."""

    task: str
    #: binding:<name>, question, or plain
    source: str
    topic: str | None = None
    question: str | None = None
    #: the picture file that it was about
    picture: bytes | None = None


class Hub(Protocol):
    """What a binding needs of the bridge."""

    def ask(self, asked: Asked, inputs: Mapping[str, Any], done: Callable[[Result], None]) -> None:
        """Asks a task; `done` is called once, in the loop's thread."""

    def kinds(self, task: str) -> Mapping[str, Kind]:
        """Returns what a task takes; nothing while that is not known."""

    def binding_changed(self) -> None:
        """One listens, or has been refused: worth a report."""


@dataclass(slots=True)
class _Counts:
    received: int = 0
    dropped: int = 0
    answered: int = 0
    published: int = 0
    failed: int = 0
    last_error: ErrorBody | None = field(default=None)


class Bound:
    """A binding that is active.

    Two bindings may listen to overlapping filters; on one connection a broker may deliver such a message once or
    twice. So each has a connection of its own.

    Args:
        name: Of the binding.
        binding: Checked (`check_topics`).
        settings: Where the broker is.
        loop: The bridge's.
        hub: The bridge.
        client_id: Of its connection.

    Raises:
        BadInputError: A path is not JMESPath.
    """

    def __init__(
        self, name: str, binding: Binding, settings: BrokerSettings, loop: Loop, hub: Hub, client_id: str
    ) -> None:
        self.name = name
        self.binding = binding
        self._loop = loop
        self._hub = hub
        self._extract = Extract(binding)
        self._gate = Gate(binding.every_s)
        self._timer: Timer | None = None
        self._counts = _Counts()
        self._ended = False
        #: the broker has confirmed: what is published from now on is heard
        self._listening = False
        self._link = Link(settings, client_id, loop, on_ended=hub.binding_changed)
        self._link.subscribe(binding.source, self._on_message, on_subscribed=self._on_subscribed)

    def start(self) -> None:
        """Connects, without waiting."""
        self._link.begin()

    def stop(self) -> None:
        """Ends; answers that still come are dropped."""
        self._ended = True
        if self._timer is not None:
            self._timer.cancel()
        self._link.stop(timeout_s=1.0)

    def _on_subscribed(self) -> None:
        self._listening = True
        self._hub.binding_changed()

    @property
    def report(self) -> BindingReport | None:
        """What became of it so far; None while it is not known whether it may listen."""
        counts, refused = self._counts, self._link.refused
        if refused is not None:
            return BindingReport(state="refused", error=ErrorBody(**refused.as_dict()))
        if not self._listening:
            return None
        return BindingReport(
            state="active",
            received=counts.received,
            dropped=counts.dropped,
            answered=counts.answered,
            published=counts.published,
            failed=counts.failed,
            last_error=counts.last_error,
        )

    def _on_message(self, message: Message) -> None:
        if message.retain or self._ended:  # said before we listened: acted upon already, or long out of date
            return
        self._counts.received += 1
        message = _as_file(self.binding, message)
        if not self._gate.offer(message.topic, message.payload, time.monotonic()):
            self._counts.dropped += 1
        self._go_on()

    def _go_on(self) -> None:
        if self._ended:
            return
        for topic, payload in self._gate.take(time.monotonic()):
            self._ask(topic, payload)
        if self._timer is not None:
            self._timer.cancel()
        due = self._gate.next_due()
        self._timer = None if due is None else self._loop.after(max(0.0, due - time.monotonic()), self._go_on)

    def _ask(self, topic: str, payload: bytes) -> None:
        kinds = self._hub.kinds(self.binding.task)
        try:
            inputs = self._extract.inputs(payload, kinds)
        except S2M3Error as error:
            self._failed(topic, new_request_id(), error)
            self._next(topic)
            return
        if inputs is None:
            self._counts.dropped += 1
            self._next(topic)
            return
        picture = _picture(inputs, kinds)
        asked = Asked(self.binding.task, f"binding:{self.name}", topic=topic, picture=picture)
        self._hub.ask(asked, inputs, partial(self._on_result, topic))

    def _on_result(self, topic: str, result: Result) -> None:
        if self._ended:
            return
        if result.error is not None:
            self._failed(topic, result.request, result.error)
        else:
            self._answered(topic, result)
        self._next(topic)

    def _answered(self, topic: str, result: Result) -> None:
        self._counts.answered += 1
        try:
            if wanted(self.binding, result):
                self._publish(topic, payload_of(self.binding, result, topic))
                self._counts.published += 1
        except S2M3Error as error:
            self._failed(topic, result.request, error)

    def _failed(self, topic: str, request: bytes, error: S2M3Error) -> None:
        self._note(error)
        payload = error_payload(self.binding, error, request, topic)
        if payload is None:
            return
        try:
            self._publish(topic, payload)
        except S2M3Error as unsent:
            _log.warning("not_published", binding=self.name, topic=topic, error=str(unsent))

    def _note(self, error: S2M3Error) -> None:
        _log.warning("binding_failed", binding=self.name, task=self.binding.task, error=str(error))
        self._counts.failed += 1
        self._counts.last_error = ErrorBody(**error.as_dict())

    def _publish(self, topic: str, payload: bytes) -> None:
        target = result_topic(self.name, self.binding, topic)
        self._link.publish(Outgoing(target, payload, retain=self.binding.retain), on_refused=self._note)

    def _next(self, topic: str) -> None:
        """Not from within `_go_on`: a flood of messages that fail at once must not go deeper and deeper."""
        self._gate.done(topic)
        self._loop.call(self._go_on)


def _as_file(binding: Binding, message: Message) -> Message:
    """Returns a message whose payload is a file: raw samples get a header, as the message or the binding says."""
    if binding.input is None:
        return message
    try:
        return replace(message, payload=as_file(message.payload, message.content_type or binding.content_type))
    except BadInputError as error:  # the task says what it cannot read
        _log.warning("content_type_passed_over", task=binding.task, topic=message.topic, error=str(error))
        return message


def _picture(inputs: Mapping[str, Any], kinds: Mapping[str, Kind]) -> bytes | None:
    """The first picture of a request."""
    for name, kind in kinds.items():
        if kind in ("image", "images") and (given := inputs.get(name)):
            first = given[0] if isinstance(given, list) else given
            if isinstance(first, bytes):
                return first
            try:
                return base64.b64decode(first["base64"])
            except (TypeError, KeyError, ValueError, binascii.Error):
                return None
    return None
