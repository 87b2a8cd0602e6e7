"""Lower bounds of task latency, by relaxation: tasks do not compete for devices, and modules do not share memory."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.problem import OUTSIDE, Floats, Ints, Problem, TaskShape

__all__ = ["Paths", "task_bounds_s"]

_KB_TO_KBIT = 8
_MS = 1000
#: A sum taken in another order than the evaluator's may differ in its last bits: this factor keeps bounds below it.
_ROUND_DOWN = 1 - 1e-12


@dataclass(frozen=True)
class Paths:
    """Shortest paths through a task's steps when no step queues for a device and memory is unlimited.

    Finding the cheapest sender for every receiver takes O(devices log devices), not O(devices^2): with devices sorted
    by link speed, their order says whether the sender's or the receiver's link limits a transfer.
    """

    problem: Problem

    @cached_property
    def _by_speed(self) -> Ints:
        return np.argsort(self.problem.mbps, kind="stable")

    def through_s(self, task: TaskShape) -> list[Floats]:
        """Returns, for each step, a lower bound of the task's latency with that step on each device, s, [devices].

        The price of preferences is part of the bound as of the latency.
        """
        problem = self.problem
        modules = problem.modules
        count = len(task.modules)
        takes = [np.where(self._can_run(m), problem.seconds(m)[:-2], np.inf) for m in task.modules]
        finish: list[Floats] = [np.zeros(0)] * count
        for s in task.wiring.order:
            before = [self._cheapest_s(finish[p], modules[task.modules[p]].output_kb) for p in task.wiring.before[s]]
            ready = np.max(before, axis=0) if before else self._source_s(task, modules[task.modules[s]].input_kb)
            finish[s] = ready + takes[s]
        rest: list[Floats] = [np.zeros(0)] * count
        for s in reversed(task.wiring.order):
            kb = modules[task.modules[s]].output_kb
            after = [self._cheapest_s(takes[q] + rest[q], kb) for q in task.wiring.followers[s]]
            rest[s] = np.max(after, axis=0) if after else self._source_s(task, kb)
        through = [(finish[s] + rest[s]) * _ROUND_DOWN for s in range(count)]
        if (prices := task.prices_s) is None:
            return through
        least = [float(prices[problem.able(m)].min(initial=np.inf)) for m in task.modules]
        others = [sum(least[:s] + least[s + 1 :]) for s in range(count)]
        return [through[s] + (prices[:-2] + others[s]) * _ROUND_DOWN for s in range(count)]

    def _can_run(self, module: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        can_run = np.zeros(len(self.problem.device_ids), dtype=np.bool_)
        can_run[self.problem.able(module)] = True
        return can_run

    def _source_s(self, task: TaskShape, kb: float) -> Floats:
        """Returns the seconds that kB take between the task's source and each device, [devices]."""
        problem = self.problem
        slower = np.minimum(problem.mbps, problem.links_mbps[task.source])
        seconds: Floats = (problem.latency_ms + problem.links_ms[task.source] + _KB_TO_KBIT * kb / slower) / _MS
        if task.source != OUTSIDE:
            seconds[task.source] = 0.0
        return seconds

    def _cheapest_s(self, at: Floats, kb: float) -> Floats:
        """Returns, for each device, the minimum over all devices of (seconds `at` that one + transfer), [devices]."""
        problem, order = self.problem, self._by_speed
        speed, value = problem.mbps[order], at[order] + problem.latency_ms[order] / _MS
        send = _KB_TO_KBIT * kb / speed / _MS
        slower_end = np.minimum.accumulate(value + send)  # the other device's link limits, or is as fast
        faster_end = np.minimum.accumulate(value[::-1])[::-1] + send
        best = np.empty_like(at)
        best[order] = np.minimum(slower_end, faster_end) + problem.latency_ms[order] / _MS
        return np.minimum(best, at)  # or both steps run on one device: no transfer


def task_bounds_s(costs: Costs, tasks: Iterable[int] | None = None) -> Floats:
    """Returns a lower bound of each task's latency, s, [tasks]: the task's own optimum where its routes are tabulated.

    Args:
        costs: The evaluator.
        tasks: Positions of tasks; None takes all.
    """
    problem = costs.problem
    paths = Paths(problem)
    bounds = []
    for t in range(len(problem.tasks)) if tasks is None else tasks:
        table = costs.table(t)
        if table is None:
            bounds.append(max(float(through.min()) for through in paths.through_s(problem.tasks[t])))
        else:
            inner = (slice(len(problem.device_ids)),) * table.ndim
            grid = np.ix_(*(problem.able(m) for m in problem.tasks[t].modules))
            bounds.append(float(table[inner][grid].min(initial=np.inf)))
    return np.array(bounds)
