"""Waits, per request and step, until all inputs are there. Pure: it is told the time and returns what is complete."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from s2m3.schemas.errors import BusyError, RequestTimeoutError
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import PassedOn, Timing, Work

__all__ = ["Joins", "Late"]

#: A join gives up a little before its caller does, so that the caller hears which step was missing.
_MARGIN = 0.1
_MARGIN_MAX_S = 1.0


@dataclass(frozen=True, slots=True)
class Late:
    """A join whose deadline passed: its newest message, and the error that says what never came."""

    work: Work
    error: RequestTimeoutError


@dataclass(slots=True)
class _Waiting:
    newest: Work
    since: float
    #: when the join gives up, and when its caller does
    deadline: float
    ends: float
    inputs: dict[str, Value] = field(default_factory=dict)
    timings: dict[str, Timing] = field(default_factory=dict)
    passed_on: PassedOn | None = None


class Joins:
    """Parts of steps that wait for the rest.

    The first value of each input is kept, whichever attempt it came from; a step runs once per attempt; messages of an
    attempt that already ran are dropped. Finished steps are remembered until their deadline.

    Args:
        bound: Joins that may wait; one more is answered `busy`.
        node: Ours, for the errors.
    """

    def __init__(self, bound: int, node: str) -> None:
        self._bound = bound
        self._node = node
        self._waiting: dict[tuple[bytes, str], _Waiting] = {}
        self._ran: dict[tuple[bytes, str], tuple[int, float]] = {}
        #: when they may be forgotten, the earliest first
        self._ends: list[tuple[float, tuple[bytes, str]]] = []

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def remembered(self) -> int:
        """Finished steps that are still known."""
        return len(self._ran)

    def add(self, work: Work, now: float) -> Work | None:
        """Takes a part in; returns the whole work once nothing is missing, None while something is (or it ran).

        Raises:
            BusyError: Too many joins wait.
        """
        key = (work.request, work.step)
        ran = self._ran.get(key)
        if ran is not None and work.attempt <= ran[0]:
            return None
        waiting = self._waiting.get(key)
        if waiting is None and not work.hop.inputs.keys() - work.inputs.keys():  # all in one message: nothing to join
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
        for name, value in work.inputs.items():
            waiting.inputs.setdefault(name, value)
        waiting.timings.update(work.timings)
        if work.passed_on is not None:
            waiting.passed_on = work.passed_on if waiting.passed_on is None else waiting.passed_on | work.passed_on
        wanted = waiting.newest.hop.inputs
        if wanted.keys() - waiting.inputs.keys():
            return None
        del self._waiting[key]
        self._remember(key, waiting.newest.attempt, waiting.deadline)
        inputs = {name: waiting.inputs[name] for name in wanted}
        left = max(0.0, (waiting.ends - now) * 1000)
        kept = waiting.passed_on
        return replace(waiting.newest, inputs=inputs, timings=waiting.timings, ms_left=left, passed_on=kept)

    def cancel(self, request: bytes, step: str, attempt: int, until: float) -> None:
        """Forgets a step that nobody waits for any more; what still comes for it until then is dropped."""
        key = (request, step)
        waiting = self._waiting.get(key)
        if waiting is not None and waiting.newest.attempt <= attempt:
            del self._waiting[key]
        ran = self._ran.get(key, (0, 0.0))
        self._remember(key, max(attempt, ran[0]), max(until, ran[1]))

    def _remember(self, key: tuple[bytes, str], attempt: int, until: float) -> None:
        self._ran[key] = (attempt, until)
        heapq.heappush(self._ends, (until, key))

    def expire(self, now: float) -> list[Late]:
        """Forgets what is past its deadline; returns the joins that never became complete."""
        late = [key for key, waiting in self._waiting.items() if waiting.deadline <= now]
        while self._ends and self._ends[0][0] <= now:
            _, key = heapq.heappop(self._ends)
            if key in self._ran and self._ran[key][1] <= now:  # else it ran again since: that has its own end
                del self._ran[key]
        return [self._late(self._waiting.pop(key), now) for key in late]

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
