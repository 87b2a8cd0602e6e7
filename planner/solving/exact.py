"""The exact search: every route that could still be better, priced by the evaluator; the best choice of them, proven.

Queueing is inside a route's price, so the integer program is the problem itself and not a relaxation of it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from s2m3.planner.solving.bounds import task_bounds_s
from s2m3.planner.solving.integer_program import Program, Relaxed
from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.route_columns import TaskRoutes, routes_worth_trying

__all__ = ["Outcome", "bounded", "find_room", "is_small", "search"]

#: Modules x devices up to which fitting alone is searched exactly.
_SMALL = 20_000
#: Relative: objective and bound closer than this are one number.
_SAME = 1e-9


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search found: the best layout known, and a bound under which no plan is, seconds."""

    layout: Layout
    bound_s: float

    @property
    def is_proven(self) -> bool:
        """Whether the layout is optimal."""
        return self.bound_s >= self.layout.objective_s * (1 - _SAME)


def is_small(problem: Problem) -> bool:
    """Whether fitting is worth an exact search: modules x devices."""
    return len(problem.modules) * len(problem.device_ids) <= _SMALL


def search(layout: Layout, seconds_left: Callable[[], float]) -> Outcome:
    """Searches for a better layout than the one given, and for a proof that there is none.

    Every task's worthwhile routes are listed; the program's linear relaxation gives a bound and, for each route and
    copy, what using it would add at least: those that would go beyond the best known drop out. The rest is searched.

    Args:
        layout: The best known; not changed.
        seconds_left: Until the search has to end.

    Raises:
        S2M3Error: highspy is not installed.
    """
    problem, best_s = layout.problem, layout.objective_s
    bound_s, tasks = routes_worth_trying(layout.costs, best_s)
    outcome = Outcome(layout, bound_s)
    if tasks is None or outcome.is_proven or seconds_left() <= 0:
        return outcome
    relaxed = Program(problem, tasks, best_s).relax(seconds_left())
    if relaxed is None:
        return outcome
    outcome = Outcome(layout, max(bound_s, relaxed.bound_s * (1 - _SAME)))
    if outcome.is_proven:
        return outcome
    program = Program(problem, _still_worth(tasks, relaxed, best_s), best_s)
    start = {module: devices.copy() for module, devices in enumerate(layout.copies)}
    while seconds_left() > 0:
        whole = program.solve(seconds_left(), start)
        found = _laid_out(layout, whole.copies) if whole.copies is not None else None
        if found is not None and found.room.min(initial=0.0) < -SLACK_MB:
            program.exclude(whole.copies or {})
            continue
        better = found if found is not None and found.objective_s < outcome.layout.objective_s else outcome.layout
        proven = better.objective_s if whole.is_finished else min(whole.bound_s, better.objective_s)
        return Outcome(better, max(outcome.bound_s, proven))
    return outcome


def bounded(layout: Layout) -> Outcome:
    """Returns a layout with the bound that needs no search: each task on its own."""
    weights = [task.weight for task in layout.problem.tasks]
    return Outcome(layout, float(np.dot(weights, task_bounds_s(layout.costs))))


def _still_worth(tasks: list[TaskRoutes], relaxed: Relaxed, best_s: float) -> list[TaskRoutes]:
    """The routes whose use would not by itself raise the relaxation's bound above the best known."""
    gap = best_s - relaxed.bound_s + 1e-6 * best_s
    kept = [reduced <= gap for reduced in relaxed.y_reduced_s]
    return [TaskRoutes(some.task, some.routes[k], some.costs_s[k]) for some, k in zip(tasks, kept, strict=True)]


def _laid_out(like: Layout, copies: dict[int, list[int]]) -> Layout:
    layout = Layout(like.problem, copies)
    layout.costs = like.costs
    layout.reroute()
    if layout.room.min(initial=0.0) >= -SLACK_MB:
        layout.drop_unused()
    return layout


def find_room(problem: Problem, seconds: float) -> dict[int, list[int]] | None:
    """Returns copies that fit, by exact search; None if there are none or time ran out.

    Raises:
        S2M3Error: highspy is not installed.
    """
    program = Program(problem, [], np.inf)
    for _ in range(10):  # each time round, one more choice that only rounding made fit is excluded
        whole = program.solve(seconds)
        if whole.copies is None:
            return None
        if Layout(problem, whole.copies).room.min(initial=0.0) >= -SLACK_MB:
            return whole.copies
        program.exclude(whole.copies)
    return None
