"""The exact search's parts one by one: what is left out of the program, what fits exactly, and what HiGHS answers."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from s2m3.planner.solving.exact import _reduced_cost_fixing, _with_copies, find_room, is_small
from s2m3.planner.solving.integer_program import IntegerSolution, Program, Relaxed
from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.replan import replan
from s2m3.planner.solving.route_columns import TaskRoutes, routes_worth_trying
from s2m3.planner.solving.solve import solve
from tests.conftest import WAIT_S
from tests.planner.test_search_parts import instance


@pytest.mark.parametrize(("modules", "devices", "small"), [(100, 200, True), (201, 100, False), (2, 20_000, False)])
def test_a_problem_is_small_by_modules_times_devices(modules: int, devices: int, *, small: bool) -> None:
    counted = SimpleNamespace(modules=range(modules), device_ids=range(devices))
    assert is_small(cast("Problem", counted)) is small


def test_routes_are_kept_up_to_the_gap() -> None:
    """Best 2 s, bound 1 s: a route that costs more than the second between them is in no better plan."""
    gap = 2.0 - 1.0 + 1e-6 * 2.0
    routes = np.arange(4).reshape(4, 1)
    columns = TaskRoutes(cast("Any", None), routes, np.array([1.0, 2.0, 3.0, 4.0]))
    relaxed = Relaxed(1.0, np.zeros(0), [np.array([0.5, gap, gap + 1e-9, 3.5])])
    (kept,) = _reduced_cost_fixing([columns], relaxed, 2.0)
    assert kept.routes.tolist() == [[0], [1]]
    assert kept.costs_s.tolist() == [1.0, 2.0]


def test_copies_that_no_route_uses_are_dropped_also_where_a_device_is_full() -> None:
    problem = Problem(instance({"a": 3, "b": 3}, {"m": (3, {"a": 1.0, "b": 2.0})}, ["m"]))
    assert _with_copies(Layout(problem), {0: [0, 1]}).copies == [[0]]


def test_room_is_found_where_there_is_one_way_alone() -> None:
    able = {"a": 1.0, "b": 1.0}
    sizes = {"five": 5.0, "x": 3.0, "y": 3.0, "z": 3.0, "two": 2.0, "too": 2.0}
    problem = Problem(instance({"a": 9, "b": 9}, {name: (mb, able) for name, mb in sizes.items()}))
    found = find_room(problem, WAIT_S)
    assert found is not None
    five = found[0][0]
    assert found == {0: [five], 1: [1 - five], 2: [1 - five], 3: [1 - five], 4: [five], 5: [five]}


def test_what_fits_only_within_the_solvers_tolerance_is_no_room() -> None:
    """Half a byte too much: HiGHS takes it, an agent's budget does not."""
    over = 4.0 + 5e-7
    twice = {"x": (over, {"a": 1.0, "b": 1.0}), "y": (4.0, {"a": 1.0})}
    assert find_room(Problem(instance({"a": 8, "b": 3}, twice)), WAIT_S) is None
    assert find_room(Problem(instance({"a": 8, "b": over}, twice)), WAIT_S) == {0: [1], 1: [0]}
    exactly = Problem(instance({"a": 8}, {"x": (4.0 + SLACK_MB / 2, {"a": 1.0}), "y": (4.0, {"a": 1.0})}))
    assert find_room(exactly, WAIT_S) == {0: [0], 1: [0]}


def test_that_no_copies_fit_is_a_finished_search() -> None:
    program = Program(Problem(instance({"a": 4}, {"x": (3, {"a": 1.0}), "y": (3, {"a": 1.0})})), [], np.inf)
    assert program.solve(WAIT_S) == IntegerSolution(np.inf, None, is_finished=True)
    assert program.relax(WAIT_S) is None


@pytest.mark.parametrize("seconds", [0.001, 0.5, 1_000.0])
def test_bounds_are_in_seconds_whatever_the_objective(seconds: float) -> None:
    """Two tasks compete for the fast device: one module on the other takes twice as long."""
    times = {"a": seconds, "b": 2 * seconds}
    layout = Layout(Problem(instance({"a": 3, "b": 3}, {"x": (3, times), "y": (3, times)}, ["x"], ["y"])))
    layout.add(0, 0)
    layout.add(1, 1)
    layout.reroute()
    _, tasks = routes_worth_trying(layout.costs, 2 * layout.objective_s)
    assert tasks is not None
    program = Program(layout.problem, tasks, layout.objective_s)
    relaxed, solved = program.relax(WAIT_S), program.solve(WAIT_S)
    assert relaxed is not None
    assert relaxed.bound_s == pytest.approx(layout.objective_s)
    assert len(relaxed.x_reduced_s) == 4
    assert [len(reduced) for reduced in relaxed.y_reduced_s] == [len(task.routes) for task in tasks]
    assert solved.is_finished
    assert solved.bound_s == pytest.approx(layout.objective_s)
    assert solved.copies in ({0: [0], 1: [1]}, {0: [1], 1: [0]})


def test_a_plan_says_its_objective() -> None:
    given = instance({"a": 3, "b": 3}, {"x": (3, {"a": 0.5, "b": 2.0})}, ["x"])
    lost, kept = replan(given, {}), replan(given, {"x": ["b"]}, budget_s=0.0)
    assert (lost.placement, kept.placement) == ({"x": ["a"]}, {"x": ["b"]})
    assert lost.objective_s == pytest.approx(solve(given).objective_s)
    assert kept.objective_s == pytest.approx(lost.objective_s + 1.5)


def test_routes_are_looked_for_no_longer_than_there_is_time() -> None:
    given = instance({"a": 9, "b": 9}, {"x": (3, {"a": 0.5, "b": 2.0}), "y": (3, {"a": 1.0, "b": 2.0})}, ["x"], ["y"])
    layout = Layout(Problem(given))
    layout.add(0, 0)
    layout.add(1, 0)
    layout.reroute()
    bound_s, tasks = routes_worth_trying(layout.costs, 2 * layout.objective_s, iter([1.0, 0.0]).__next__)
    assert tasks is None  # the time was over after the first of two tasks
    assert 0 < bound_s <= layout.objective_s
