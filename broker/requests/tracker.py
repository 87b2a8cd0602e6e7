"""The requests of one requester: when to send, retry or fail each. Pure: methods take the time and return actions."""

import heapq
import itertools
import random
from collections.abc import Mapping
from typing import Any

from s2m3.broker.node_states import NodeStates
from s2m3.broker.requests.actions import Action, EmitDelta, Finish, Result, Send, TellDemand
from s2m3.broker.requests.generation_options import options_of, stops, with_generation_options
from s2m3.broker.requests.pending import Pending, inputs_of, nodes_of
from s2m3.broker.requests.routing import Backlog, Router
from s2m3.broker.requests.stream_assembler import StreamAssembler
from s2m3.broker.requests.unknown_tasks import RoutesAwaited
from s2m3.schemas.errors import BusyError, NotReadyError, RequestTimeoutError, S2M3Error, error_from_code
from s2m3.schemas.messages import NodeState, RouteDoc
from s2m3.schemas.wire.generation import Options, Piece
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Answer, Route

__all__ = ["Action", "Finish", "RequestTracker", "Result", "Send"]

#: Part of the remaining time after which the request is sent to other replicas or, without any, once more to the same.
_PATIENCE_SHARE = 0.5
#: A node that says that it computes a request (it does so each second) is left alone with it for so long.
_WORKING_S = 3.0
#: The retry delay is random, up to a bound that doubles with each failure of the request.
_BACKOFF_S = 0.05
_BACKOFF_MAX_S = 1.0
_MAX_PENDING, _SEED_BITS = 10_000, 53


