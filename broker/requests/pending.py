"""The state of one request without an answer yet, and the result that it ends with. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s2m3.broker.requests.abstention import with_abstention
from s2m3.broker.requests.actions import Result, Send
from s2m3.broker.requests.stream_assembler import StreamAssembler
from s2m3.schemas.errors import BadInputError, NotReadyError, RequestTimeoutError, S2M3Error, UnknownTaskError
from s2m3.schemas.messages import RouteDoc
from s2m3.schemas.wire.plain import ignored_keys, read_inputs
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Answer, Route, Work, following

__all__ = ["Pending", "inputs_of", "nodes_of"]

#: A task without a retained route document this long after the subscription does not exist.
_UNKNOWN_AFTER_S = 2.0
#: Longest wait of a request without a deadline that was submitted while the connection was down.
_DISCONNECTED_S = 30.0
#: Number of the last attempts of a request that may answer it, and that are told to stop.
_ATTEMPTS_KEPT = 16


@dataclass(slots=True)
class Pending:
    """A request that is in flight, or waits for its route document, a ready node or its next attempt."""

    request: bytes
    task: str
    given: Mapping[str, Value]
    started: float
    #: None if the caller named none and the task's route document has not arrived yet
    deadline: float | None
    attempt: int = 0
    #: the route of the attempt in flight; None if none is
    route: Route | None = None
    #: the rank of the newest attempt: the request does not go to a better one by itself
    rank: int = 0
    #: until when this rank is retried while its queues are full, and when the next rank takes over
    busy_until: float = float("inf")
    rank_ends: float = float("inf")
    patience_ends: float = float("inf")
    #: when one of the route's nodes is silent, unless it is heard until then
    silence_ends: float = float("inf")
    retry_at: float | None = None
    #: until when it waits for a sleeping node; None if it does not
    wake_ends: float | None = None
    last_error: S2M3Error | None = None
    avoid: set[str] = field(default_factory=set)
    failures: int = 0
    #: whether it was sent again to the same nodes, for want of an answer and of other nodes
    repeated: bool = False
    #: the caller's generation options
    options: Mapping[str, Any] | None = None
    #: seed of token sampling, equal for all attempts, so that each generates the same text
    seed: int = 0
    #: the streamed text so far; None if the caller does not stream
    streamed: StreamAssembler | None = None
    #: keys in the request's inputs that are ignored
    ignored: tuple[str, ...] = ()
    #: attempt -> the route that it was sent along: only its nodes answer; of the last attempts
    sent_along: dict[int, Route] = field(default_factory=dict)
    #: attempt -> the route document of the model that it was sent to; of the last attempts
    models: dict[int, RouteDoc] = field(default_factory=dict)
    #: attempt -> its work, without step and inputs, to be stopped when the result is not needed any more
    works: dict[int, Work] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether the request is to be sent as soon as a route exists."""
        return self.route is None and self.retry_at is None

    def waits_for_wake(self, doc: RouteDoc, now: float) -> bool:
        """Returns whether the request waits for a sleeping node; its deadline counts from the end of that wait."""
        wait_s = (self.options or {}).get("wait_s")
        if self.deadline is None or not isinstance(wait_s, int | float):
            return False
        if doc.asleep and now < self.started + wait_s:
            if self.wake_ends is None:
                self.wake_ends = self.started + wait_s
                self.deadline += wait_s
            return True
        self.ends_wait(now)
        return False

    def ends_wait(self, now: float) -> None:
        """Ends the wait for a sleeping node: the rest of it does not count for the deadline."""
        if self.wake_ends is not None and self.deadline is not None:
            self.deadline -= self.wake_ends - min(now, self.wake_ends)
            self.wake_ends = None

    def is_to_be_sent(self, now: float) -> bool:
        """Returns whether the pause before its next attempt, or its wait for a sleeping node, is over now."""
        is_paused = self.retry_at is None or now < self.retry_at
        self.retry_at = self.retry_at if is_paused else None
        return not is_paused or (self.wake_ends is not None and now >= self.wake_ends)

    def extend_patience(self, until: float) -> None:
        """Keeps the request where it is until some time at least."""
        self.patience_ends, self.silence_ends = max(self.patience_ends, until), max(self.silence_ends, until)

    @property
    def is_new_here(self) -> bool:
        """Whether the next attempt is the first at its rank."""
        newest = self.models.get(self.attempt)
        return newest is None or newest.rank != self.rank

    def sends(self, doc: RouteDoc, inputs: Mapping[str, Value], reply_to: str, ms_left: float) -> list[Send]:
        """Returns the messages of this attempt: one for each step that takes raw inputs."""
        route = self.route or {}
        for by_attempt in (self.sent_along, self.works, self.models):
            by_attempt.pop(self.attempt - _ATTEMPTS_KEPT, None)
        self.sent_along[self.attempt], self.models[self.attempt] = route, doc
        self.works[self.attempt] = self._work(doc, "", {}, reply_to, ms_left)
        taken = {
            step: {port: inputs[ref[6:]] for port, ref in hop.inputs.items() if ref.startswith("input.")}
            for step, hop in route.items()
        }
        return [Send(self._work(doc, step, given, reply_to, ms_left)) for step, given in taken.items() if given]

    def _work(self, doc: RouteDoc, step: str, inputs: Mapping[str, Value], reply_to: str, ms_left: float) -> Work:
        return Work(
            request=self.request,
            task=self.task,
            step=step,
            attempt=self.attempt,
            epoch=doc.epoch,
            reply_to=reply_to,
            inputs=inputs,
            route=self.route or {},
            ms_left=ms_left,
        )

    def is_answered_by(self, answer: Answer) -> bool:
        """Whether an answer is of an attempt and a step that was sent, and a result of the route's last step and node.

        A login that may send work, and knows the id of another's request, could make an agent answer that request. The
        timing that each agent adds names the node.
        """
        route = self.sent_along.get(answer.attempt, {})
        hop = route.get(answer.step)
        if hop is None or answer.error is not None:
            return hop is not None
        timing = answer.timings.get(answer.step)
        return not following(route, answer.step) and (timing is None or timing.node == hop.node)

    def unknown_at(self, up_since: float | None) -> float:
        """Returns when the request's task counts as unknown, if it has no route document until then.

        Args:
            up_since: Since when there is a connection; None without one.
        """
        if up_since is None:
            return self.started + _DISCONNECTED_S
        return max(self.started, up_since) + _UNKNOWN_AFTER_S

    def unknown_error(self, up_since: float | None) -> S2M3Error:
        """Returns the error of a request whose task has no route document."""
        if up_since is None:
            return NotReadyError(f"the broker is away, and what {self.task!r} takes is not known")
        return UnknownTaskError(f"no task {self.task!r} is known")

    def too_late(self, doc: RouteDoc | None, lost: frozenset[str], now: float) -> S2M3Error:
        """Returns the error of a request whose deadline has passed: a time-out, its last error, or what was missing."""
        waited = f"{now - self.started:.1f} s"
        if self.route is not None:
            where = ", ".join(f"{step} on {hop.node}" for step, hop in self.route.items())
            step, hop = next(iter(self.route.items()))
            if len(self.route) == 1:
                return RequestTimeoutError(f"no answer after {waited} from {where}", step=step, node=hop.node)
            return RequestTimeoutError(f"no answer after {waited} from {where}")
        if self.last_error is not None:
            return self.last_error
        if doc is None:
            return UnknownTaskError(f"no task {self.task!r} is known after {waited}")
        missing = [name for name, step in doc.steps.items() if not {r.node for r in step.replicas} - lost]
        return NotReadyError(
            f"after {waited} no node is ready for {', '.join(missing)}", step=missing[0] if missing else None
        )

    def result(self, now: float, error: S2M3Error | None, answer: Answer | None) -> Result:
        """Returns the caller's result, including the last delta of a streamed text."""
        doc = self.models.get(self.attempt if answer is None else answer.attempt)
        names, threshold = (tuple(doc.answer), doc.threshold) if doc is not None else ((), None)
        text = answer.outputs.get(names[0]) if answer is not None and names else None
        rest = self.streamed.end(text) if self.streamed is not None and isinstance(text, str) else None
        return Result(
            request=self.request,
            task=self.task,
            attempts=max(1, self.attempt),
            latency_ms=(now - self.started) * 1000,
            error=error,
            model=doc.model if doc is not None else "",
            rank=doc.rank if doc is not None else 0,
            answer=names,
            outputs=with_abstention(answer.outputs, names[0], threshold) if answer else {},
            timings=answer.timings if answer else {},
            route=nodes_of(self.route) if self.route else {},
            rest=rest,
            ignored=self.ignored,
        )


