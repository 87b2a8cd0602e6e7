"""A requester's requests: when to send what where, again, or give up. Pure: it is told the time and returns actions."""

import heapq
import itertools
import random
from collections.abc import Mapping
from typing import Any

from s2m3.broker.node_states import NodeStates
from s2m3.broker.requests.actions import Action, EmitDelta, Finish, Result, Send
from s2m3.broker.requests.generation_options import options_of, stops, with_generation_options
from s2m3.broker.requests.pending import Pending, inputs_of, nodes_of
from s2m3.broker.requests.routing import Backlog, Router
from s2m3.broker.requests.stream_assembler import StreamAssembler
from s2m3.schemas.errors import (
    BusyError,
    NotReadyError,
    RequestTimeoutError,
    S2M3Error,
    UnknownTaskError,
    error_from_code,
)
from s2m3.schemas.messages import NodeState, RouteDoc
from s2m3.schemas.wire.generation import Options, Piece
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Answer, Route

__all__ = ["Action", "Finish", "RequestTracker", "Result", "Send"]

#: How long a task's document may take to come before the task is called unknown: retained, so it is there or it is not.
_UNKNOWN_AFTER_S = 2.0
#: A request without a deadline that came while the broker was away waits so long for it.
_AWAY_S = 30.0
#: The part of the time left after which another replica is tried; where there is none, the same once more.
_PATIENCE = 0.5
_BACKOFF_S = 0.05
_BACKOFF_MAX_S = 1.0
_MAX_PENDING = 10_000
_SEED_BITS = 53