class RequestTracker:
    """All requests of one requester (a client or a gateway).

    Methods that take `now` (monotonic seconds) return the actions to take at once. `next_due` says when to call `tick`.

    Args:
        reply_to: The topic for answers.
        rng: Draws retry delays and sampling seeds.
    """

    def __init__(self, reply_to: str, rng: random.Random) -> None:
        self._reply_to, self._rng = reply_to, rng
        self._pending: dict[bytes, Pending] = {}
        #: task -> its newest route document
        self.routers: dict[str, Router] = {}
        self.awaited = RoutesAwaited()
        #: task -> epoch and revision of the newest route document that arrived on this connection
        self._newest: dict[str, tuple[int, int]] = {}
        self._nodes, self._backlog = NodeStates(), Backlog()
        #: heap of (due time, tie-breaker, request id); entries may be outdated, which is checked when they are due
        self._timers: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        #: since when there is a connection; None without one
        self._up_since: float | None = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    # ---- events -----------------------------------------------------------------------------------------------

    def submit(
        self,
        request: bytes,
        task: str,
        inputs: Mapping[str, Value],
        deadline_s: float | None,
        now: float,
        *,
        options: Mapping[str, Any] | None = None,
        stream: bool = False,
    ) -> list[Action]:
        """Adds a request.

        Args:
            request: The request id, 16 bytes.
            task: Name of the task.
            inputs: Input name -> value; the task's defaults fill in missing inputs.
            deadline_s: Seconds; None for the task's deadline.
            now: Monotonic seconds.
            options: Generation options (schemas.wire.generation.Options); the task's defaults fill in missing ones.
            stream: Whether the caller wants the generated text as it is written.
        """
        deadline = None if deadline_s is None else now + deadline_s
        pending = Pending(request, task, inputs, now, deadline, options=options)
        pending.seed = self._rng.getrandbits(_SEED_BITS)
        pending.streamed = StreamAssembler() if stream else None
        if len(self._pending) >= _MAX_PENDING:
            return [self._finish(pending, now, BusyError(f"{_MAX_PENDING} requests are under way"))]
        self._pending[request] = pending
        if deadline is not None and deadline <= now:
            return [self._finish(pending, now, RequestTimeoutError("the deadline was past when the request came"))]
        return self._dispatch(pending, now)

    def is_asked(self, task: str) -> bool:
        """Returns whether any request of a task is pending."""
        return any(pending.task == task for pending in self._pending.values())

    def on_retained(self, task: str, now: float) -> None:
        """Handles that all that the broker retains has come since a task's route was subscribed to."""
        self.awaited.confirmed(task, now)
        for pending in [pending for pending in self._pending.values() if pending.task == task]:
            self._schedule(pending)

    def cancel(self, request: bytes) -> list[Action]:
        """Removes a request: its answer will be dropped, and nodes are told to stop generating its text."""
        pending = self._pending.pop(request, None)
        if pending is None:
            return []
        self._count(pending, -1)
        return stops(pending.writing)

    def on_answer(self, answer: Answer, now: float) -> list[Action]:
        """Handles an answer: only the first result from where the work was sent counts."""
        pending = self._pending.get(answer.request)
        if pending is None or not pending.is_answered_by(answer):
            return []
        if answer.error is None:
            return [self._finish(pending, now, None, answer), *stops(pending.writing, but=answer.attempt)]
        if answer.attempt != pending.attempt or pending.retry_at is not None:
            return []
        error = answer.error
        if not error.retriable:
            return [self._finish(pending, now, error)]
        pending.last_error = error
        pending.failures += 1
        if error.node is not None:
            pending.avoid.add(error.node)
        delay = min(_BACKOFF_S * 2 ** min(pending.failures, 10), _BACKOFF_MAX_S)
        pending.retry_at = now + self._rng.uniform(0, delay)
        self._schedule(pending)
        self._end_attempt(pending)
        return []

    def on_working(self, request: bytes | None, attempt: int, now: float) -> None:
        """Handles a node's notice that it computes a request: the request is not sent to other nodes meanwhile."""
        pending = self._pending.get(request or b"")
        if pending is not None and pending.route is not None and attempt == pending.attempt:
            pending.patience_ends = max(pending.patience_ends, now + _WORKING_S)

    def on_piece(self, piece: Piece) -> list[Action]:
        """Handles a piece of streamed text; returns the delta for the caller, if any."""
        pending = self._pending.get(piece.request)
        if pending is None or pending.streamed is None or piece.step not in pending.sent_along.get(piece.attempt, {}):
            return []
        shown = pending.streamed.add(piece)
        return [EmitDelta(piece.request, shown)] if shown is not None else []

    def on_route(self, task: str, doc: RouteDoc | None, now: float) -> list[Action]:
        """Handles a task's route document (None: the task was removed) and sends the requests that waited for it.

        A document older than one that arrived on the same connection is ignored: it is late, or of a planner that is
        no longer the leader. On a new connection any document is accepted first: the broker may have lost its state,
        and a planner whose clock is behind may have started there with a lower epoch.
        """
        if doc is None:
            self.routers.pop(task, None)
            self._newest.pop(task, None)
            for pending in self._pending.values():
                self._schedule(pending)
            return []
        stamp = (doc.epoch, doc.revision)
        if stamp < self._newest.get(task, stamp):
            return []
        self._newest[task] = stamp
        self.routers[task] = Router(doc)
        return self._dispatch_waiting(now, task)

    def on_link_down(self) -> None:
        """Handles a lost connection: nothing is sent, and no node counts as present until its state arrives again."""
        self._up_since = None
        self._newest.clear()
        self._nodes.forget()
        self._backlog.queued.clear()
        for pending in self._pending.values():
            pending.patience_ends = float("inf")
            pending.last_error = NotReadyError("the connection to the broker was lost")

    def on_link_up(self, now: float) -> list[Action]:
        """Handles a restored connection: answers may have been lost meanwhile, so all requests are sent again."""
        self._up_since = now
        for pending in self._pending.values():
            self._end_attempt(pending)
            self._schedule(pending)
        return self._dispatch_waiting(now)

    def on_node_state(self, node: str, state: NodeState | None, now: float) -> list[Action]:
        """Handles a node's state; if its process is gone, requests in flight there are sent to other nodes."""
        boot = self._nodes.boot(node)
        if not self._nodes.update(node, state) or state is None:
            return []
        new_process = boot not in (None, state.boot)
        if state.state != "lost" and not new_process:
            return self._dispatch_waiting(now)
        if new_process:  # it has loaded nothing yet, but the route documents still name the old process's modules
            self.routers = {task: router.without(node) for task, router in self.routers.items()}
        self._backlog.queued = {key: n for key, n in self._backlog.queued.items() if key[0] != node}
        for pending in self._pending.values():
            if pending.route is not None and any(hop.node == node for hop in pending.route.values()):
                pending.last_error = NotReadyError("the node was lost", node=node)
                self._end_attempt(pending)
        return self._dispatch_waiting(now)

    def on_load(self, node: str, queues: Mapping[str, int]) -> None:
        """Sets the queue length of each module at a node."""
        for key in [key for key in self._backlog.queued if key[0] == node]:
            del self._backlog.queued[key]
        self._backlog.queued.update({(node, module): n for module, n in queues.items()})

    def tick(self, now: float) -> list[Action]:
        """Does what is due: deadlines, retries, sending to other replicas."""
        actions: list[Action] = []
        while self._timers and self._timers[0][0] <= now:
            pending = self._pending.get(heapq.heappop(self._timers)[2])
            if pending is not None:
                if self._due(pending) <= now:
                    actions += self._handle_due(pending, now)
                if pending.request in self._pending:
                    self._schedule(pending)
        return actions

    def _handle_due(self, pending: Pending, now: float) -> list[Action]:
        if pending.deadline is not None and now >= pending.deadline:
            router = self.routers.get(pending.task)
            doc = router.doc if router else None
            return [self._finish(pending, now, pending.too_late(doc, self._nodes.lost, now))]
        if pending.retry_at is not None and now >= pending.retry_at:
            pending.retry_at = None
            return self._dispatch(pending, now)
        if pending.wake_ends is not None and now >= pending.wake_ends:
            return self._dispatch(pending, now)
        if pending.route is not None and now >= pending.patience_ends:
            return self._try_elsewhere(pending, now)
        if self._has_unknown_task(pending) and now >= pending.unknown_at(
            self.awaited.since(pending.task, self._up_since)
        ):
            return [self._finish(pending, now, pending.unknown_error(self.awaited.since(pending.task, self._up_since)))]
        return []

    def next_due(self) -> float | None:
        """Returns when to call `tick` next, monotonic seconds; None if nothing is pending."""
        while self._timers and self._timers[0][2] not in self._pending:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _schedule(self, pending: Pending) -> None:
        heapq.heappush(self._timers, (self._due(pending), next(self._order), pending.request))

    def _due(self, pending: Pending) -> float:
        patience_ends = pending.patience_ends if pending.route else None
        times = [pending.deadline, pending.retry_at, pending.wake_ends, patience_ends]
        if self._has_unknown_task(pending):
            times.append(pending.unknown_at(self.awaited.since(pending.task, self._up_since)))
        return min(time for time in times if time is not None)

    def _has_unknown_task(self, pending: Pending) -> bool:
        """Whether its task has no route document. If it was removed while an attempt is in flight, that may succeed."""
        return pending.task not in self.routers and pending.route is None

    # ---- attempts -----------------------------------------------------------------------------------------------

    def _dispatch_waiting(self, now: float, task: str | None = None) -> list[Action]:
        waiting = [p for p in self._pending.values() if p.waits and task in (None, p.task)]
        return [action for pending in waiting for action in self._dispatch(pending, now)]

    def _dispatch(self, pending: Pending, now: float) -> list[Action]:
        router = self.routers.get(pending.task)
        if router is None:
            self._schedule(pending)
            return []
        told: list[Action] = [TellDemand(pending.task)] if router.doc.asleep else []
        return told + self._dispatch_along(pending, router, now)

    def _dispatch_along(self, pending: Pending, router: Router, now: float) -> list[Action]:
        doc = router.doc
        if pending.deadline is None:
            pending.deadline = pending.started + doc.deadline_s
        if pending.waits_for_wake(doc, now):
            self._schedule(pending)
            return []
        if doc.error is not None:
            known = error_from_code(doc.error.code, doc.error.detail, step=doc.error.step, node=doc.error.node)
            return [self._finish(pending, now, known)]
        try:
            inputs, options = inputs_of(doc, pending), options_of(doc, pending)
        except S2M3Error as error:
            return [self._finish(pending, now, error)]
        route = router.choose(self._backlog, lost=self._nodes.lost, avoid=pending.avoid)
        if route is None or self._up_since is None:  # waits for a node, a new route document or the connection
            self._schedule(pending)
            return []
        return self._send(pending, doc, self._with_options(doc, route, options, pending), inputs, now)

    def _with_options(self, doc: RouteDoc, route: Route, options: Options, pending: Pending) -> Route:
        stream = pending.streamed is not None
        return with_generation_options(doc, route, options, self._nodes.protocol, stream=stream)

    def _send(
        self, pending: Pending, doc: RouteDoc, route: Route, inputs: Mapping[str, Value], now: float
    ) -> list[Action]:
        if pending.deadline is None:
            raise AssertionError("a dispatched request has a deadline")
        pending.attempt += 1
        pending.route = route
        pending.answer, pending.threshold = tuple(doc.answer), doc.threshold
        pending.patience_ends = now + (pending.deadline - now) * _PATIENCE_SHARE
        self._count(pending, +1)
        self._schedule(pending)
        return [*pending.sends(doc, inputs, self._reply_to, (pending.deadline - now) * 1000)]

    def _try_elsewhere(self, pending: Pending, now: float) -> list[Action]:
        pending.patience_ends = float("inf")
        router = self.routers.get(pending.task)
        if router is None or pending.route is None or pending.deadline is None:
            return []
        used = {hop.node for hop in pending.route.values()}
        doc = router.doc
        other = router.choose(self._backlog, lost=self._nodes.lost, avoid=pending.avoid | used)
        if other is None:
            return []
        same = nodes_of(other) == nodes_of(pending.route)
        if same and pending.repeated:
            return []
        try:
            inputs, options = inputs_of(doc, pending), options_of(doc, pending)
        except S2M3Error:  # the task's inputs have changed since; the attempt in flight may still be answered
            return []
        if same:  # the message may have been lost; if it still waits in a queue, the node runs it only once
            pending.repeated = True
        else:
            pending.avoid |= used
        self._end_attempt(pending)
        return self._send(pending, doc, self._with_options(doc, other, options, pending), inputs, now)

    def _finish(self, pending: Pending, now: float, error: S2M3Error | None, answer: Answer | None = None) -> Finish:
        self._pending.pop(pending.request, None)
        self._count(pending, -1)
        return Finish(pending.result(now, error, answer))

    def _end_attempt(self, pending: Pending) -> None:
        """Counts the attempt in flight as ended."""
        self._count(pending, -1)
        pending.route = None

    def _count(self, pending: Pending, change: int) -> None:
        for hop in (pending.route or {}).values():
            self._backlog.inflight[hop.node, hop.module] += change
