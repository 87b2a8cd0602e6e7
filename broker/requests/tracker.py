"""The requests of one requester: when to send, retry or fail each. Pure: methods take the time and return actions."""

import heapq
import itertools
import random
from collections.abc import Mapping
from typing import Any

from s2m3.broker.requests.actions import Action, EmitDelta, Finish, Result, Send, TellDemand
from s2m3.broker.requests.generation_options import Given, given_of, stops
from s2m3.broker.requests.pending import Pending, nodes_of
from s2m3.broker.requests.ranks import Chosen, may_go_down
from s2m3.broker.requests.routing_table import RoutingTable
from s2m3.broker.requests.stream_assembler import StreamAssembler
from s2m3.broker.requests.unknown_tasks import RoutesAwaited
from s2m3.schemas.errors import BusyError, NotReadyError, RequestTimeoutError, S2M3Error, error_from_code
from s2m3.schemas.messages import NodeState, RouteDoc
from s2m3.schemas.wire.generation import Piece
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Answer

__all__ = ["Action", "Finish", "RequestTracker", "Result", "Send"]

#: Part of the remaining time after which the request is sent to other replicas or, without any, once more to the same.
_PATIENCE_SHARE = 0.5
#: A request is sent nowhere else for this long after its node reported, as it does each second, that it computes it.
_WORKING_S = 3.0
#: The retry delay is random, up to a bound that doubles with each failure of the request.
_BACKOFF_S, _BACKOFF_MAX_S = 0.05, 1.0
_MAX_PENDING, _SEED_BITS = 10_000, 53
#: A call of `tick` that is so late means that this process slept, and has not read the heartbeats that came meanwhile.
_FROZEN_S = 1.0


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
        self._table, self.awaited = RoutingTable(), RoutesAwaited()
        #: heap of (due time, tie-breaker, request id); entries may be outdated, which is checked when they are due
        self._timers: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        #: since when there is a connection; None without one
        self._up_since: float | None = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def routes(self) -> dict[str, RouteDoc]:
        """The newest route document of each task."""
        return {task: router.doc for task, router in self._table.routers.copy().items()}

    def _doc(self, pending: Pending) -> RouteDoc | None:
        return router.doc if (router := self._table.routers.get(pending.task)) is not None else None

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
        """Handles the end of the retained messages that followed the subscription to a task's route."""
        self.awaited.confirmed(task, now)
        for pending in [pending for pending in self._pending.values() if pending.task == task]:
            self._schedule(pending)

    def cancel(self, request: bytes) -> list[Action]:
        """Removes a request: its answer will be dropped, and nodes are told to drop its work and to stop its text."""
        pending = self._pending.pop(request, None)
        if pending is None:
            return []
        self._count(pending, -1)
        return stops(pending.works)

    def on_answer(self, answer: Answer, now: float) -> list[Action]:
        """Handles an answer: only the first result from where the work was sent counts."""
        pending = self._pending.get(answer.request)
        if pending is None or not pending.is_answered_by(answer):
            return []
        if answer.error is None:
            return [self._finish(pending, now, None, answer), *stops(pending.works, but=answer.attempt)]
        if answer.attempt != pending.attempt or pending.retry_at is not None:
            return []
        error = answer.error
        if error.node is not None:
            pending.avoid.add(error.node)
        if may_go_down(error, now, pending.busy_until) and not self._table.has_other_replica(pending, now):
            pending.last_error = error
            if actions := self._go_down(pending, now):
                return actions
        if not error.retriable:
            return [self._finish(pending, now, error)]
        pending.last_error = error
        pending.failures += 1
        delay = min(_BACKOFF_S * 2 ** min(pending.failures, 10), _BACKOFF_MAX_S)
        pending.retry_at = now + self._rng.uniform(0, delay)
        self._schedule(pending)
        self._end_attempt(pending)
        return []

    def on_working(self, request: bytes | None, attempt: int, now: float) -> None:
        """Handles a node's notice that it computes a request: the request is not sent to other nodes meanwhile."""
        pending = self._pending.get(request or b"")
        if pending is not None and pending.route is not None and attempt == pending.attempt:
            pending.extend_patience(now + _WORKING_S)

    def on_piece(self, piece: Piece) -> list[Action]:
        """Handles a piece of streamed text; returns the delta for the caller, if any."""
        pending = self._pending.get(piece.request)
        if pending is None or pending.streamed is None or piece.step not in pending.sent_along.get(piece.attempt, {}):
            return []
        shown = pending.streamed.add(piece)
        return [EmitDelta(piece.request, shown)] if shown is not None else []

    def on_route(self, task: str, doc: RouteDoc | None, now: float) -> list[Action]:
        """Handles a task's route document (None: the task was removed) and sends the requests that waited for it."""
        is_used = self._table.take_route(task, doc)
        for pending in self._pending.values() if doc is None else ():
            self._schedule(pending)
        return self._dispatch_waiting(now, task) if is_used and doc is not None else []

    def on_link_down(self) -> None:
        """Handles a lost connection: nothing is sent, and no node counts as present until its state arrives again."""
        self._up_since = None
        self._table.link_down()
        for pending in self._pending.values():
            pending.patience_ends = float("inf")
            pending.last_error = NotReadyError("the connection to the broker was lost")

    def on_link_up(self, now: float) -> list[Action]:
        """Handles a restored connection: answers may have been lost meanwhile, so all requests are sent again."""
        self._up_since = now
        self._table.reach.excuse(now)
        for pending in self._pending.values():
            self._end_attempt(pending)
            self._schedule(pending)
        return self._dispatch_waiting(now)

    def on_node_state(self, node: str, state: NodeState | None, now: float) -> list[Action]:
        """Handles a node's state; if its process is gone, requests in flight there are sent to other nodes."""
        is_new, is_gone = self._table.take_node(node, state)
        for pending in self._pending.values() if is_gone else ():
            if pending.route is not None and any(hop.node == node for hop in pending.route.values()):
                pending.last_error = NotReadyError("the node was lost", node=node)
                self._end_attempt(pending)
        return self._dispatch_waiting(now) if is_new else []

    def on_load(self, node: str, queues: Mapping[str, int], now: float = 0.0, keepalive_s: float = 0.0) -> None:
        """Sets the queue length of each module at a node, and notes its heartbeat; a keepalive of 0 is unknown."""
        self._table.take_load(node, queues)
        self._table.reach.heard(node, keepalive_s, now)

    def tick(self, now: float) -> list[Action]:
        """Does what is due: deadlines, retries, sending to other replicas."""
        actions: list[Action] = []
        if self._up_since is not None and self._timers and self._timers[0][0] < now - _FROZEN_S:
            self._table.reach.excuse(now)
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
            doc = self._doc(pending)
            return [self._finish(pending, now, pending.too_late(doc, self._table.nodes.lost, now))]
        if pending.is_to_be_sent(now):
            return self._dispatch(pending, now)
        if now >= pending.rank_ends:
            pending.rank_ends = float("inf")
            return self._go_down(pending, now)
        if pending.route is not None and now >= min(pending.silence_ends, pending.patience_ends):
            pending.silence_ends = self._table.reach.next_silence(nodes_of(pending.route).values(), now)
            return self._try_elsewhere(pending, now, only_heard=now < pending.patience_ends)
        since = self.awaited.since(pending.task, self._up_since)
        if self._has_unknown_task(pending) and now >= pending.unknown_at(since):
            return [self._finish(pending, now, pending.unknown_error(since))]
        return []

    def next_due(self) -> float | None:
        """Returns when to call `tick` next, monotonic seconds; None if nothing is pending."""
        while self._timers and self._timers[0][2] not in self._pending:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    def _schedule(self, pending: Pending) -> None:
        heapq.heappush(self._timers, (self._due(pending), next(self._order), pending.request))

    def _due(self, pending: Pending) -> float:
        patience_ends = min(pending.patience_ends, pending.silence_ends) if pending.route else None
        times = [pending.deadline, pending.retry_at, pending.wake_ends, pending.rank_ends, patience_ends]
        if self._has_unknown_task(pending):
            times.append(pending.unknown_at(self.awaited.since(pending.task, self._up_since)))
        return min(time for time in times if time is not None)

    def _has_unknown_task(self, pending: Pending) -> bool:
        """Whether its task has no route document. If it was removed while an attempt is in flight, that may succeed."""
        return pending.task not in self._table.routers and pending.route is None

    # ---- attempts -----------------------------------------------------------------------------------------------

    def _dispatch_waiting(self, now: float, task: str | None = None) -> list[Action]:
        waiting = [p for p in self._pending.values() if p.waits and task in (None, p.task)]
        return [action for pending in waiting for action in self._dispatch(pending, now)]

    def _dispatch(self, pending: Pending, now: float) -> list[Action]:
        doc = self._doc(pending)
        if doc is None:
            pending.ends_wait(now)
            self._schedule(pending)
            return []
        actions: list[Action] = [TellDemand(pending.task)] if doc.asleep else []
        return actions + self._dispatch_along(pending, doc, now)

    def _dispatch_along(self, pending: Pending, doc: RouteDoc, now: float) -> list[Action]:
        if pending.deadline is None:
            pending.deadline = pending.started + doc.deadline_s
        if pending.waits_for_wake(doc, now):
            self._schedule(pending)
            return []
        if doc.error is not None:
            known = error_from_code(doc.error.code, doc.error.detail, step=doc.error.step, node=doc.error.node)
            return [self._finish(pending, now, known)]
        try:
            given = given_of(doc, pending, doc)
            chosen = self._table.choose(pending, now)
            if chosen is not None and chosen.doc.rank != doc.rank:
                given = given_of(doc, pending, chosen.doc)
        except S2M3Error as error:
            return [self._finish(pending, now, error)]
        if chosen is None or self._up_since is None:  # waits for a node, a new route document or the connection
            self._schedule(pending)
            return []
        return self._send(pending, chosen, given, now)

    def _send(self, pending: Pending, chosen: Chosen, given: Given, now: float) -> list[Action]:
        """Sends a request along a route."""
        if pending.deadline is None:
            raise AssertionError("a dispatched request has a deadline")
        (inputs, options), pending.rank = given, chosen.doc.rank
        left = pending.deadline - now
        if pending.is_new_here:
            pending.rank_ends, pending.busy_until = float("inf"), now + left * _PATIENCE_SHARE
        if pending.rank_ends == float("inf") and (reserve := self._table.reserve_s(pending, left)):
            pending.rank_ends = pending.deadline - reserve
        pending.attempt += 1
        pending.route = self._table.with_options(chosen, options, stream=pending.streamed is not None)
        pending.patience_ends = now + left * _PATIENCE_SHARE
        pending.silence_ends = self._table.reach.next_silence(chosen.nodes, now)
        self._count(pending, +1)
        self._schedule(pending)
        ms_left = (min(pending.deadline, pending.rank_ends) - now) * 1000
        return [*pending.sends(chosen.doc, inputs, self._reply_to, ms_left)]

    def _try_elsewhere(self, pending: Pending, now: float, *, only_heard: bool) -> list[Action]:
        """Sends a request without an answer elsewhere, or unless `only_heard` once more to nodes that it had left."""
        if not only_heard:
            pending.patience_ends = float("inf")
        find = self._table.heard_elsewhere if only_heard else self._table.elsewhere
        doc, other = self._doc(pending), find(pending, now)
        if doc is None or other is None or pending.route is None or self._up_since is None:
            return []
        left_out = set(nodes_of(pending.route).values()) - other.nodes
        is_again = not left_out - pending.avoid
        if is_again and pending.repeated and not only_heard:
            return []
        try:
            given = given_of(doc, pending, other.doc)
        except S2M3Error:  # the task's inputs have changed since; the attempt in flight may still be answered
            return []
        pending.repeated |= is_again  # its message may have been lost; a node that has it in a queue runs it once
        pending.avoid |= left_out & self._table.reach.silent(now) if only_heard else left_out
        self._end_attempt(pending)
        return self._send(pending, other, given, now)

    def _go_down(self, pending: Pending, now: float) -> list[Action]:
        """Sends a request to the best model below its rank that has a route; [] if there is none."""
        doc, lower = self._doc(pending), self._table.below(pending, now)
        if doc is None or lower is None or self._up_since is None:
            return []
        try:
            given = given_of(doc, pending, lower.doc)
        except S2M3Error:  # as in `_try_elsewhere`
            return []
        pending.retry_at = None
        self._end_attempt(pending)
        return self._send(pending, lower, given, now)

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
            self._table.backlog.inflight[hop.node, hop.module] += change
