"""The front of a task: takes plain requests in the task's own MQTT session and acknowledges them after the answer."""

import random
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import structlog

from agents.telling import Telling
from broker.dispatch import Dispatcher
from broker.link import Link
from broker.loop import Loop, Timer
from broker.message import Message, Outgoing
from broker.outcomes import Result
from schemas import topics
from schemas.codec import traceparent_of
from schemas.errors import BusyError, S2M3Error, UnauthorisedError
from schemas.ids import new_request_id
from schemas.messages import Event
from schemas.plain import PlainRequest, encode_plain_error, encode_plain_result, parse_plain, transaction_of
from schemas.replies import may_answer_at
from schemas.sessions import FRONT_SESSION_S, front_client_id
from schemas.settings import AgentSettings

__all__ = ["Front"]

_log = structlog.get_logger(__name__)
_RETURN_S = (0.2, 1.0)
_WAITING = 1_000


class Front:
    """Serves one task's plain door while the plan names this node its front.

    The session belongs to the task (client id, clean_start=False): requests wait in it while nobody is the front, and
    the next front gets what this one did not acknowledge. The loser of a takeover is told nothing, so an unexpected
    disconnect is answered by asking `may_return` first, never by reconnecting at once (facts-mqtt.md).

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
        tell: Callable[[Event], None],
    ) -> None:
        self.task = task
        self._settings = settings
        self._loop = loop
        self._dispatcher = dispatcher
        self._answers = answers
        self._may_return = may_return
        self._tell = tell
        self._link: Link | None = None
        self._under_way: dict[bytes, Message] = {}
        #: came while as many as allowed were under way; Mosquitto keeps these back itself (Receive Maximum)
        self._waiting: deque[Message] = deque()
        self._timer: Timer | None = None
        self._closed = False
        self._refused: UnauthorisedError | None = None

    def connect(self) -> None:
        """Takes the task's session over. In the loop's thread; the connection itself comes up behind it."""
        if self._link is not None or self._closed or self._refused is not None:
            return
        link = Link(
            self._settings,
            front_client_id(self._settings, self.task),
            self._loop,
            session_expiry_s=FRONT_SESSION_S,
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
        _log.info("front_up", node=self._settings.node, task=self.task)

    @property
    def refused(self) -> UnauthorisedError | None:
        """Why the broker does not let this node be the front; None while it does."""
        return self._refused

    def close(self) -> None:
        """Leaves the session to the next front: what is not answered yet will be sent to it."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        self._drop_requests()
        if self._link is not None:
            self._link.stop(timeout_s=1.0)
            self._link = None

    def _lost(self) -> None:
        if self._closed or self._link is None:
            return
        self._refused = self._link.refused
        self._link.abort()
        self._link = None
        self._drop_requests()
        if self._refused is not None:  # trying again would not change that: the agent ends
            return
        wait = random.uniform(*_RETURN_S)  # noqa: S311  # jitter
        self._timer = self._loop.after(wait, self._may_return)

    def _drop_requests(self) -> None:
        """Whoever has the session next answers these: our acknowledgement would belong to a connection that is gone."""
        for request in self._under_way:
            self._dispatcher.cancel(request)
        self._under_way.clear()
        self._waiting.clear()

    def _on_request(self, link: Link, message: Message) -> None:
        if link is not self._link:
            return
        if not may_answer_at(self._settings.root, message.reply_to):
            _log.warning("reply_topic_refused", node=self._settings.node, task=self.task, topic=message.reply_to)
            message = replace(message, reply_to=None)
        if len(self._under_way) < self._settings.plain_inflight:
            self._take(message)
        elif len(self._waiting) < _WAITING:
            self._waiting.append(message)
        else:
            busy = BusyError(f"{_WAITING} plain requests of {self.task} wait")
            self._refuse(new_request_id(), message, busy)

    def _take(self, message: Message) -> None:
        """Sends a request on, or answers that it makes no sense."""
        request = new_request_id()
        try:
            plain = self._parse(message)
        except S2M3Error as error:
            self._refuse(request, message, error)
            return
        self._under_way[request] = message
        telling = Telling(request, plain.transaction, partial(self._publish, message)) if plain.stream else None
        self._dispatcher.submit(
            self.task,
            plain.inputs,
            plain.deadline_s,
            partial(self._on_result, plain, telling),
            request=request,
            traceparent=traceparent_of(message.user),
            options=plain.options,
            seen=telling.take if telling else None,
        )

    def _refuse(self, request: bytes, message: Message, error: S2M3Error) -> None:
        self._under_way[request] = message
        self._answer(request, encode_plain_error(error, request=request, transaction=transaction_of(message.payload)))

    def _parse(self, message: Message) -> PlainRequest:
        ids = topics.REQUEST_INPUT.ids(self._settings.root, message.topic)
        if ids is not None:
            return PlainRequest({ids["input"]: message.payload})
        return parse_plain(message.payload)

    def _on_result(self, plain: PlainRequest, telling: Telling | None, result: Result) -> None:
        seq = telling.told if telling is not None else None
        if result.error is not None:
            payload = encode_plain_error(result.error, request=result.request, transaction=plain.transaction, seq=seq)
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
            )
        self._answer(result.request, payload)
        while self._waiting and len(self._under_way) < self._settings.plain_inflight:
            self._take(self._waiting.popleft())

    def _note_failure(self, request: bytes, error: S2M3Error) -> None:
        name, code = request.hex(), error.code
        _log.warning("request_failed", node=self._settings.node, task=self.task, request=name, error=str(error))
        self._tell(Event(event="request_failed", task=self.task, request=name, detail=f"{code}: {error.detail}"))

    def _answer(self, request: bytes, payload: bytes) -> None:
        """Publishes the answer, then acknowledges the request: in this order, so that neither can be lost."""
        message = self._under_way.pop(request, None)
        link = self._link
        if message is None or link is None:
            return
        try:
            refused = partial(self._may_not_answer, request, message) if message.reply_to else None
            self._answers.publish(
                self._addressed(message, payload), delivered=partial(link.ack, message), refused=refused
            )
        except S2M3Error as error:
            _log.warning(
                "answer_unsent", node=self._settings.node, task=self.task, request=request.hex(), error=str(error)
            )
            small = encode_plain_error(error, request=request, transaction=None)
            self._loop.after(0.5, partial(self._again, request, message, small))

    def _may_not_answer(self, request: bytes, message: Message, error: UnauthorisedError) -> None:
        """The caller named a topic that the broker keeps from us: it is told so where everybody may be answered."""
        error.node = self._settings.node
        self._note_failure(request, error)
        told = encode_plain_error(error, request=request, transaction=transaction_of(message.payload))
        self._again(request, replace(message, reply_to=None), told)

    def _addressed(self, message: Message, payload: bytes) -> Outgoing:
        if message.reply_to:
            return Outgoing(message.reply_to, payload, correlation=message.correlation)
        # a 3.1.1 client may listen: no properties (facts-mqtt.md)
        return Outgoing(topics.RESPONSE.at(self._settings.root, task=self.task), payload)

    def _publish(self, message: Message, payload: bytes) -> bool:
        """Publishes a piece of a text if there is room for it: the answer holds it all the same."""
        if not self._answers.has_room:
            return False
        self._answers.publish(self._addressed(message, payload), refused=lambda _: None)  # the answer will tell
        return True

    def _again(self, request: bytes, message: Message, payload: bytes) -> None:
        self._under_way[request] = message
        self._answer(request, payload)
