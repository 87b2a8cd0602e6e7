"""The exact search: an integer program over all routes that could improve on the best plan, with a proof of optimality.

The evaluator prices each route with the queueing inside its request, so the program is exact and not a relaxation.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from s2m3.planner.solving.bounds import task_bounds_s
from s2m3.planner.solving.integer_program import Program, Relaxed
from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.route_columns import TaskRoutes, routes_worth_trying

__all__ = ["SMALL", "Outcome", "bounded", "find_room", "is_small", "search"]

#: Largest modules x devices for which a placement that merely fits is searched exactly.
SMALL = 20_000
#: Relative optimality gap below which objective and bound count as equal.
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a search: the best layout, and a lower bound of every plan's objective, seconds."""

    layout: Layout
    bound_s: float

    @property
    def is_proven(self) -> bool:
        """Whether the layout is optimal."""
        return self.bound_s >= self.layout.objective_s * (1 - _SAME)


def is_small(problem: Problem) -> bool:
    """Whether modules x devices is small enough for an exact search for any placement that fits."""
    return len(problem.modules) * len(problem.device_ids) <= SMALL


def search(layout: Layout, seconds_left: Callable[[], float]) -> Outcome:
    """Returns a better layout than the given one, or a proof that none exists, as far as time allows.

    The columns are all routes that a better plan could use. The linear relaxation gives a bound and the reduced cost of
    each route; routes whose reduced cost exceeds the optimality gap are removed. Branch and bound searches the rest.

    Args:
        layout: The best layout so far; not changed.
        seconds_left: Returns the seconds until the search must end.

    Raises:
        S2M3Error: highspy is not installed.
    """
    problem, best_s = layout.problem, layout.objective_s
    bound_s, tasks = routes_worth_trying(layout.costs, best_s, seconds_left)
    outcome = Outcome(layout, bound_s)
    if tasks is None or outcome.is_proven or seconds_left() <= 0:
        return outcome
    relaxed = Program(problem, tasks, best_s).relax(seconds_left())
    if relaxed is None:
        return outcome
    outcome = Outcome(layout, max(bound_s, relaxed.bound_s * (1 - _SAME)))
    if outcome.is_proven:
        return outcome
    program = Program(problem, _reduced_cost_fixing(tasks, relaxed, best_s), best_s)
    start = {module: devices.copy() for module, devices in enumerate(layout.copies)}
    while seconds_left() > 0:
        solved = program.solve(seconds_left(), start)
        found = _with_copies(layout, solved.copies) if solved.copies is not None else None
        if found is not None and found.free_mb.min(initial=0.0) < -SLACK_MB:
            program.exclude(solved.copies or {})
            continue
        better = found if found is not None and found.objective_s < outcome.layout.objective_s else outcome.layout
        proven = better.objective_s if solved.is_finished else min(solved.bound_s, better.objective_s)
        return Outcome(better, max(outcome.bound_s, proven))
    return outcome


def bounded(layout: Layout) -> Outcome:
    """Returns a layout with the bound that needs no search: the weighted sum of the tasks' own lower bounds."""
    weights = [task.weight for task in layout.problem.tasks]
    return Outcome(layout, float(np.dot(weights, task_bounds_s(layout.costs))))


def _reduced_cost_fixing(tasks: list[TaskRoutes], relaxed: Relaxed, best_s: float) -> list[TaskRoutes]:
    """Returns the routes whose reduced cost is within the gap between the relaxation's bound and the best objective."""
    gap = best_s - relaxed.bound_s + 1e-6 * best_s
    kept = [reduced <= gap for reduced in relaxed.y_reduced_s]
    return [
        TaskRoutes(columns.task, columns.routes[k], columns.costs_s[k]) for columns, k in zip(tasks, kept, strict=True)
    ]


def _with_copies(like: Layout, copies: dict[int, list[int]]) -> Layout:
    layout = Layout(like.problem, copies)
    layout.costs = like.costs
    layout.reroute()
    if layout.free_mb.min(initial=0.0) >= -SLACK_MB:
        layout.drop_unused()
    return layout


def find_room(problem: Problem, seconds: float) -> dict[int, list[int]] | None:
    """Returns any placement that fits, module -> devices, by exact search; None if none exists or time ran out.

    Raises:
        S2M3Error: highspy is not installed.
    """
    program = Program(problem, [], np.inf)
    for _ in range(10):  # each round excludes one placement that fits only within the solver's tolerance
        solved = program.solve(seconds)
        if solved.copies is None:
            return None
        if Layout(problem, solved.copies).free_mb.min(initial=0.0) >= -SLACK_MB:
            return solved.copies
        program.exclude(solved.copies)
    return None
