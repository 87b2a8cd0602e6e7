"""The routes that a better plan could still use, with what each costs by the evaluator: the exact search's columns."""

from dataclasses import dataclass
from math import prod

import numpy as np

from s2m3.planner.solving.bounds import Paths, task_bounds_s
from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.problem import Floats, Ints, TaskShape

__all__ = ["TaskRoutes", "routes_worth_trying"]

#: Routes of one task that are simulated, and of all tasks that are kept, at most: what is beyond is not small.
_MOST_SIMULATED = 400_000
_MOST_KEPT = 60_000


@dataclass(frozen=True, slots=True)
class TaskRoutes:
    """Routes of one task, [routes, steps], and weight x latency of each, seconds."""

    task: TaskShape
    routes: Ints
    costs_s: Floats


def routes_worth_trying(costs: Costs, best_s: float) -> tuple[float, list[TaskRoutes] | None]:
    """Returns a lower bound of the objective and, for each task, every route that a plan under `best_s` can have.

    A plan costs at least the sum of what each task costs on its own. A route that is dearer than its task's least by
    more than the distance from that sum to `best_s` is in no better plan.

    Args:
        costs: The evaluator.
        best_s: Objective of a plan that is known (infinite: none is), seconds.

    Returns:
        The bound in seconds, and the routes; None in their stead if they are too many to look at.
    """
    problem = costs.problem
    weights = np.array([task.weight for task in problem.tasks])
    least = weights * task_bounds_s(costs)
    gap = _margin(best_s) - float(least.sum())
    found: list[TaskRoutes] = []
    for task in problem.tasks:
        some = _routes_of(costs, task, float(least[task.index]) + gap)
        if some is None:
            return float(least.sum()), None
        gap -= float(some.costs_s.min()) - float(least[task.index])
        least[task.index] = some.costs_s.min()
        found.append(some)
    kept = []
    for some in found:
        worth = some.costs_s <= least[some.task.index] + gap
        kept.append(TaskRoutes(some.task, some.routes[worth], some.costs_s[worth]))
    bound = float(least.sum())
    return bound, kept if sum(len(some.routes) for some in kept) <= _MOST_KEPT else None


def _margin(best_s: float) -> float:
    """A little more than the best: its own routes are to be among those kept, whatever the last bits."""
    return best_s * (1 + 1e-9) + 1e-12


def _routes_of(costs: Costs, task: TaskShape, limit_s: float) -> TaskRoutes | None:
    """Simulates every route whose steps could, each by itself, stay within a limit; None if they are too many."""
    problem = costs.problem
    choices = [problem.able(m) for m in task.modules]
    if prod(map(len, choices)) > _MOST_SIMULATED and task.weight > 0:
        through = Paths(problem).through_s(task)
        choices = [c[task.weight * t[c] <= limit_s] for c, t in zip(choices, through, strict=True)]
    if prod(map(len, choices)) > _MOST_SIMULATED:
        return None
    routes = np.stack([axis.ravel() for axis in np.meshgrid(*choices, indexing="ij")], axis=1)
    if problem.max_replicas == 1:
        routes = routes[_one_device_per_module(task, routes)]
    costs_s = task.weight * costs.of(task.index, list(routes.T))
    worth = costs_s <= limit_s
    return TaskRoutes(task, routes[worth], costs_s[worth])


def _one_device_per_module(task: TaskShape, routes: Ints) -> Ints:
    """Which routes use each module at one device only."""
    agree = np.ones(len(routes), dtype=np.bool_)
    for s, module in enumerate(task.modules):
        agree &= routes[:, s] == routes[:, task.modules.index(module)]
    return np.flatnonzero(agree)
