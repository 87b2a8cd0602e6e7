"""Lower bounds that hold whatever the memory and the queueing: each task on its own, every step where it likes."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.problem import OUTSIDE, Floats, Ints, Problem, TaskShape

__all__ = ["Paths", "task_bounds_s"]

_KB_TO_KBIT = 8
_MS = 1000
#: Sums taken in another order than the evaluator's may differ in their last bits; a bound must not be above it.
_SHY = 1 - 1e-12


@dataclass(frozen=True)
class Paths:
    """Least times along a task's steps if nothing waits for a device and memory is no matter.

    The cheapest sender for every receiver takes devices x log devices, not devices squared: with devices sorted by
    link speed, the slower end of a transfer is the sender's or the receiver's by their order.
    """

    problem: Problem

    @cached_property
    def _by_speed(self) -> Ints:
        return np.argsort(self.problem.mbps, kind="stable")

    def through_s(self, task: TaskShape) -> list[Floats]:
        """Returns, for each step, a lower bound of the task's latency with the step on each device."""
        problem = self.problem
        modules = problem.modules
        count = len(task.modules)
        takes = [np.where(self._may(m), problem.seconds(m)[:-2], np.inf) for m in task.modules]
        finish: list[Floats] = [np.zeros(0)] * count
        for s in task.wiring.order:
            before = [self._cheapest(finish[p], modules[task.modules[p]].output_kb) for p in task.wiring.before[s]]
            ready = np.max(before, axis=0) if before else self._outer(task, modules[task.modules[s]].input_kb)
            finish[s] = ready + takes[s]
        rest: list[Floats] = [np.zeros(0)] * count
        for s in reversed(task.wiring.order):
            kb = modules[task.modules[s]].output_kb
            after = [self._cheapest(takes[q] + rest[q], kb) for q in task.wiring.followers[s]]
            rest[s] = np.max(after, axis=0) if after else self._outer(task, kb)
        return [(finish[s] + rest[s]) * _SHY for s in range(count)]

    def _may(self, module: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        may = np.zeros(len(self.problem.device_ids), dtype=np.bool_)
        may[self.problem.able(module)] = True
        return may

    def _outer(self, task: TaskShape, kb: float) -> Floats:
        """Seconds between the task's source and each device."""
        problem = self.problem
        slower = np.minimum(problem.mbps, problem.links_mbps[task.source])
        seconds: Floats = (problem.latency_ms + problem.links_ms[task.source] + _KB_TO_KBIT * kb / slower) / _MS
        if task.source != OUTSIDE:
            seconds[task.source] = 0.0
        return seconds

    def _cheapest(self, at: Floats, kb: float) -> Floats:
        """For each device, the least over the other ends of (what it costs there + the transfer)."""
        problem, order = self.problem, self._by_speed
        speed, value = problem.mbps[order], at[order] + problem.latency_ms[order] / _MS
        send = _KB_TO_KBIT * kb / speed / _MS
        slower_end = np.minimum.accumulate(value + send)  # the other end is the slower, or as fast
        faster_end = np.minimum.accumulate(value[::-1])[::-1] + send
        best = np.empty_like(at)
        best[order] = np.minimum(slower_end, faster_end) + problem.latency_ms[order] / _MS
        return np.minimum(best, at)  # or the same device: nothing to send


def task_bounds_s(costs: Costs, tasks: Iterable[int] | None = None) -> Floats:
    """Returns a lower bound of each task's latency, seconds: exact on its own where all its routes are simulated."""
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
