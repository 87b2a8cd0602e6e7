"""The evaluator: the latency of one request on idle devices, given the device of each step (docs/placement.md).

The price of preferences (preferences.py) is part of every latency here, so that the search minimises one number.

It simulates one request exactly, for one route or for many routes at once, and does not search for routes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from heapq import heappop, heappush

import numpy as np

from s2m3.planner.solving.problem import ABSENT, Floats, Ints, Problem, TaskShape
from s2m3.schemas.instance import Instance, PlacedTask

__all__ = ["Column", "Evaluator", "latencies_s", "latency_s", "transfer_s", "transfers_s"]

#: Device positions of one step over many routes: an array with one entry per route, or one position for all routes.
Column = Ints | int

_KB_TO_KBIT = 8  # kbit / (Mbit/s) is milliseconds
_MS = 1000


def transfer_s(problem: Problem, kb: float, a: int, b: int) -> float:
    """Returns the seconds to send kB from device a to device b; an end that is OUTSIDE adds no delay and no limit."""
    if a == b:
        return 0.0
    slower = min(problem.speeds[a], problem.speeds[b])
    return (problem.latencies[a] + problem.latencies[b] + _KB_TO_KBIT * kb / slower) / _MS


def transfers_s(problem: Problem, kb: float, a: Column, b: Column) -> Floats:
    """Returns `transfer_s` of each pair, [routes]; 0 where one end is ABSENT."""
    slower = np.minimum(problem.links_mbps[a], problem.links_mbps[b])
    seconds = (problem.links_ms[a] + problem.links_ms[b] + _KB_TO_KBIT * kb / slower) / _MS
    return np.where((a == b) | (a == ABSENT) | (b == ABSENT), 0.0, seconds)


def latency_s(problem: Problem, task: TaskShape, route: Sequence[int], waits_s: Sequence[float] | None = None) -> float:
    """Returns the seconds from sending a request to the arrival of its reply, for one route, with its preferences.

    A device runs steps in order of readiness. One event queue over all devices gives that order, since a step's
    successors are never ready before the step itself was. The longer step, then the smaller id breaks ties.

    Args:
        problem: The problem that contains the task.
        task: The task.
        route: Device of each step.
        waits_s: Mean queueing delay of a step on each device because of other requests; None for idle devices.
    """
    modules = problem.modules
    run_s = [problem.runs_s(m, d) for m, d in zip(task.modules, route, strict=True)]
    waits_for = [len(before) for before in task.wiring.before]
    ready = [0.0] * len(run_s)
    heap: list[tuple[float, float, int]] = []
    for s, count in enumerate(waits_for):
        if not count:
            arrives = transfer_s(problem, modules[task.modules[s]].input_kb, task.source, route[s])
            arrives += waits_s[route[s]] if waits_s else 0.0
            heappush(heap, (arrives, -run_s[s], s))
    free: dict[int, float] = {}
    end = 0.0
    while heap:
        since, _, s = heappop(heap)
        device = route[s]
        end = free[device] = max(since, free.get(device, 0.0)) + run_s[s]
        for q in task.wiring.followers[s]:
            arrives = end + transfer_s(problem, modules[task.modules[s]].output_kb, device, route[q])
            ready[q] = max(ready[q], arrives)
            waits_for[q] -= 1
            if not waits_for[q]:
                ready[q] += waits_s[route[q]] if waits_s else 0.0
                heappush(heap, (ready[q], -run_s[q], q))
    head = task.wiring.head  # all other steps precede the head, so it was the last to run
    end += transfer_s(problem, modules[task.modules[head]].output_kb, route[head], task.source)
    return end if task.prices_s is None else end + problem.price_s(task, route)


def latencies_s(problem: Problem, task: TaskShape, columns: Sequence[Column]) -> Floats:
    """Returns the latency of each route, s, [routes]; equal to `latency_s` in every bit.

    Args:
        problem: The problem that contains the task.
        task: The task.
        columns: For each step the device of each route, or one device for all routes. ABSENT steps are left out: a
            partial route has the latency of its placed steps.
    """
    run_s = [problem.seconds(m)[column] for m, column in zip(task.modules, columns, strict=True)]
    finish = _finish_unqueued(problem, task, columns, run_s)
    clash = np.zeros(finish.shape, dtype=np.bool_)
    for p, q in task.wiring.rivals:
        clash |= (columns[p] == columns[q]) & (columns[p] != ABSENT)
    if clash.any():
        rows = np.flatnonzero(clash)
        routes = np.stack([np.broadcast_to(column, finish.shape)[rows] for column in columns], axis=1)
        queued = np.stack([np.broadcast_to(take, finish.shape)[rows] for take in run_s], axis=1)
        finish[rows] = _finish_queued(problem, task, routes, queued)
    finish = finish + transfers_s(
        problem, _out_kb(problem, task, task.wiring.head), columns[task.wiring.head], task.source
    )
    return finish if task.prices_s is None else finish + sum(task.prices_s[column] for column in columns)


def _finish_unqueued(
    problem: Problem, task: TaskShape, columns: Sequence[Column], run_s: Sequence[Floats | float]
) -> Floats:
    """Returns when the head ends if no step queues for a device: the longest path, s, [routes]."""
    finish: dict[int, Floats | float] = {}
    for s in task.wiring.order:
        ready: Floats | float = 0.0
        if not task.wiring.before[s]:
            ready = transfers_s(problem, _in_kb(problem, task, s), task.source, columns[s])
        for p in task.wiring.before[s]:
            sent = transfers_s(problem, _out_kb(problem, task, p), columns[p], columns[s])
            ready = np.maximum(ready, finish[p] + sent)
        finish[s] = ready + run_s[s]
    shape = np.broadcast_shapes((1,), *(np.shape(column) for column in columns))
    return np.array(np.broadcast_to(finish[task.wiring.head], shape))


def _finish_queued(problem: Problem, task: TaskShape, routes: Ints, run_s: Floats) -> Floats:
    """Returns when the head ends, s, [routes], by a simulation in which all routes advance by one step per iteration.

    `routes` and `run_s` (run times, s) are [routes, steps].
    """
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
    free = np.zeros((count, steps))  # when the device of each step is idle again
    taken = np.zeros((count, steps), dtype=np.bool_)
    end = np.zeros(count)
    for _ in range(steps):
        since = np.where(taken | (waits_for > 0), np.inf, ready)
        tied = since == since.min(axis=1, keepdims=True)
        chosen = np.where(tied, -run_s, np.inf).argmin(axis=1)
        end = np.maximum(ready[every, chosen], free[every, chosen]) + run_s[every, chosen]
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
    """The evaluator by ids instead of positions: latencies (seconds) and memory of an instance for given routes."""

    instance: Instance

    @cached_property
    def problem(self) -> Problem:
        """The instance as numbers."""
        return Problem(self.instance)

    def latency_s(self, task: PlacedTask, route: Mapping[str, str]) -> float:
        """Returns the seconds from sending a request to its reply, with the price of preferences of the route.

        Args:
            task: A task of the instance.
            route: Step -> device. Latency is infinite if a device cannot run its step's module.
        """
        shape = next(s for s, known in zip(self.problem.tasks, self.instance.tasks, strict=True) if known.id == task.id)
        return latency_s(self.problem, shape, [self.problem.device_at[route[step]] for step in shape.step_ids])

    def objective_s(self, routes: Mapping[str, Mapping[str, str]]) -> float:
        """Returns the sum over tasks of weight x latency, seconds, given task -> step -> device."""
        return sum(task.weight * self.latency_s(task, routes[task.id]) for task in self.instance.tasks)

    def memory_mb(self, placement: Mapping[str, Iterable[str]]) -> dict[str, float]:
        """Returns the memory of the distinct modules on each device, 10^6 bytes, given module -> devices."""
        used = dict.fromkeys(self.problem.device_ids, 0.0)
        for module, devices in placement.items():
            for device in set(devices):
                used[device] += self.problem.size_mb[self.problem.module_at[module]]
        return used
