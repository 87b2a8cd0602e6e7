"""Joins: collects the inputs of a request's step until all have arrived. Pure: callers pass the time."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from s2m3.agents.serving.payloads import payload_bytes
from s2m3.schemas.errors import BusyError, RequestTimeoutError
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import PassedOn, Timing, Work

__all__ = ["Joins", "Late"]

#: A join times out earlier than its requester, by this part of the remaining time, so that the requester still receives
#: the error that names the missing step.
_MARGIN = 0.1
_MARGIN_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Late:
    """A join whose deadline passed: its newest message, and the error that names the missing steps."""

    work: Work
    error: RequestTimeoutError


@dataclass(slots=True)
class _Waiting:
    newest: Work
    since: float
    #: when the join times out, and when its requester does
    deadline: float
    ends: float
    inputs: dict[str, Value] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    rounded: frozenset[str] = frozenset()
    passed_on: PassedOn | None = None
    nbytes: int = 0


class Joins:
    """Joins by request and step.

    The first value of each input is kept, from whichever attempt; a step runs once per attempt; messages of an attempt
    that has already run are dropped. Finished steps are remembered until their deadline.

    Args:
        bound: Most joins that may wait.
        node: This node's name, for errors.
    """

    def __init__(self, bound: int, node: str) -> None:
        self._bound = bound
        self._node = node
        self._waiting: dict[tuple[bytes, str], _Waiting] = {}
        #: bytes of their inputs, counted as they come: this is asked for with each message
        self._nbytes = 0
        self._ran: dict[tuple[bytes, str], tuple[int, float]] = {}
        #: heap of (time at which a finished step may be forgotten, its key)
        self._ends: list[tuple[float, tuple[bytes, str]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def remembered(self) -> int:
        """Number of finished steps that are remembered."""
        return len(self._ran)

    def waiting_bytes(self) -> int:
        """Returns the bytes of the inputs of all joins that wait."""
        return self._nbytes

    def add(self, work: Work, now: float) -> Work | None:
        """Adds a message; returns the complete work, or None while an input is missing or if the attempt has run.

        Raises:
            BusyError: The bound of waiting joins is reached.
        """
        key = (work.request, work.step)
        ran = self._ran.get(key)
        if ran is not None and work.attempt <= ran[0]:
            return None
        waiting = self._waiting.get(key)
        if waiting is None and not work.hop.inputs.keys() - work.inputs.keys():  # all inputs are in one message
            self._remember(key, work.attempt, now + max(work.ms_left, 0.0) / 1000)
            return work
        if waiting is None:
            if len(self._waiting) >= self._bound:
                raise BusyError(f"{self._bound} requests wait for a branch", step=work.step, node=self._node)
            seconds = max(work.ms_left, 0.0) / 1000
            deadline = now + seconds - min(seconds * _MARGIN, _MARGIN_MAX_S)
            waiting = self._waiting[key] = _Waiting(work, now, deadline, now + seconds)
        elif work.attempt > waiting.newest.attempt:
            waiting.newest = work
        new = {name: value for name, value in work.inputs.items() if name not in waiting.inputs}
        waiting.inputs |= new
        waiting.rounded |= work.rounded & new.keys()
        nbytes = payload_bytes(new)
        waiting.nbytes, self._nbytes = waiting.nbytes + nbytes, self._nbytes + nbytes
        waiting.timings.update(work.timings)
        if work.passed_on is not None:
            waiting.passed_on = work.passed_on if waiting.passed_on is None else waiting.passed_on | work.passed_on
        wanted = waiting.newest.hop.inputs
        if wanted.keys() - waiting.inputs.keys():
            return None
        self._pop(key)
        self._remember(key, waiting.newest.attempt, waiting.deadline)
        inputs = {name: waiting.inputs[name] for name in wanted}
        left = max(0.0, (waiting.ends - now) * 1000)
        return replace(
            waiting.newest,
            inputs=inputs,
            timings=waiting.timings,
            ms_left=left,
            passed_on=waiting.passed_on,
            rounded=waiting.rounded,
        )

    def cancel(self, request: bytes, step: str, attempt: int, until: float) -> None:
        """Drops a step whose result is not needed any more, and later messages for it until the time `until`."""
        key = (request, step)
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.newest.attempt <= attempt:
            self._pop(key)
        ran = self._ran.get(key, (0, 0.0))
        self._remember(key, max(attempt, ran[0]), max(until, ran[1]))

    def _pop(self, key: tuple[bytes, str]) -> _Waiting:
        waiting = self._waiting.pop(key)
        self._nbytes -= waiting.nbytes
        return waiting

    def _remember(self, key: tuple[bytes, str], attempt: int, until: float) -> None:
        self._ran[key] = (attempt, until)
        heapq.heappush(self._ends, (until, key))

    def expire(self, now: float) -> list[Late]:
        """Forgets steps that are past their deadline; returns the incomplete joins that timed out."""
        late = [key for key, waiting in self._waiting.items() if waiting.deadline <= now]
        while self._ends and self._ends[0][0] <= now:
            _, key = heapq.heappop(self._ends)
            if key in self._ran and self._ran[key][1] <= now:  # else the step ran again, with a later entry in the heap
                del self._ran[key]
        return [self._late(self._pop(key), now) for key in late]

    def _late(self, waiting: _Waiting, now: float) -> Late:
        work = waiting.newest
        steps = _missing_steps(work.hop.inputs, waiting.inputs)
        who = ", ".join(f"{step} on {work.route[step].node}" if step in work.route else step for step in steps)
        error = RequestTimeoutError(
            f"{work.step} on {self._node} waited {now - waiting.since:.1f} s for {who}",
            step=steps[0],
            node=work.route[steps[0]].node if steps[0] in work.route else self._node,
        )
        return Late(work, error)


def _missing_steps(wanted: Mapping[str, str], there: Mapping[str, Value]) -> list[str]:
    return list(dict.fromkeys(ref.partition(".")[0] for port, ref in wanted.items() if port not in there))
