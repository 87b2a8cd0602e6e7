"""Solves an instance within a time budget: greedy, local search, exact search; the solution has a lower bound."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from s2m3.planner.solving.energy import Energy, energy_of
from s2m3.planner.solving.exact import Outcome, bounded, find_room, is_small, search
from s2m3.planner.solving.greedy import SortKey, complete, kept, lay_out, named, sorted_by_need
from s2m3.planner.solving.integer_program import is_available, require
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.local_search import descend, shake
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.queueing import has_rates, relieve
from s2m3.planner.solving.repair import make_room
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance

__all__ = ["Method", "Solution", "TaskPlan", "best_layout", "first_layout", "solution_of", "solve"]

Method = Literal["auto", "greedy", "exact"]

_BUDGET_S: Mapping[Method, float] = {"greedy": 0.0, "auto": 1.0, "exact": 60.0}
#: Part of the budget for local search before the exact search.
_IMPROVING = 0.4
#: Perturbations without a gain that end local search before, and after, the exact search.
_SHAKES = 100
_MORE_SHAKES = 10_000
#: Time limit of the exact search for any placement that fits, where the greedy found none.
_FITTING_S = 5.0


@dataclass(frozen=True, slots=True)
class TaskPlan:
    """A task's route (step -> device), its latency on that route, seconds, and its energy if devices state any."""

    latency_s: float
    route: Mapping[str, str]
    energy: Energy | None = None
    #: price of preferences of the route, seconds: part of the objective, not of the latency
    preference_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Returns the task's part of the document that `s2m3 plan --json` prints; joules only where they are known."""
        document: dict[str, Any] = {"latency_s": self.latency_s, "route": dict(self.route)}
        if self.preference_s:
            document["preference_s"] = self.preference_s
        if self.energy is not None:
            document |= {"joules": self.energy.joules, "joules_above_idle": self.energy.above_idle}
        return document


@dataclass(frozen=True, slots=True)
class Solution:
    """A placement (module -> devices) with routes, objective and lower bound; seconds and 10^6 bytes throughout."""

    method: str
    objective_s: float
    proven_optimal: bool
    lower_bound_s: float
    placement: Mapping[str, list[str]]
    tasks: Mapping[str, TaskPlan]
    memory_mb: Mapping[str, float]
    solve_s: float

    def to_json(self) -> dict[str, Any]:
        """Returns the document that `s2m3 plan --json` prints."""
        return {
            "method": self.method,
            "objective_s": self.objective_s,
            "proven_optimal": self.proven_optimal,
            "lower_bound_s": self.lower_bound_s,
            "placement": {module: list(devices) for module, devices in self.placement.items()},
            "tasks": {task: plan.to_json() for task, plan in self.tasks.items()},
            "memory_mb": dict(self.memory_mb),
            "solve_s": self.solve_s,
        }


