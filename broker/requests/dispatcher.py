"""Sends requests and brings their answers, for clients and gateways: `RequestTracker` (pure) on a link and a clock."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from s2m3.broker import metrics, tracing
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.actions import Action, EmitDelta, Finish, Result, Send, Stop
from s2m3.broker.requests.stream_assembler import TextDelta
from s2m3.broker.requests.tracker import RequestTracker
from s2m3.schemas import topics
from s2m3.schemas.errors import NotReadyError, S2M3Error, UnknownTaskError
from s2m3.schemas.ids import new_request_id
from s2m3.schemas.messages import NodeLoad, NodeState, RouteDoc
from s2m3.schemas.wire.codec import CONTENT_TYPE, decode_answer, decode_piece, encode_stop, encode_work, is_piece
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Answer, Work

__all__ = ["Dispatcher", "send_work"]

_log = structlog.get_logger(__name__)
OnDone = Callable[[Result], None]
OnDelta = Callable[[TextDelta], None]


def send_work(link: Link, work: Work, failed: Callable[[S2M3Error], None]) -> None:
    """Publishes a branch's message to its module topic.

    Args:
        link: Where.
        work: What.
        failed: Called when the broker says that nobody serves the module there any more, or that we may not ask it.

    Raises:
        TooLargeError: It is over the broker's limit.
        BusyError: The link's queue is full.
    """
    payload, user = encode_work(work)
    message = Outgoing(
        topics.MODULE_IN.at(link.root, module=work.hop.module, node=work.hop.node),
        payload,
        reply_to=work.reply_to,
        correlation=work.request,
        content_type=CONTENT_TYPE,
        expiry_s=work.ms_left / 1000,
        user=user,
    )
    link.publish(message, on_no_subscribers=partial(_unheard, work, failed), on_refused=failed)


def _unheard(work: Work, failed: Callable[[S2M3Error], None]) -> None:
    hop = work.hop
    failed(NotReadyError(f"nobody serves {hop.module} on {hop.node}", step=work.step, node=hop.node))


def send_stop(link: Link, work: Work) -> None:
    """Tells the node of a work that nobody waits for it any more; lost, it costs the node what it writes in vain.

    Raises:
        BusyError: The link's queue is full.
    """
    topic = topics.MODULE_IN.at(link.root, module=work.hop.module, node=work.hop.node)
    user = encode_stop(work)
    message = Outgoing(topic, b"", correlation=work.request, expiry_s=work.ms_left / 1000, user=user)
    link.publish(message, on_refused=lambda _: None)  # then it was not let in either


@dataclass(frozen=True, slots=True)
class _Asked:
    """Whom to tell of a request's end, and of its text while it is written."""

    on_done: OnDone
    on_delta: OnDelta | None
    span: tracing.RequestSpan


