"""Sends requests and receives their answers, for clients and gateways: I/O and clock for the pure `RequestTracker`."""

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from s2m3.broker import metrics, tracing
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.requests.actions import Action, EmitDelta, Finish, Result, Send, Stop, TellDemand
from s2m3.broker.requests.demand import DemandPublisher
from s2m3.broker.requests.route_subscriptions import RouteSubscriptions
from s2m3.broker.requests.stream_assembler import TextDelta
from s2m3.broker.requests.tracker import RequestTracker
from s2m3.broker.requests.work_messages import WorkSender, send_stop
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error, UnknownTaskError
from s2m3.schemas.messages import NodeLoad, NodeState, RouteDoc
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.wire.codec import attempt_of, decode_answer, decode_piece, is_piece, is_working
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Answer, Work

__all__ = ["Dispatcher"]

_log = structlog.get_logger(__name__)
OnDone = Callable[[Result], None]
OnDelta = Callable[[TextDelta], None]


@dataclass(frozen=True, slots=True)
class _Callbacks:
    """The callbacks and the trace span of one request without an answer."""

    on_done: OnDone
    on_delta: OnDelta | None
    span: tracing.RequestSpan


class Dispatcher:
    """Dispatches the requests of one requester (a client or a gateway).

    Args:
        link: The requester's connection.
        loop: The event loop that runs the link's handlers.
        client: The requester's name: answers arrive at `client/<client>/in`.
        on_node_state: Called with the states of nodes that routes name, and of those that the owner watches
            (`RouteSubscriptions.watch`). The owner must not subscribe to them itself: a topic has one handler.
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
        self._callbacks: dict[bytes, _Callbacks] = {}
        self._sender = WorkSender(link)
        #: correlation data of an empty message to our own inbox -> what is called when it comes back
        self._probes: dict[bytes, Callable[[], None]] = {}
        self._forward_node_state = on_node_state
        self._demand = DemandPublisher(link)
        #: tasks whose subscription ends with their last request
        self._ending: set[str] = set()
        #: in the loop's thread
        self.routes = RouteSubscriptions(
            link,
            loop,
            on_route=self._on_route,
            on_state=self._on_node_state,
            on_load=self._on_load,
            on_retained=self._on_retained,
            probe=self._probe_inbox,
        )
        #: when it fires (monotonic seconds), and the timer
        self._timer: tuple[float, Timer] | None = None

    def start(self, on_ready: Callable[[], None] | None = None) -> None:
        """Subscribes to answers; to a task's route, and its nodes' states and loads, when the task is first asked.

        Args:
            on_ready: Called once answers are certain to arrive, i.e. when a message to our own inbox came back. With
                access lists, a broker may confirm a subscription and never deliver (Mosquitto's `acl_file` does).
        """
        self._link.on_connection_change(on_reconnect=self._on_reconnect, on_disconnect=self._on_disconnect)
        self._loop.call(self.routes.start)
        probe = partial(self._probe_inbox, on_ready or (lambda: None))
        self._link.subscribe(self._reply_to, self._on_answer, on_subscribed=probe)

    def _probe_inbox(self, on_back: Callable[[], None]) -> None:
        """Sends an empty message to our own inbox; `on_back` is called when it arrives, after all that came before."""
        probe = new_request_id()
        try:
            self._link.publish(Outgoing(self._reply_to, b"", correlation=probe))
        except S2M3Error as error:  # the outgoing queue is full: `on_back` will not be called
            _log.warning("inbox_probe_not_sent", topic=self._reply_to, error=str(error))
            return
        self._probes[probe] = on_back

    def follow(self, task: str) -> None:
        """Subscribes to a task's route, unless that has been done. In the loop's thread."""
        self._ending.discard(task)
        self._subscribe(task)

    def unfollow(self, task: str) -> None:
        """Ends the subscription to a task's route, after the last request that is under way. In the loop's thread."""
        self._ending.add(task)
        self._end_subscription(task)

    def _subscribe(self, task: str) -> None:
        if self.routes.follow(task):
            self._requests.awaited.subscribed(task)

    def _end_subscription(self, task: str) -> None:
        if not self._requests.is_asked(task):
            self._ending.discard(task)
            self.routes.unfollow(task)
            self._requests.awaited.forget(task)

    def _on_retained(self, task: str) -> None:
        self._requests.on_retained(task, time.monotonic())
        self._schedule_tick()

    def find(self, task: str, on_found: Callable[[bool], None]) -> None:
        """Calls back, in the loop's thread, with whether a task exists; as soon as that is known. From any thread."""
        self._loop.call(partial(self._find, task, on_found))

    def _find(self, task: str, on_found: Callable[[bool], None]) -> None:
        def found(is_there: bool) -> None:  # noqa: FBT001  # the signature of the callback
            if not is_there:
                self._end_subscription(task)
            on_found(is_there)

        self.follow(task)
        self.routes.find(task, found)

    def list_tasks(self, on_listed: Callable[[], None]) -> None:
        """Subscribes to all tasks' routes, from any thread; `on_listed` is called once those retained are known."""
        self._loop.call(partial(self.routes.list_all, on_listed))

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
        """Starts a request. May be called from any thread.

        Args:
            task: Name of the task.
            inputs: Input name -> value.
            deadline_s: Seconds until the request fails with `timeout`; None for the task's deadline.
            on_done: Called once with the result, in the loop's thread.
            request: The request id, 16 bytes, if the caller already has one.
            traceparent: W3C trace context of the caller.
            options: Generation options, for tasks that generate text.
            on_delta: Called with each delta of streamed text, in the loop's thread; the last one before `on_done`.

        Returns:
            The request id.
        """
        request = request or new_request_id()
        # the span begins here because the current trace context is that of the calling thread
        callbacks = _Callbacks(on_done, on_delta, tracing.begin_request(task, request, traceparent))
        self._loop.call(partial(self._submit, request, task, inputs, deadline_s, options, callbacks=callbacks))
        return request

    def cancel(self, request: bytes) -> None:
        """Cancels a request, from any thread: `on_done` will not be called."""
        self._loop.call(partial(self._cancel, request))

    def close(self) -> None:
        """Cancels all requests, from any thread: no `on_done` is called, and nodes stop generating their text."""
        self._loop.call(self._cancel_all)

    @property
    def under_way(self) -> int:
        """Number of requests without a result yet."""
        return len(self._requests)

    def tasks(self) -> dict[str, RouteDoc]:
        """Returns the newest route document of each known task, from any thread: all tasks after `list_tasks`."""
        return self.routes.listed | self._requests.routes

    def _submit(
        self,
        request: bytes,
        task: str,
        inputs: Mapping[str, Value],
        deadline_s: float | None,
        options: Mapping[str, Any] | None,
        *,
        callbacks: _Callbacks,
    ) -> None:
        self._callbacks[request] = callbacks
        self._subscribe(task)
        metrics.UNDER_WAY.inc()
        now, stream = time.monotonic(), callbacks.on_delta is not None
        self._execute(self._requests.submit(request, task, inputs, deadline_s, now, options=options, stream=stream))

    def _cancel(self, request: bytes) -> None:
        if self._callbacks.pop(request, None) is not None:
            metrics.UNDER_WAY.dec()
        self._execute(self._requests.cancel(request))
        for task in list(self._ending):
            self._end_subscription(task)

    def _cancel_all(self) -> None:
        for request in list(self._callbacks):
            self._cancel(request)

    def _on_disconnect(self) -> None:
        self._requests.on_link_down()
        self.routes.link_down()

    def _on_reconnect(self) -> None:
        """Sends all requests again: answers were lost while our inbox was not subscribed."""
        self._execute(self._requests.on_link_up(time.monotonic()))
        self.routes.link_up()

    def _on_answer(self, message: Message) -> None:
        if is_working(message.user):
            self._requests.on_working(message.correlation, attempt_of(message.user), time.monotonic())
            return
        if not message.payload:
            if (on_back := self._probes.pop(message.correlation or b"", None)) is not None:
                on_back()
            return
        try:
            request, user, content_type = message.correlation, message.user, message.content_type
            if is_piece(user):
                piece = decode_piece(message.payload, request=request, user=user, content_type=content_type)
                self._execute(self._requests.on_piece(piece))
                return
            answer = decode_answer(message.payload, request=request, user=user, content_type=content_type)
        except S2M3Error as error:
            _log.warning("bad_answer", topic=message.topic, error=str(error))
            return
        self._execute(self._requests.on_answer(answer, time.monotonic()))

    def _on_route(self, task: str, doc: RouteDoc | None) -> None:
        self._execute(self._requests.on_route(task, doc, time.monotonic()))

    def _on_node_state(self, node: str, state: NodeState | None) -> None:
        self._sender.on_node_state(node, state)
        self._execute(self._requests.on_node_state(node, state, time.monotonic()))
        if self._forward_node_state is not None:
            self._forward_node_state(node, state)

    def _on_load(self, node: str, load: NodeLoad | None) -> None:
        queues, keepalive_s = (load.queues, load.keepalive_s) if load else ({}, 0.0)
        self._requests.on_load(node, queues, time.monotonic(), keepalive_s)

    def _execute(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(work):
                    self._send(work)
                case Finish(result):
                    self._finish(result)
                case EmitDelta(request, delta):
                    callbacks = self._callbacks.get(request)
                    if callbacks is not None and callbacks.on_delta is not None:
                        callbacks.on_delta(delta)
                case Stop(work):
                    self._stop(work)
                case TellDemand(task):
                    self._demand.publish(task)
        self._schedule_tick()

    def _send(self, work: Work) -> None:
        callbacks = self._callbacks.get(work.request)
        if callbacks is not None and callbacks.span.traceparent is not None:
            work = replace(work, traceparent=callbacks.span.traceparent)
        try:
            self._sender.send(work, partial(self._on_send_failed, work))
        except S2M3Error as error:
            error.step = error.step or work.step
            self._loop.call(partial(self._on_send_failed, work, error))

    def _stop(self, work: Work) -> None:
        try:
            send_stop(self._link, work)
        except S2M3Error as error:  # the node stops at the deadline
            _log.debug("stop_not_sent", request=work.request.hex(), error=str(error))

    def _on_send_failed(self, work: Work, error: S2M3Error) -> None:
        answer = Answer(work.request, work.step, work.attempt, error=error)
        self._execute(self._requests.on_answer(answer, time.monotonic()))

    def _finish(self, result: Result) -> None:
        callbacks = self._callbacks.pop(result.request, None)
        _log.debug(
            "request_done",
            task=result.task,
            request=result.request.hex(),
            error=str(result.error) if result.error else None,
            attempts=result.attempts,
            ms=round(result.latency_ms, 1),
        )
        is_unknown = result.error is not None and result.error.code == UnknownTaskError.code
        if is_unknown or result.task in self._ending:
            self._end_subscription(result.task)
        if callbacks is not None:
            _count(result)
            callbacks.span.end(attempts=result.attempts, route=result.route, error=result.error)
            if callbacks.on_delta is not None and result.rest is not None:
                callbacks.on_delta(result.rest)
            callbacks.on_done(result)

    def _schedule_tick(self) -> None:
        """Keeps one timer, for the earliest time at which the tracker may have something to do."""
        due = self._requests.next_due()
        if due is None or (self._timer is not None and self._timer[0] <= due):
            return  # an early tick does nothing, and costs less than a new timer for every request
        if self._timer is not None:
            self._timer[1].cancel()
        self._timer = (due, self._loop.after(max(0.0, due - time.monotonic()), self._tick))

    def _tick(self) -> None:
        self._timer = None
        self._execute(self._requests.tick(time.monotonic()))


def _count(result: Result) -> None:
    """Counts a finished request. An unknown task's name is no metric label, as any client may send any name."""
    metrics.UNDER_WAY.dec()
    code = "ok" if result.error is None else result.error.code
    task = "" if code == UnknownTaskError.code else result.task
    metrics.count_request(task, code, result.attempts - 1, result.latency_ms / 1000)
    if result.rank and result.error is None:
        metrics.STAND_INS.labels(task, str(result.rank)).inc()
