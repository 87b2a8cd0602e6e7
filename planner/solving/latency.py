"""The evaluator of docs/placement.md: how long one request takes on idle devices, given which device does which step.

It knows nothing of how a route was found. One request is simulated exactly, alone or many routes at once.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush

import numpy as np

from s2m3.planner.solving.problem import ABSENT, Floats, Ints, Problem, TaskShape
from s2m3.schemas.instance import Instance, PlacedTask

__all__ = ["Column", "Evaluator", "latencies_s", "latency_s", "transfer_s", "transfers_s"]

#: Devices of one step over many routes: one each, or one for all.
Column = Ints | int

_KB_TO_KBIT = 8  # kbit / (Mbit/s) is milliseconds
_MS = 1000


def transfer_s(problem: Problem, kb: float, a: int, b: int) -> float:
    """Returns seconds to send kB from device a to b; OUTSIDE's own link does not count."""
    if a == b:
        return 0.0
    slower = min(problem.speeds[a], problem.speeds[b])
    return (problem.latencies[a] + problem.latencies[b] + _KB_TO_KBIT * kb / slower) / _MS


def transfers_s(problem: Problem, kb: float, a: Column, b: Column) -> Floats:
    """Returns `transfer_s` of each pair; 0 where one end is ABSENT."""
    slower = np.minimum(problem.links_mbps[a], problem.links_mbps[b])
    seconds = (problem.links_ms[a] + problem.links_ms[b] + _KB_TO_KBIT * kb / slower) / _MS
    return np.where((a == b) | (a == ABSENT) | (b == ABSENT), 0.0, seconds)


def latency_s(problem: Problem, task: TaskShape, route: Sequence[int], waits_s: Sequence[float] | None = None) -> float:
    """Returns seconds from asking to the reply's arrival, for one route.

    A device serves in order of readiness, so steps can be taken in that order over all devices: what a step makes
    ready is never ready before the step itself was. Ties: the longer step, then the smaller id.

    Args:
        problem: Of the task.
        task: One task.
        route: Device of each step.
        waits_s: Per device, how much later a step counts as ready because of other requests; none on idle devices.
    """
    modules = problem.modules
    takes = [problem.runs_s(m, d) for m, d in zip(task.modules, route, strict=True)]
    waits_for = [len(before) for before in task.wiring.before]
    ready = [0.0] * len(takes)
    heap: list[tuple[float, float, int]] = []
    for s, count in enumerate(waits_for):
        if not count:
            arrives = transfer_s(problem, modules[task.modules[s]].input_kb, task.source, route[s])
            arrives += waits_s[route[s]] if waits_s else 0.0
            heappush(heap, (arrives, -takes[s], s))
    free: dict[int, float] = {}
    end = 0.0
    while heap:
        since, _, s = heappop(heap)
        device = route[s]
        end = free[device] = max(since, free.get(device, 0.0)) + takes[s]
        for q in task.wiring.followers[s]:
            arrives = end + transfer_s(problem, modules[task.modules[s]].output_kb, device, route[q])
            ready[q] = max(ready[q], arrives)
            waits_for[q] -= 1
            if not waits_for[q]:
                ready[q] += waits_s[route[q]] if waits_s else 0.0
                heappush(heap, (ready[q], -takes[q], q))
    head = task.wiring.head  # every other step is before it, so it was the last to be taken
    return end + transfer_s(problem, modules[task.modules[head]].output_kb, route[head], task.source)


def latencies_s(problem: Problem, task: TaskShape, columns: Sequence[Column]) -> Floats:
    """Returns what `latency_s` says of each route, to the last bit.

    Args:
        problem: Of the task.
        task: One task.
        columns: Per step the device of each route, or one device for all of them. ABSENT steps are left out: a
            partial route has the latency of what is placed.
    """
    takes = [problem.seconds(m)[column] for m, column in zip(task.modules, columns, strict=True)]
    finish = _finish_unqueued(problem, task, columns, takes)
    clash = np.zeros(finish.shape, dtype=np.bool_)
    for p, q in task.wiring.rivals:
        clash |= (columns[p] == columns[q]) & (columns[p] != ABSENT)
    if clash.any():
        rows = np.flatnonzero(clash)
        routes = np.stack([np.broadcast_to(column, finish.shape)[rows] for column in columns], axis=1)
        queued = np.stack([np.broadcast_to(take, finish.shape)[rows] for take in takes], axis=1)
        finish[rows] = _finish_queued(problem, task, routes, queued)
    return finish + transfers_s(
        problem, _out_kb(problem, task, task.wiring.head), columns[task.wiring.head], task.source
    )


