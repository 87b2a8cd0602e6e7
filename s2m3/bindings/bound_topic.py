"""One active binding: listens to its topic, sends requests, publishes the answers, on a connection of its own."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import structlog

from s2m3.bindings.answer import error_payload, payload_of, wanted
from s2m3.bindings.extract import Extract, Found, PassedOver
from s2m3.bindings.gate import MOST_WAITING, Allowance, Gate
from s2m3.bindings.pattern import result_topic
from s2m3.bridge.retention import Kept
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.actions import Result
from s2m3.schemas.bridge import Binding, BindingReport
from s2m3.schemas.errors import BadInputError, BusyError, S2M3Error
from s2m3.schemas.messages import ErrorBody
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.base64_text import decode_base64
from s2m3.schemas.wire.raw_sound import as_file
from s2m3.schemas.wire.values import Kind

__all__ = ["Asked", "Bound", "Hub", "picture_of"]

_log = structlog.get_logger(__name__)
#: Errors of one binding that are published at once, and then per second. All are counted.
_ERRORS, _ERRORS_PER_S = 10, 1.0
#: Most topics with a retained answer of one binding: other parties choose the topics that its wildcards match.
_MOST_RETAINED = 256
_LOOK_S = 1.0


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was made through the bridge."""

    task: str
    #: binding:<name>, question, or plain
    source: str
    topic: str | None = None
    question: str | None = None
    #: the picture file among its inputs
    picture: bytes | None = None


class Hub(Protocol):
    """The functions of the bridge that a binding uses."""

    def ask(self, asked: Asked, inputs: Mapping[str, Any], done: Callable[[Result], None]) -> None:
        """Asks a task; `done` is called once, in the loop's thread."""

    def failed(self, asked: Asked, request: bytes, error: S2M3Error) -> None:
        """Publishes a failure before or after a request."""

    def kinds(self, task: str) -> Mapping[str, Kind]:
        """Returns input name -> kind of a task; {} while the task's route is unknown."""

    def binding_changed(self) -> None:
        """Called when a binding listens, or has been refused: its report has changed."""


@dataclass(slots=True)
class _Counts:
    received: int = 0
    dropped: int = 0
    passed: int = 0
    last_passed: str | None = None
    answered: int = 0
    published: int = 0
    failed: int = 0
    last_error: ErrorBody | None = field(default=None)