def solve(
    instance: Instance,
    *,
    method: Method = "auto",
    budget_s: float | None = None,
    key: SortKey = "compute",
    current: Mapping[str, Iterable[str]] | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> Solution:
    """Returns the best plan found, with a lower bound of the optimum.

    Args:
        instance: Devices, modules, tasks.
        method: `greedy`; `auto`: greedy, local search, and the exact search if the instance is small and HiGHS is
            installed; `exact`: the same, with HiGHS required and a larger budget. Both return the best plan when time
            is up.
        budget_s: Time budget, seconds; None: 1 for `auto`, 60 for `exact`. The greedy and the bounds always finish.
        key: Sort key of the greedy.
        current: Another initial placement, module -> devices, used if it is better than the greedy's.
        clock: Monotonic seconds.

    Raises:
        NoCapacityError: The modules do not fit; the detail names them and the missing memory.
        S2M3Error: The method is `exact` and HiGHS is not installed.
    """
    started = clock()
    if method == "exact":
        require()
    budget = budget_s if budget_s is not None else _BUDGET_S[method]

    def seconds_left() -> float:
        return started + budget - clock()

    problem = Problem(instance)
    layout = first_layout(problem, key, current)
    if method == "greedy":
        return solution_of(bounded(layout), method, clock() - started)
    return solution_of(best_layout(layout, seconds_left, under_load=method == "auto"), method, clock() - started)


def best_layout(
    start: Layout, seconds_left: Callable[[], float], *, under_load: bool, is_bounded: bool = True
) -> Outcome:
    """Returns the best layout found in the available time: local search, exact search, local search again.

    Args:
        start: A layout with its routes; not changed.
        seconds_left: Returns the seconds until time is up.
        under_load: Whether queueing counts for tasks with rates (planner/solving/queueing.py). The bound is always that
            of idle devices.
        is_bounded: Whether the outcome needs a bound. Without one, a large instance is searched by local moves alone:
            of a thousand devices the bound takes seconds, which no time limit ends.
    """
    layout = start.copy()
    until = seconds_left() * (1 - _IMPROVING)
    descend(layout, lambda: seconds_left() < until)
    layout = shake(layout, lambda: seconds_left() < until, rounds=_SHAKES)
    if not is_bounded and not is_small(layout.problem):
        outcome = Outcome(layout, 0.0)
    else:
        outcome = search(layout, seconds_left) if is_available() else bounded(layout)
    if under_load and has_rates(layout.problem):
        loaded = outcome.layout.copy()
        relieve(loaded, lambda: seconds_left() <= 0)
        return Outcome(loaded, outcome.bound_s)
    if not outcome.is_proven and seconds_left() > 0:
        more = shake(outcome.layout, lambda: seconds_left() <= 0, rounds=_MORE_SHAKES, seed=1)
        outcome = Outcome(more, outcome.bound_s)
    return outcome


def first_layout(
    problem: Problem, key: SortKey = "compute", current: Mapping[str, Iterable[str]] | None = None
) -> Layout:
    """Returns the greedy's layout, or the completed current one if that is better; if both fail, any that fits.

    Raises:
        NoCapacityError: The modules do not fit; the detail names them and the missing memory.
    """
    layouts = []
    if current is not None:
        layout = kept(problem, current)
        missing = sorted_by_need(problem, key, (m for m, devices in enumerate(layout.copies) if not devices))
        if all(make_room(layout, module) for module in complete(layout, missing)):
            layout.reroute()
            layouts.append(layout)
    try:
        layouts.append(lay_out(problem, key))
    except NoCapacityError:
        copies = find_room(problem, _FITTING_S) if is_available() and is_small(problem) and not layouts else None
        if copies is not None:
            layout = Layout(problem, copies)
            layout.reroute()
            layouts.append(layout)
        if not layouts:
            raise
    return min(layouts, key=lambda layout: layout.objective_s)


def solution_of(outcome: Outcome, method: str, solve_s: float) -> Solution:
    """Returns a search's result by ids; `method` is the name of the search, and `solve_s` the seconds that it took."""
    layout, problem = outcome.layout, outcome.layout.problem
    tasks = {}
    for t, task in enumerate(problem.instance.tasks):
        shape, route = problem.tasks[t], problem.route_ids(problem.tasks[t], layout.routes[t])
        price_s = problem.price_s(shape, layout.routes[t])
        latency_s = layout.latencies[t] - price_s
        tasks[task.id] = TaskPlan(latency_s, route, energy_of(problem.instance, task, route, latency_s), price_s)
    return Solution(
        method=method,
        objective_s=layout.objective_s,
        proven_optimal=outcome.is_proven,
        lower_bound_s=layout.objective_s if outcome.is_proven else min(outcome.bound_s, layout.objective_s),
        placement=named(layout),
        tasks=tasks,
        memory_mb=dict(zip(problem.device_ids, layout.used_mb(), strict=True)),
        solve_s=solve_s,
    )
