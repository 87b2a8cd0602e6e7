"""Column generation for the exact search: all routes that a better plan could use, each with its cost."""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf, prod

import numpy as np

from s2m3.planner.solving.bounds import Paths, task_bounds_s
from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.problem import Floats, Ints, TaskShape

__all__ = ["TaskRoutes", "routes_worth_trying"]

#: Most routes simulated per task, and most routes kept over all tasks; larger instances are not searched exactly.
_MOST_SIMULATED = 400_000
_MOST_KEPT = 60_000


@dataclass(frozen=True, slots=True)
class TaskRoutes:
    """Routes of one task, [routes, steps], and each route's weight x latency, seconds, [routes]."""

    task: TaskShape
    routes: Ints
    costs_s: Floats


def routes_worth_trying(
    costs: Costs, best_s: float, seconds_left: Callable[[], float] = lambda: inf
) -> tuple[float, list[TaskRoutes] | None]:
    """Returns a lower bound of the objective and, for each task, every route that a plan below `best_s` can contain.

    The sum of the tasks' own least costs bounds every plan from below. A route that costs more than its task's least
    cost plus the gap between that sum and `best_s` is in no better plan.

    Args:
        costs: The evaluator.
        best_s: Objective of the best known plan, seconds; infinite if there is none.
        seconds_left: Returns the seconds until the routes must be known; looked at once per task.

    Returns:
        The bound in seconds, and the routes of each task, or None in their place if there are too many routes, or if
        the time was not enough.
    """
    problem = costs.problem
    weights = np.array([task.weight for task in problem.tasks])
    least = weights * task_bounds_s(costs)
    gap = _with_tolerance(best_s) - float(least.sum())
    found: list[TaskRoutes] = []
    for task in problem.tasks:
        if seconds_left() <= 0:
            return float(least.sum()), None
        columns = _routes_of(costs, task, float(least[task.index]) + gap)
        if columns is None:
            return float(least.sum()), None
        gap -= float(columns.costs_s.min()) - float(least[task.index])
        least[task.index] = columns.costs_s.min()
        found.append(columns)
    kept = []
    for columns in found:
        within = columns.costs_s <= least[columns.task.index] + gap
        kept.append(TaskRoutes(columns.task, columns.routes[within], columns.costs_s[within]))
    bound = float(least.sum())
    return bound, kept if sum(len(columns.routes) for columns in kept) <= _MOST_KEPT else None


def _with_tolerance(best_s: float) -> float:
    """Returns `best_s` plus a tolerance, so that floating-point error does not remove the best plan's own routes."""
    return best_s * (1 + 1e-9) + 1e-12


def _routes_of(costs: Costs, task: TaskShape, limit_s: float) -> TaskRoutes | None:
    """Returns a task's routes within a cost limit, seconds; None if there are too many routes to simulate.

    For large tasks, devices whose lower bound (`Paths.through_s`) exceeds the limit are excluded per step first.
    """
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
    within = costs_s <= limit_s
    return TaskRoutes(task, routes[within], costs_s[within])


def _one_device_per_module(task: TaskShape, routes: Ints) -> Ints:
    """Returns the positions of the routes that run each module on one device only."""
    agree = np.ones(len(routes), dtype=np.bool_)
    for s, module in enumerate(task.modules):
        agree &= routes[:, s] == routes[:, task.modules.index(module)]
    return np.flatnonzero(agree)