class Dispatcher:
    """Dispatches requests for one requester.

    Args:
        link: Its connection.
        loop: The loop that runs the link's handlers.
        client: Its name: answers come to `client/<client>/in`.
        on_node_state: Told too: two subscriptions to the same topics would deliver twice.
    """

    def __init__(
        self,
        link: Link,
        loop: Loop,
        client: str,
        *,
        on_node_state: Callable[[str, NodeState | None], None] | None = None,
    ) -> None:
        self._link = link
        self._loop = loop
        self._reply_to = topics.CLIENT_IN.at(link.root, client=client)
        self._requests = RequestTracker(self._reply_to, random.Random())  # noqa: S311  # spreads retries, keeps no secret
        self._asked: dict[bytes, _Asked] = {}
        self._on_ready: Callable[[], None] | None = None
        self._tell_node_state = on_node_state
        self._timer: tuple[float, Timer] | None = None

    def start(self, on_ready: Callable[[], None] | None = None) -> None:
        """Subscribes to answers, routes, node states and loads.

        Args:
            on_ready: Called once answers reach us: a message of our own to our inbox came back. A broker with access
                lists may confirm a subscription and then deliver nothing (Mosquitto's `acl_file` does).
        """
        self._on_ready = on_ready
        self._link.on_connection_change(on_reconnect=self._on_up, on_disconnect=self._on_down)
        listen(self._link, topics.ROUTE, self._on_route)
        listen(self._link, topics.NODE_STATE, self._on_node_state)
        listen(self._link, topics.NODE_LOAD, self._on_load)
        self._link.subscribe(self._reply_to, self._on_answer, on_subscribed=self._greet)

    def _greet(self) -> None:
        try:
            self._link.publish(Outgoing(self._reply_to, b""))
        except S2M3Error as error:  # the link is full already: the caller waits for `on_ready` in vain
            _log.warning("not_greeted", topic=self._reply_to, error=str(error))

    def submit(
        self,
        task: str,
        inputs: Mapping[str, Value],
        deadline_s: float | None,
        on_done: OnDone,
        *,
        request: bytes | None = None,
        traceparent: str | None = None,
        options: Mapping[str, Any] | None = None,
        on_delta: OnDelta | None = None,
    ) -> bytes:
        """Starts a request, from any thread.

        Args:
            task: Its name.
            inputs: By the task's names.
            deadline_s: Seconds; None takes the task's.
            on_done: Gets the result, once, in the loop's thread.
            request: Its id, where the caller has one already.
            traceparent: Of the caller's trace.
            options: How text is to be written.
            on_delta: Gets text as it is written, in the loop's thread; all of it has come when `on_done` is called.

        Returns:
            The request's id.
        """
        request = request or new_request_id()
        # the span begins here: the trace context that it belongs to is the calling thread's
        asked = _Asked(on_done, on_delta, tracing.begin_request(task, request, traceparent))
        self._loop.call(partial(self._submit, request, task, inputs, deadline_s, options, asked=asked))
        return request

    def cancel(self, request: bytes) -> None:
        """Forgets a request, from any thread: `on_done` will not be called."""
        self._loop.call(partial(self._cancel, request))

    def close(self) -> None:
        """Forgets every request under way, from any thread: no `on_done` is called, and text generation stops."""
        self._loop.call(self._forget)

    @property
    def under_way(self) -> int:
        """Requests without an answer yet."""
        return len(self._requests)

    def _submit(
        self,
        request: bytes,
        task: str,
        inputs: Mapping[str, Value],
        deadline_s: float | None,
        options: Mapping[str, Any] | None,
        *,
        asked: _Asked,
    ) -> None:
        self._asked[request] = asked
        metrics.UNDER_WAY.inc()
        now, stream = time.monotonic(), asked.on_delta is not None
        self._act(self._requests.submit(request, task, inputs, deadline_s, now, options=options, stream=stream))

    def _cancel(self, request: bytes) -> None:
        if self._asked.pop(request, None) is not None:
            metrics.UNDER_WAY.dec()
        self._act(self._requests.cancel(request))

    def _forget(self) -> None:
        for request in list(self._asked):
            self._cancel(request)

    def _on_down(self) -> None:
        self._requests.on_link_down()

    def _on_up(self) -> None:
        """Our inbox is open again. What was answered meanwhile is gone: all that is under way is sent once more."""
        self._act(self._requests.on_link_up(time.monotonic()))

    def _on_answer(self, message: Message) -> None:
        if not message.payload:
            then, self._on_ready = self._on_ready, None
            if then is not None:
                then()
            return
        try:
            request, user, content_type = message.correlation, message.user, message.content_type
            if is_piece(user):
                piece = decode_piece(message.payload, request=request, user=user, content_type=content_type)
                self._act(self._requests.on_piece(piece))
                return
            answer = decode_answer(message.payload, request=request, user=user, content_type=content_type)
        except S2M3Error as error:
            _log.warning("bad_answer", topic=message.topic, error=str(error))
            return
        self._act(self._requests.on_answer(answer, time.monotonic()))

    def _on_route(self, task: str, doc: RouteDoc | None) -> None:
        self._act(self._requests.on_route(task, doc, time.monotonic()))

    def _on_node_state(self, node: str, state: NodeState | None) -> None:
        self._act(self._requests.on_node_state(node, state, time.monotonic()))
        if self._tell_node_state is not None:
            self._tell_node_state(node, state)

    def _on_load(self, node: str, load: NodeLoad | None) -> None:
        self._requests.on_load(node, load.queues if load else {})

    def _act(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(work):
                    self._send(work)
                case Finish(result):
                    self._finish(result)
                case EmitDelta(request, shown):
                    if (asked := self._asked.get(request)) is not None and asked.on_delta is not None:
                        asked.on_delta(shown)
                case Stop(work):
                    self._stop(work)
        self._arm()

    def _send(self, work: Work) -> None:
        asked = self._asked.get(work.request)
        if asked is not None and asked.span.traceparent is not None:
            work = replace(work, traceparent=asked.span.traceparent)
        try:
            send_work(self._link, work, partial(self._unsent, work))
        except S2M3Error as error:
            error.step = error.step or work.step
            self._loop.call(partial(self._unsent, work, error))

    def _stop(self, work: Work) -> None:
        try:
            send_stop(self._link, work)
        except S2M3Error as error:  # its node finds out at its deadline
            _log.debug("stop_unsent", request=work.request.hex(), error=str(error))

    def _unsent(self, work: Work, error: S2M3Error) -> None:
        answer = Answer(work.request, work.step, work.attempt, error=error)
        self._act(self._requests.on_answer(answer, time.monotonic()))

    def _finish(self, result: Result) -> None:
        asked = self._asked.pop(result.request, None)
        _log.debug(
            "request_done",
            task=result.task,
            request=result.request.hex(),
            error=str(result.error) if result.error else None,
            attempts=result.attempts,
            ms=round(result.latency_ms, 1),
        )
        if asked is not None:
            _count(result)
            asked.span.end(attempts=result.attempts, route=result.route, error=result.error)
            if asked.on_delta is not None and result.rest is not None:
                asked.on_delta(result.rest)
            asked.on_done(result)

    def _arm(self) -> None:
        """Keeps one timer, at the earliest time something is due."""
        due = self._requests.next_due()
        if due is None or (self._timer is not None and self._timer[0] <= due):
            return  # one that comes early finds nothing to do: cheaper than a new one for every request
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = (due, self._loop.after(max(0.0, due - time.monotonic()), self._tick))

    def _tick(self) -> None:
        self._timer = None
        self._act(self._requests.tick(time.monotonic()))


def _count(result: Result) -> None:
    """A task nobody knows is no label: anybody can ask for any name."""
    metrics.UNDER_WAY.dec()
    code = "ok" if result.error is None else result.error.code
    task = "" if code == UnknownTaskError.code else result.task
    metrics.count_request(task, code, result.attempts - 1, result.latency_ms / 1000)