class Bound:
    """A binding that is active.

    Two bindings may listen to overlapping filters; on one connection a broker may deliver such a message once or
    twice. So each has a connection of its own.

    Args:
        name: The binding's name.
        binding: The binding, checked by `check_topics`.
        settings: The broker's address, and the login.
        loop: The bridge's loop.
        hub: The bridge.
        client_id: The client id of the connection.
        answers_s: Seconds for which a retained answer stays; 0: none is retained, infinite: until it is replaced.

    Raises:
        BadInputError: A path is not JMESPath.
    """

    def __init__(
        self,
        name: str,
        binding: Binding,
        settings: BrokerSettings,
        loop: Loop,
        hub: Hub,
        client_id: str,
        *,
        answers_s: float,
    ) -> None:
        self.name = name
        self.binding = binding
        self._loop = loop
        self._hub = hub
        self._extract = Extract(binding)
        self._gate: Gate[Found] = Gate(binding.every_s, each=binding.each)
        self._errors = Allowance(_ERRORS, _ERRORS_PER_S)
        self._answers_s = answers_s
        self._kept = Kept()
        self._looking: Timer | None = None
        self._timer: Timer | None = None
        self._counts = _Counts()
        self._ended = False
        #: whether the broker has confirmed the subscription
        self._listening = False
        self._link = Link(settings, client_id, loop, on_ended=hub.binding_changed)
        self._link.subscribe(binding.source, self._on_message, on_subscribed=self._on_subscribed)

    def start(self) -> None:
        """Connects, without waiting."""
        self._link.begin()

    def stop(self, *, clear: bool = True) -> None:
        """Ends the binding; answers that arrive later are dropped.

        Args:
            clear: Whether to clear its retained answers, because the binding was removed.
        """
        self._ended = True
        for timer in (self._timer, self._looking):
            if timer is not None:
                timer.cancel()
        if clear:
            self.clear(self._kept.topics)
        self._link.stop(timeout_s=1.0)

    def adopt(self, topics: Iterable[str]) -> None:
        """Takes over retained answers of an earlier bridge; they stay as long as those of this one."""
        for topic in topics:
            if len(self._kept) < _MOST_RETAINED and topic not in self._kept:
                self._keep(topic)

    def clear(self, topics: Iterable[str] | None = None) -> None:
        """Clears retained answers: all of them, or those on the given topics."""
        for topic in list(self._kept.topics if topics is None else topics):
            self._kept.drop(topic)
            self._send(Outgoing(topic, b"", retain=True))

    def clear_ending(self) -> None:
        """Clears the retained answers that do not outlive the bridge."""
        self.clear(self._kept.ending())

    def _on_subscribed(self) -> None:
        self._listening = True
        self._hub.binding_changed()

    @property
    def report(self) -> BindingReport | None:
        """The state and counters; None until the broker has confirmed or denied the subscription."""
        counts, refused = self._counts, self._link.refused
        if refused is not None:
            return BindingReport(state="refused", error=ErrorBody(**refused.as_dict()))
        if not self._listening:
            return None
        return BindingReport(
            state="active",
            received=counts.received,
            dropped=counts.dropped,
            passed=counts.passed,
            last_passed=counts.last_passed,
            answered=counts.answered,
            published=counts.published,
            failed=counts.failed,
            last_error=counts.last_error,
            retained=self._kept.topics,
        )

    def _on_message(self, message: Message) -> None:
        if message.retain or self._ended:  # a message from before the subscription was handled before, or is too old
            return
        self._counts.received += 1
        if (found := self._found(_as_file(self.binding, message))) is None:
            return
        if not self._gate.offer(message.topic, found, time.monotonic()):
            self._counts.dropped += 1
            if self.binding.each:
                error = BusyError(f"{MOST_WAITING} messages of binding {self.name} wait: this one is not asked")
                self._counts.last_error = ErrorBody(**error.as_dict())
                self._report(message.topic, new_request_id(), error)
        self._go_on()

    def _found(self, message: Message) -> Found | None:
        """Returns the inputs in a message; None if it asks nothing or is wrong: then it takes no place in the gate."""
        is_read = False
        try:
            found = self._extract.find(message.payload)
            if isinstance(found, Found):
                self._target(message.topic)  # raises if there is no topic for the answer
            is_read = True
        except S2M3Error as error:
            is_read = True
            self._failed(message.topic, new_request_id(), error)
            return None
        finally:
            if not is_read:  # an error in this program is counted, too
                self._counts.failed += 1
        if isinstance(found, PassedOver):
            self._counts.passed += 1
            self._counts.last_passed = found.why
            return None
        return found

    def _go_on(self) -> None:
        if self._ended:
            return
        for topic, found in self._gate.take(time.monotonic()):
            self._ask(topic, found)
        if self._timer is not None:
            self._timer.cancel()
        due = self._gate.next_due()
        self._timer = None if due is None else self._loop.after(max(0.0, due - time.monotonic()), self._go_on)

    def _ask(self, topic: str, found: Found) -> None:
        is_asked = False
        try:
            kinds = self._hub.kinds(self.binding.task)
            inputs = self._extract.made_of(found, kinds)
            asked = self._asked(topic, picture=picture_of(inputs, kinds))
            self._hub.ask(asked, inputs, partial(self._on_result, topic))
            is_asked = True
        except S2M3Error as error:
            self._failed(topic, new_request_id(), error)
        finally:
            if not is_asked:  # after any error the topic is free again
                self._next(topic)

    def _asked(self, topic: str, picture: bytes | None = None) -> Asked:
        return Asked(self.binding.task, f"binding:{self.name}", topic=topic, picture=picture)

    def _on_result(self, topic: str, result: Result) -> None:
        if self._ended:
            return
        if result.error is not None:
            self._note(result.error)
            self._publish_error(topic, result.request, result.error)
        else:
            self._answered(topic, result)
        self._next(topic)

    def _answered(self, topic: str, result: Result) -> None:
        self._counts.answered += 1
        try:
            if wanted(self.binding, result):
                self._publish(topic, payload_of(self.binding, result, topic), retain=self.binding.retain)
                self._counts.published += 1
        except S2M3Error as error:
            self._failed(topic, result.request, error)

    def _failed(self, topic: str, request: bytes, error: S2M3Error) -> None:
        """Counts and publishes a failure that the bridge does not know of."""
        self._note(error)
        self._report(topic, request, error)

    def _report(self, topic: str, request: bytes, error: S2M3Error) -> None:
        if self._errors.take(time.monotonic()):
            self._hub.failed(self._asked(topic), request, error)
            self._publish_error(topic, request, error)

    def _publish_error(self, topic: str, request: bytes, error: S2M3Error) -> None:
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

    def _target(self, topic: str) -> str:
        return result_topic(self.name, self.binding, topic)

    def _publish(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        target = self._target(topic)
        if not retain or self._answers_s == 0:
            self._link.publish(Outgoing(target, payload), on_refused=self._note)
            return
        if target not in self._kept and len(self._kept) >= _MOST_RETAINED:
            raise BadInputError(f"{_MOST_RETAINED} topics hold an answer of binding {self.name} already")
        is_new = target not in self._kept
        self._keep(target)
        if is_new:
            self._hub.binding_changed()  # the report names the topic, so that the next bridge can clear it
        message = Outgoing(target, payload, retain=True)
        dated = self._kept.dated(message, time.monotonic())
        self._link.publish(dated, on_refused=self._note)

    def _keep(self, topic: str) -> None:
        self._kept.keep(topic, time.monotonic() + self._answers_s)
        if self._looking is None:
            self._looking = self._loop.every(_LOOK_S, lambda: self.clear(self._kept.due(time.monotonic())))

    def _send(self, message: Outgoing) -> None:
        try:
            self._link.publish(message, on_refused=self._note)
        except S2M3Error as unsent:
            _log.warning("not_published", binding=self.name, topic=message.topic, error=str(unsent))

    def _next(self, topic: str) -> None:
        """Frees a topic. `_go_on` runs later in the loop: many messages that fail at once must not recurse."""
        self._gate.done(topic)
        self._loop.call(self._go_on)


def _as_file(binding: Binding, message: Message) -> Message:
    """Returns a message whose payload is a file: raw samples get a header, by the message's or binding's type."""
    if binding.input is None or not message.payload:
        return message
    try:
        return replace(message, payload=as_file(message.payload, message.content_type or binding.content_type))
    except BadInputError as error:  # the task's own error says more about a payload that it cannot read
        _log.warning("content_type_passed_over", task=binding.task, topic=message.topic, error=str(error))
        return message


def picture_of(inputs: Mapping[str, Any], kinds: Mapping[str, Kind]) -> bytes | None:
    """Returns the first picture file of a request; None if it has none, or the kinds of its inputs are not known."""
    for name, kind in kinds.items():
        if kind in ("image", "images") and (given := inputs.get(name)):
            first = given[0] if isinstance(given, list) else given
            if isinstance(first, bytes):
                return first
            try:
                return decode_base64(first["base64"])[0]
            except (TypeError, KeyError, ValueError):
                return None
    return None