def _finish_unqueued(
    problem: Problem, task: TaskShape, columns: Sequence[Column], takes: Sequence[Floats | float]
) -> Floats:
    """When the head ends if no step waits for a device: the longest path."""
    finish: dict[int, Floats | float] = {}
    for s in task.wiring.order:
        ready: Floats | float = 0.0
        if not task.wiring.before[s]:
            ready = transfers_s(problem, _in_kb(problem, task, s), task.source, columns[s])
        for p in task.wiring.before[s]:
            sent = transfers_s(problem, _out_kb(problem, task, p), columns[p], columns[s])
            ready = np.maximum(ready, finish[p] + sent)
        finish[s] = ready + takes[s]
    shape = np.broadcast_shapes((1,), *(np.shape(column) for column in columns))
    return np.array(np.broadcast_to(finish[task.wiring.head], shape))


def _finish_queued(problem: Problem, task: TaskShape, routes: Ints, takes: Floats) -> Floats:
    """When the head ends, each route simulated: in turn, every route takes its next step in order of readiness."""
    count, steps = routes.shape
    every = np.arange(count)
    same = (routes[:, :, None] == routes[:, None, :]) & (routes[:, :, None] != ABSENT)
    waits_for = np.tile([len(before) for before in task.wiring.before], (count, 1))
    follows = np.array([[s in task.wiring.followers[p] for s in range(steps)] for p in range(steps)])
    sent = np.zeros((count, steps, steps))
    for p in range(steps):
        for q in task.wiring.followers[p]:
            sent[:, p, q] = transfers_s(problem, _out_kb(problem, task, p), routes[:, p], routes[:, q])
    ready = np.zeros((count, steps))
    for s in range(steps):
        if not task.wiring.before[s]:
            ready[:, s] = transfers_s(problem, _in_kb(problem, task, s), task.source, routes[:, s])
    free = np.zeros((count, steps))  # of the device of each step
    taken = np.zeros((count, steps), dtype=np.bool_)
    end = np.zeros(count)
    for _ in range(steps):
        since = np.where(taken | (waits_for > 0), np.inf, ready)
        tied = since == since.min(axis=1, keepdims=True)
        chosen = np.where(tied, -takes, np.inf).argmin(axis=1)
        end = np.maximum(ready[every, chosen], free[every, chosen]) + takes[every, chosen]
        taken[every, chosen] = True
        free = np.where(same[every, chosen], end[:, None], free)
        released = follows[chosen]
        ready = np.where(released, np.maximum(ready, end[:, None] + sent[every, chosen]), ready)
        waits_for -= released
    return end


def _in_kb(problem: Problem, task: TaskShape, step: int) -> float:
    return problem.modules[task.modules[step]].input_kb


def _out_kb(problem: Problem, task: TaskShape, step: int) -> float:
    return problem.modules[task.modules[step]].output_kb


@dataclass(frozen=True)
class Evaluator:
    """The evaluator by ids: latencies and memory of an instance, whoever chose the routes. Seconds throughout."""

    instance: Instance

    @cached_property
    def problem(self) -> Problem:
        """The instance as numbers."""
        return Problem(self.instance)

    def latency_s(self, task: PlacedTask, route: Mapping[str, str]) -> float:
        """Returns seconds from asking to the reply.

        Args:
            task: One of the instance's.
            route: Step -> device. A device that cannot run the step's module makes it infinite.
        """
        shape = next(s for s, known in zip(self.problem.tasks, self.instance.tasks, strict=True) if known.id == task.id)
        return latency_s(self.problem, shape, [self.problem.device_at[route[step]] for step in shape.step_ids])

    def objective_s(self, routes: Mapping[str, Mapping[str, str]]) -> float:
        """Returns the sum over tasks of weight x latency, given task -> step -> device."""
        return sum(task.weight * self.latency_s(task, routes[task.id]) for task in self.instance.tasks)

    def memory_mb(self, placement: Mapping[str, Iterable[str]]) -> dict[str, float]:
        """Returns what the distinct modules on each device take, given module -> devices."""
        used = dict.fromkeys(self.problem.device_ids, 0.0)
        for module, devices in placement.items():
            for device in set(devices):
                used[device] += self.problem.size_mb[self.problem.module_at[module]]
        return used