class RequestTracker:
    """All requests of one requester (a Client, or a gateway).

    Every method takes the time (monotonic seconds) and returns what to do now. `next_due` says when to call `tick`.

    Args:
        reply_to: Where answers are to go.
        rng: Spreads the retries.
    """

    def __init__(self, reply_to: str, rng: random.Random) -> None:
        self._reply_to = reply_to
        self._rng = rng
        self._pending: dict[bytes, Pending] = {}
        self._routers: dict[str, Router] = {}
        #: task -> epoch and revision of the newest document that came over this connection
        self._newest: dict[str, tuple[int, int]] = {}
        self._nodes = NodeStates()
        self._backlog = Backlog()
        #: when to look at which request; entries that are out of date are seen to when they come up
        self._agenda: list[tuple[float, int, bytes]] = []
        self._order = itertools.count()
        #: since when the broker is there; None while it is away
        self._up_since: float | None = 0.0

    def __len__(self) -> int:
        return len(self._pending)

    # ---- what the owner tells ---------------------------------------------------------------------------------

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
        """Takes a new request in.

        Args:
            request: Its id, 16 bytes.
            task: Name.
            inputs: What was given; the task's defaults fill in.
            deadline_s: Seconds; None takes the task's.
            now: Monotonic seconds.
            options: How text is to be written (schemas.generation.Options); the task's own fill in.
            stream: Whether the caller wants to see the text while it is written.
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

    def cancel(self, request: bytes) -> list[Action]:
        """Forgets a request: its answer will be dropped, and what is being written for it stops."""
        pending = self._pending.pop(request, None)
        if pending is None:
            return []
        self._count(pending, -1)
        return stops(pending.writing)

    def on_answer(self, answer: Answer, now: float) -> list[Action]:
        """Takes in an answer: the first result ends the request, duplicates and stale errors are dropped."""
        pending = self._pending.get(answer.request)
        if pending is None:
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
        self._note(pending)
        self._take_back(pending)
        return []

    def on_piece(self, piece: Piece) -> list[Action]:
        """Takes in a part of a text; returns what is to be shown of it."""
        pending = self._pending.get(piece.request)
        if pending is None or pending.streamed is None or piece.attempt > pending.attempt:
            return []
        shown = pending.streamed.add(piece)
        return [EmitDelta(piece.request, shown)] if shown is not None else []

    def on_route(self, task: str, doc: RouteDoc | None, now: float) -> list[Action]:
        """Takes in a task's document (None: the task was removed) and sends what waited for it.

        One that is older than what came before it over the same connection is refused: of a planner that another has
        replaced, or late. A new connection begins anew: its broker may have forgotten everything, and a planner whose
        clock is behind may have begun again there.
        """
        if doc is None:
            self._routers.pop(task, None)
            self._newest.pop(task, None)
            for pending in self._pending.values():
                self._note(pending)
            return []
        stamp = (doc.epoch, doc.revision)
        if stamp < self._newest.get(task, stamp):
            return []
        self._newest[task] = stamp
        self._routers[task] = Router(doc)
        return self._dispatch_waiting(now, task)

    def on_link_down(self) -> None:
        """The broker is away: nothing is sent, and no node is taken to be there until it is heard of again."""
        self._up_since = None
        self._newest.clear()
        self._nodes.forget()
        self._backlog.queued.clear()
        for pending in self._pending.values():
            pending.patience_ends = float("inf")
            pending.last_error = NotReadyError("the connection to the broker was lost")

    def on_link_up(self, now: float) -> list[Action]:
        """Our inbox is open again: whatever was sent before may have been answered into the void, so all goes again."""
        self._up_since = now
        for pending in self._pending.values():
            self._take_back(pending)
            self._note(pending)
        return self._dispatch_waiting(now)

    def on_node_state(self, node: str, state: NodeState | None, now: float) -> list[Action]:
        """Takes in a node's state; when its process is gone, everything under way there is sent elsewhere."""
        boot = self._nodes.boot(node)
        if not self._nodes.update(node, state) or state is None:
            return []
        new_process = boot not in (None, state.boot)
        if state.state != "lost" and not new_process:
            return self._dispatch_waiting(now)
        if new_process:  # it serves nothing yet, whatever the documents of its last life say
            self._routers = {task: Router(_without(router.doc, node)) for task, router in self._routers.items()}
        self._backlog.queued = {key: n for key, n in self._backlog.queued.items() if key[0] != node}
        for pending in self._pending.values():
            if pending.route is not None and any(hop.node == node for hop in pending.route.values()):
                pending.last_error = NotReadyError("the node was lost", node=node)
                self._take_back(pending)
        return self._dispatch_waiting(now)

    def on_load(self, node: str, queues: Mapping[str, int]) -> None:
        """Takes in what waits at a node."""
        for key in [key for key in self._backlog.queued if key[0] == node]:
            del self._backlog.queued[key]
        self._backlog.queued.update({(node, module): n for module, n in queues.items()})

    def tick(self, now: float) -> list[Action]:
        """Does what is due: deadlines, retries, other replicas."""
        actions: list[Action] = []
        while self._agenda and self._agenda[0][0] <= now:
            pending = self._pending.get(heapq.heappop(self._agenda)[2])
            if pending is not None:
                if self._due(pending) <= now:
                    actions += self._look_at(pending, now)
                if pending.request in self._pending:
                    self._note(pending)
        return actions

    def _look_at(self, pending: Pending, now: float) -> list[Action]:
        if pending.deadline is not None and now >= pending.deadline:
            router = self._routers.get(pending.task)
            doc = router.doc if router else None
            return [self._finish(pending, now, pending.too_late(doc, self._nodes.lost, now))]
        if pending.retry_at is not None and now >= pending.retry_at:
            pending.retry_at = None
            return self._dispatch(pending, now)
        if pending.route is not None and now >= pending.patience_ends:
            return self._try_elsewhere(pending, now)
        if self._is_unheard_of(pending) and now >= self._unknown_at(pending):
            return [self._finish(pending, now, self._unknown(pending))]
        return []

    def next_due(self) -> float | None:
        """Returns when `tick` may have something to do; None when nothing is pending."""
        while self._agenda and self._agenda[0][2] not in self._pending:
            heapq.heappop(self._agenda)
        return self._agenda[0][0] if self._agenda else None

    def _note(self, pending: Pending) -> None:
        heapq.heappush(self._agenda, (self._due(pending), next(self._order), pending.request))

    def _due(self, pending: Pending) -> float:
        times = [pending.deadline, pending.retry_at, pending.patience_ends if pending.route else None]
        if self._is_unheard_of(pending):
            times.append(self._unknown_at(pending))
        return min(time for time in times if time is not None)

    def _is_unheard_of(self, pending: Pending) -> bool:
        """No task of its name; one that was removed while the request was under way may still answer it."""
        return pending.task not in self._routers and pending.route is None

    def _unknown_at(self, pending: Pending) -> float:
        if self._up_since is None:
            return pending.started + _AWAY_S
        return max(pending.started, self._up_since) + _UNKNOWN_AFTER_S

    def _unknown(self, pending: Pending) -> S2M3Error:
        if self._up_since is None:
            return NotReadyError(f"the broker is away, and what {pending.task!r} takes is not known")
        return UnknownTaskError(f"no task {pending.task!r} is known")

    # ---- inside -------------------------------------------------------------------------------------------------

    def _dispatch_waiting(self, now: float, task: str | None = None) -> list[Action]:
        waiting = [p for p in self._pending.values() if p.waits and task in (None, p.task)]
        return [action for pending in waiting for action in self._dispatch(pending, now)]

    def _dispatch(self, pending: Pending, now: float) -> list[Action]:
        router = self._routers.get(pending.task)
        if router is None:
            self._note(pending)
            return []
        doc = router.doc
        if pending.deadline is None:
            pending.deadline = pending.started + doc.deadline_s
        if doc.error is not None:
            known = error_from_code(doc.error.code, doc.error.detail, step=doc.error.step, node=doc.error.node)
            return [self._finish(pending, now, known)]
        try:
            inputs, options = inputs_of(doc, pending), options_of(doc, pending)
        except S2M3Error as error:
            return [self._finish(pending, now, error)]
        route = router.choose(self._backlog, lost=self._nodes.lost, avoid=pending.avoid)
        if route is None or self._up_since is None:  # waits for a node, a document or the broker, until the deadline
            self._note(pending)
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
        pending.answer = tuple(doc.answer)
        pending.patience_ends = now + (pending.deadline - now) * _PATIENCE
        self._count(pending, +1)
        self._note(pending)
        return [*pending.sends(doc, inputs, self._reply_to, (pending.deadline - now) * 1000)]

    def _try_elsewhere(self, pending: Pending, now: float) -> list[Action]:
        pending.patience_ends = float("inf")
        router = self._routers.get(pending.task)
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
        except S2M3Error:  # the task takes other inputs by now: what is under way may still answer
            return []
        if same:  # what was sent may have met nobody; where it only waits in a queue, the node runs it once
            pending.repeated = True
        else:
            pending.avoid |= used
        self._take_back(pending)
        return self._send(pending, doc, self._with_options(doc, other, options, pending), inputs, now)

    def _finish(self, pending: Pending, now: float, error: S2M3Error | None, answer: Answer | None = None) -> Finish:
        self._pending.pop(pending.request, None)
        self._count(pending, -1)
        return Finish(pending.result(now, error, answer))

    def _take_back(self, pending: Pending) -> None:
        """Counts it as under way no more."""
        self._count(pending, -1)
        pending.route = None

    def _count(self, pending: Pending, change: int) -> None:
        for hop in (pending.route or {}).values():
            self._backlog.inflight[hop.node, hop.module] += change


def _without(doc: RouteDoc, node: str) -> RouteDoc:
    steps = {
        name: step.model_copy(update={"replicas": [r for r in step.replicas if r.node != node]})
        for name, step in doc.steps.items()
    }
    return doc.model_copy(update={"steps": steps})