def inputs_of(doc: RouteDoc, pending: Pending, rank: int = 0) -> dict[str, Value]:
    """Returns the request's validated inputs with the task's defaults, and notes which keys in them are ignored.

    Args:
        doc: The task's route document.
        pending: The request.
        rank: The model that gets the inputs. One below the best gets those of the request that it takes, and the
            document's values of those that do not come from the request.

    Raises:
        BadInputError: An input is unknown, of the wrong kind, or missing.
    """
    inputs = read_inputs(doc.task_inputs, pending.given, doc.defaults)
    pending.ignored = ignored_keys(doc.task_inputs, pending.given)
    steps = doc.steps
    if doc.ranks:
        model = doc.ranks[min(rank, len(doc.ranks) - 1)]  # the task may have had more
        steps, passed = model.steps, model.inputs.keys() - model.fixed.keys()
        given = {name: value for name, value in inputs.items() if name in passed}
        inputs = read_inputs(model.inputs, given, {**doc.defaults, **model.fixed})
    refs = (ref for step in steps.values() for ref in step.inputs.values())
    taken = (ref.removeprefix("input.") for ref in refs if ref.startswith("input."))
    if (missing := next((name for name in taken if name not in inputs), None)) is not None:
        raise BadInputError(f"input {missing!r} is missing")
    return inputs


def nodes_of(route: Route) -> dict[str, str]:
    """Returns step -> node."""
    return {step: hop.node for step, hop in route.items()}
