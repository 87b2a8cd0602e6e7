"""The gateway of a task: takes plain requests in the task's own MQTT session and acknowledges them after the answer."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import structlog

from s2m3.agents.gateway.plain_stream import PlainStream
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.actions import Result
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.schemas import topics
from s2m3.schemas.errors import BusyError, S2M3Error, UnauthorisedError
from s2m3.schemas.ids import new_request_id
from s2m3.schemas.messages import Event
from s2m3.schemas.sessions import TASK_SESSION_S, task_client_id
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.wire.codec import traceparent_of
from s2m3.schemas.wire.plain import PlainRequest, encode_plain_error, encode_plain_result, parse_plain, transaction_of
from s2m3.schemas.wire.reply_topics import may_answer_at

__all__ = ["Gateway"]

_log = structlog.get_logger(__name__)
_RETURN_S = (0.2, 1.0)
_WAITING = 1_000
#: How often a gateway that lost its session looks whether what it holds is its own to answer.
_LOOK_S = 1.0
#: It is when the session is back for so many looks and did not bring it again (callers have had time to return too),
#: or when the broker is back for so many and the session is not.
_LOOKS_SESSION, _LOOKS_BROKER = 2, 10


@dataclass(slots=True, eq=False)
class _Taken:
    """A plain request that is not acknowledged yet."""

    request: bytes
    #: as it came last, and the connection it came over; None: an orphan, that is gone
    message: Message
    link: Link | None
    #: its answer, once there; and whether that is on its way
    answer: bytes | None = None
    sent: bool = False


class Gateway:
    """Serves one task's plain door while the plan names this node its gateway.

    The session belongs to the task (client id, clean_start=False): requests wait in it while nobody is the gateway, and
    the next gateway gets what this one did not acknowledge. The loser of a takeover is told nothing, so an unexpected
    disconnect is answered by asking `may_return` first, never by reconnecting at once
    (docs/decisions/0001-mqtt-as-data-plane.md).

    What was taken when the session's connection is lost is worked on further, but its answers are kept back: if the
    broker brings a request again, it goes on where it is; if the broker forgot the session, nobody else knows of it,
    and it is answered after a while; if our node was given up meanwhile, another gateway has it, and it is dropped.

    Args:
        task: Its name.
        settings: Of the agent.
        loop: The agent's loop.
        dispatcher: Sends the requests on, as a Client would.
        answers: The agent's own link: answers go out there. On the session's link they could wait for ever: while as
            many requests are unacknowledged as rumqttd allows, it acknowledges nothing that comes over the same link.
        may_return: Asks the agent to look at its plan afresh; it calls `connect` again if we are still named.
        tell: Publishes an event.
    """

    def __init__(
        self,
        task: str,
        settings: AgentSettings,
        loop: Loop,
        dispatcher: Dispatcher,
        answers: Link,
        *,
        may_return: Callable[[], None],
        publish_event: Callable[[Event], None],
    ) -> None:
        self.task = task
        self._settings = settings
        self._loop = loop
        self._dispatcher = dispatcher
        self._answers = answers
        self._may_return = may_return
        self._publish_event = publish_event
        self._link: Link | None = None
        self._taken: dict[bytes, _Taken] = {}
        #: those of them whose connection is gone
        self._orphans: list[_Taken] = []
        #: those that came while as many as allowed were under way; Mosquitto keeps these back itself (Receive Maximum)
        self._waiting: deque[_Taken] = deque()
        self._looks = 0
        self._broker_was_away = False
        self._timer: Timer | None = None
        self._closed = False
        self._refused: UnauthorisedError | None = None

    def connect(self) -> None:
        """Takes the task's session over. In the loop's thread; the connection itself comes up behind it."""
        if self._link is not None or self._closed or self._refused is not None:
            return
        link = Link(
            self._settings,
            task_client_id(self._settings, self.task),
            self._loop,
            session_expiry_s=TASK_SESSION_S,
            manual_ack=True,
            receive_maximum=self._settings.plain_inflight,
            on_ended=self._lost,
            reconnect=False,
        )
        self._link = link
        root = self._settings.root
        handler = partial(self._on_request, link)
        link.subscribe(topics.REQUEST.at(root, task=self.task), handler)
        link.subscribe(topics.REQUEST_INPUT.all(root, task=self.task), handler)
        link.begin()
        _log.info("gateway_up", node=self._settings.node, task=self.task)

    @property
    def refused(self) -> UnauthorisedError | None:
        """Why the broker does not let this node be the gateway; None while it does."""
        return self._refused

    def close(self) -> None:
        """Leaves the session to the next gateway: what is not answered yet will be sent to it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        if not self._broker_was_away:
            self.give_up()
        if self._link is not None:
            self._drop([taken for taken in self._taken.values() if taken.link is not None])
            self._link.stop(timeout_s=1.0)
            self._link = None

    def broker_lost(self) -> None:
        """The agent's own connection is gone too: with the broker, perhaps, and all that it knew."""
        self._broker_was_away = True

    def give_up(self) -> None:
        """Our node was taken for lost: whoever has the session by now was brought what we hold from before."""
        self._drop(self._orphans)

    def _lost(self) -> None:
        if self._closed or self._link is None:
            return
        self._refused = self._link.refused
        self._link.abort()
        self._link = None
        for taken in self._taken.values():
            taken.link = None
        if self._taken and not self._orphans:
            self._loop.after(_LOOK_S, self._look)
        self._looks, self._orphans = 0, list(self._taken.values())
        if self._refused is not None:  # trying again would not change that: the agent ends
            return
        wait = random.uniform(*_RETURN_S)  # noqa: S311  # jitter
        self._timer = self._loop.after(wait, self._may_return)

    def _look(self) -> None:
        """Answers what a lost session left with us, once it is plain that nobody else will."""
        if not self._orphans:
            return
        self._looks = self._looks + 1 if self._answers.connected else 0
        session_is_back = self._link is not None and self._link.connected
        if self._looks >= (_LOOKS_SESSION if session_is_back else _LOOKS_BROKER):
            for taken in self._orphans:
                self._send(taken)
        self._loop.after(_LOOK_S, self._look)

    def _drop(self, dropped: list[_Taken]) -> None:
        """Whoever has the session next answers these: our acknowledgement would belong to a connection that is gone."""
        for taken in dropped:
            self._dispatcher.cancel(taken.request)
            self._forget(taken)
        self._waiting = deque(taken for taken in self._waiting if taken.request in self._taken)

    def _forget(self, taken: _Taken) -> None:
        self._taken.pop(taken.request, None)
        if taken.link is None:
            self._orphans = [other for other in self._orphans if other is not taken]

    def _on_request(self, link: Link, message: Message) -> None:
        if link is not self._link:
            return
        if not may_answer_at(self._settings.root, message.reply_to):
            _log.warning("reply_topic_refused", node=self._settings.node, task=self.task, topic=message.reply_to)
            message = replace(message, reply_to=None)
        if self._is_known(link, message):
            return
        taken = _Taken(new_request_id(), message, link)
        self._taken[taken.request] = taken
        if len(self._taken) - len(self._waiting) <= self._settings.plain_inflight:
            self._take(taken)
        elif len(self._waiting) < _WAITING:
            self._waiting.append(taken)
        else:
            self._refuse(taken, BusyError(f"{_WAITING} plain requests of {self.task} wait"))

    def _is_known(self, link: Link, message: Message) -> bool:
        """Whether it was taken before the session was lost: it goes on, and is acknowledged over this connection."""
        if not self._orphans:
            self._broker_was_away = False
            return False
        taken = next((taken for taken in self._orphans if _same(taken.message, message)), None)
        if taken is None:
            return False
        self._orphans.remove(taken)
        taken.message, taken.link = message, link
        self._send(taken)
        return True

    def _take(self, taken: _Taken) -> None:
        """Sends a request on, or answers that it makes no sense."""
        try:
            plain = self._parse(taken.message)
        except S2M3Error as error:
            self._refuse(taken, error)
            return
        pieces = partial(self._publish, taken)
        stream = PlainStream(taken.request, plain.transaction, pieces) if plain.stream else None
        self._dispatcher.submit(
            self.task,
            plain.inputs,
            plain.deadline_s,
            partial(self._on_result, taken, plain, stream),
            request=taken.request,
            traceparent=traceparent_of(taken.message.user),
            options=plain.options,
            on_delta=stream.take if stream else None,
        )

    def _refuse(self, taken: _Taken, error: S2M3Error) -> None:
        transaction = transaction_of(taken.message.payload)
        self._finish(taken, encode_plain_error(error, request=taken.request, transaction=transaction))

    def _parse(self, message: Message) -> PlainRequest:
        ids = topics.REQUEST_INPUT.ids(self._settings.root, message.topic)
        if ids is not None:
            return PlainRequest({ids["input"]: message.payload})
        return parse_plain(message.payload)

    def _on_result(self, taken: _Taken, plain: PlainRequest, stream: PlainStream | None, result: Result) -> None:
        seq = stream.told if stream is not None else None
        ignored = (*plain.ignored, *result.ignored)
        if result.error is not None:
            payload = encode_plain_error(
                result.error, request=result.request, transaction=plain.transaction, seq=seq, ignored=ignored
            )
            self._note_failure(result.request, result.error)
        else:
            payload = encode_plain_result(
                answer=result.outputs.get(result.answer[0]),
                outputs=result.outputs,
                timings=result.timings,
                latency_ms=result.latency_ms,
                attempts=result.attempts,
                request=result.request,
                transaction=plain.transaction,
                seq=seq,
                ignored=ignored,
            )
        self._finish(taken, payload)

    def _note_failure(self, request: bytes, error: S2M3Error) -> None:
        name, code = request.hex(), error.code
        _log.warning("request_failed", node=self._settings.node, task=self.task, request=name, error=str(error))
        self._publish_event(
            Event(event="request_failed", task=self.task, request=name, detail=f"{code}: {error.detail}")
        )

    def _finish(self, taken: _Taken, answer: bytes) -> None:
        taken.answer = answer
        if taken.link is not None:
            self._send(taken)

    def _send(self, taken: _Taken) -> None:
        """Publishes the answer, then acknowledges the request: in this order, so that neither can be lost."""
        if taken.answer is None or taken.sent or taken.request not in self._taken:
            return
        try:
            refused = partial(self._may_not_answer, taken) if taken.message.reply_to else None
            answer = self._addressed(taken.message, taken.answer)
            self._answers.publish(answer, on_delivered=partial(self._delivered, taken), on_refused=refused)
            taken.sent = True
        except S2M3Error as error:
            name = taken.request.hex()
            _log.warning("answer_unsent", node=self._settings.node, task=self.task, request=name, error=str(error))
            taken.answer = encode_plain_error(error, request=taken.request, transaction=None)
            self._loop.after(0.5, partial(self._send, taken))

    def _may_not_answer(self, taken: _Taken, error: UnauthorisedError) -> None:
        """The caller named a topic that the broker keeps from us: it is told so where everybody may be answered."""
        error.node = self._settings.node
        self._note_failure(taken.request, error)
        transaction = transaction_of(taken.message.payload)
        taken.message, taken.sent = replace(taken.message, reply_to=None), False
        taken.answer = encode_plain_error(error, request=taken.request, transaction=transaction)
        self._send(taken)

    def _addressed(self, message: Message, payload: bytes) -> Outgoing:
        if message.reply_to:
            return Outgoing(message.reply_to, payload, correlation=message.correlation)
        # a 3.1.1 client may listen: no properties (docs/protocol.md)
        return Outgoing(topics.RESPONSE.at(self._settings.root, task=self.task), payload)

    def _publish(self, taken: _Taken, payload: bytes) -> bool:
        """Publishes a piece of a text if there is room for it: the answer holds it all the same."""
        if not self._answers.has_room:
            return False
        self._answers.publish(
            self._addressed(taken.message, payload), on_refused=lambda _: None
        )  # the answer will tell
        return True

    def _delivered(self, taken: _Taken) -> None:
        self._forget(taken)
        if taken.link is not None:
            taken.link.ack(taken.message)
        while self._waiting and len(self._taken) - len(self._waiting) < self._settings.plain_inflight:
            self._take(self._waiting.popleft())


def _same(one: Message, other: Message) -> bool:
    return (one.topic, one.payload, one.reply_to, one.correlation) == (
        other.topic,
        other.payload,
        other.reply_to,
        other.correlation,
    )
