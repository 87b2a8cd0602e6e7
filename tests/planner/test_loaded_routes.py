"""Routes changed one by one have the objective that is computed from nothing, and can be taken back."""

import random

import pytest

from s2m3.planner.solving.loaded_routes import LoadedRoutes
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.queueing import loaded_objective_s
from s2m3.planner.solving.second_copies import second_copies
from s2m3.planner.solving.solve import solve
from s2m3.schemas.instance import Instance, parse_instance
from tests.planner import naive


def _loaded(seed: int) -> Instance:
    """A home whose tasks are asked, one of them never, so that some devices are nearly or more than busy."""
    document = naive.home_instance(seed).model_dump()
    for position, task in enumerate(document["tasks"]):
        task["rate"] = 0.4 * position
        task["weight"] = 1.0 + position
    return parse_instance(document)


def _random_route(problem: Problem, task: int, chance: random.Random) -> tuple[int, ...]:
    return tuple(int(chance.choice(problem.able(module).tolist())) for module in problem.tasks[task].modules)


@pytest.mark.parametrize("seed", range(6))
def test_the_objective_is_that_computed_from_nothing_after_each_route(seed: int) -> None:
    problem, chance = Problem(_loaded(seed)), random.Random(seed)  # noqa: S311  # a test's chance
    load = LoadedRoutes(problem, [_random_route(problem, t, chance) for t in range(len(problem.tasks))])
    assert load.objective_s == pytest.approx(loaded_objective_s(problem, load.routes))
    taken = 0
    for _ in range(60):
        task = chance.randrange(len(problem.tasks))
        route, before = _random_route(problem, task, chance), load.routes.copy()
        changed = [route if t == task else was for t, was in enumerate(before)]
        better = loaded_objective_s(problem, changed) < load.objective_s - 1e-9
        if load.take_if_better(task, route):
            taken += 1
            assert load.routes == changed
        else:
            assert not better
            assert load.routes == before
        assert load.taken == taken
        assert load.objective_s == pytest.approx(loaded_objective_s(problem, load.routes))
    assert taken > 0


def test_routes_are_taken_back_in_every_bit() -> None:
    problem, chance = Problem(_loaded(1)), random.Random(1)  # noqa: S311  # a test's chance
    load = LoadedRoutes(problem, [_random_route(problem, t, chance) for t in range(len(problem.tasks))])
    seen = [(load.routes.copy(), load.objective_s)]
    while len(seen) < 5:
        task = chance.randrange(len(problem.tasks))
        if load.take_if_better(task, _random_route(problem, task, chance)):
            seen.append((load.routes.copy(), load.objective_s))
    for taken in (3, 1, 0):
        load.undo_to(taken)
        assert (load.routes, load.objective_s) == seen[taken]
    again = LoadedRoutes(problem, load.routes)
    assert again.objective_s == load.objective_s
    route = _random_route(problem, 2, chance)
    assert again.take_if_better(2, route) == load.take_if_better(2, route)
    assert again.objective_s == pytest.approx(load.objective_s)


def test_without_time_second_copies_count_losses_alone() -> None:
    instance = _loaded(2)
    placement = solve(instance, method="greedy").placement
    idle = instance.model_copy(
        update={"tasks": tuple(task.model_copy(update={"rate": None}) for task in instance.tasks)}
    )
    without = second_copies(instance, placement, seconds_left=lambda: 0.0)
    assert without == second_copies(idle, placement)
    assert second_copies(instance, placement) != without
    left = iter([1.0] * 5 + [0.0] * 10_000)
    assert second_copies(instance, placement, seconds_left=lambda: next(left)).keys() >= without.keys()
