"""The parts of the search one by one: where it begins, which moves it finds without HiGHS, and what it takes."""

from itertools import count
from typing import Any

import pytest

from s2m3.planner.solving.greedy import greedy
from s2m3.planner.solving.integer_program import Program
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.solve import solve
from s2m3.schemas.instance import Instance, parse_instance
from tests.conftest import WAIT_S
from tests.planner import naive


def instance(
    devices: dict[str, float], modules: dict[str, tuple[float, dict[str, float]]], *tasks: list[str], **device: Any
) -> Instance:
    """Devices with room, modules with their size and times, and tasks whose steps follow one another."""
    return parse_instance(
        {
            "devices": [{"id": name, "memory_mb": mb, **device} for name, mb in devices.items()],
            "modules": [
                {"id": name, "memory_mb": mb, "output_kb": 1_000, "seconds": seconds}
                for name, (mb, seconds) in modules.items()
            ],
            "tasks": [
                {
                    "id": f"t{t}",
                    "steps": [
                        {"id": f"s{s}", "module": module, "after": [f"s{s - 1}"] if s else []}
                        for s, module in enumerate(steps)
                    ],
                }
                for t, steps in enumerate(tasks)
            ],
        }
    )


@pytest.fixture
def without_highs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2m3.planner.solving.solve.is_available", lambda: False)


def test_the_greedy_places_first_what_its_key_says() -> None:
    one_fits = instance(
        {"fast": 6, "slow": 20},
        {"large": (6, {"fast": 0.5, "slow": 1.0}), "long": (5, {"fast": 5.0, "slow": 9.0})},
        ["large"],
        ["long"],
    )
    assert greedy(one_fits, key="memory") == {"large": ["fast"], "long": ["slow"]}
    assert greedy(one_fits, key="compute") == {"large": ["slow"], "long": ["fast"]}
    assert greedy(one_fits) == greedy(one_fits, key="compute")
    assert solve(one_fits, method="greedy", key="memory").placement == greedy(one_fits, key="memory")
    assert solve(one_fits, method="greedy").placement == greedy(one_fits)


def test_the_greedy_method_stays_with_what_the_greedy_finds_and_says_what_it_took() -> None:
    found = next(
        home
        for home in map(naive.home_instance, count())
        if solve(home, method="greedy").objective_s > solve(home, budget_s=60.0).objective_s + 1e-6
    )
    ticks = iter([100.0, 103.0])
    solution = solve(found, method="greedy", clock=lambda: next(ticks))
    assert solution.placement == greedy(found)
    assert solution.solve_s == 3.0


def test_a_current_placement_is_made_complete_and_begun_with_if_it_is_better() -> None:
    home = naive.home_instance(5)
    best = solve(home, budget_s=60.0)
    some = dict(list(best.placement.items())[3:])
    again = solve(home, method="greedy", current=some)
    assert {module: again.placement[module] for module in some} == some
    assert again.placement.keys() == best.placement.keys()


@pytest.mark.usefixtures("without_highs")
def test_two_modules_that_fill_their_devices_exactly_change_places() -> None:
    """Neither can move before the other has: only a move of both at once finds it."""
    swapped = instance({"a": 3, "b": 3}, {"x": (3, {"a": 2.0, "b": 1.0}), "y": (3, {"a": 1.0, "b": 2.0})}, ["x"], ["y"])
    current = {"x": ["a"], "y": ["b"]}
    assert solve(swapped, budget_s=60.0, current=current).placement == {"x": ["b"], "y": ["a"]}


@pytest.mark.usefixtures("without_highs")
def test_two_modules_move_together_where_each_alone_would_lose() -> None:
    """1,000 kB between them take a second each way: only together on the faster device they gain."""
    pair = instance(
        {"a": 4, "b": 4}, {"x": (2, {"a": 0.5, "b": 0.4}), "y": (2, {"a": 0.5, "b": 0.4})}, ["x", "y"], mbps=16.0
    )
    current = {"x": ["a"], "y": ["a"]}
    assert solve(pair, budget_s=60.0, current=current).placement == {"x": ["b"], "y": ["b"]}


@pytest.mark.usefixtures("without_highs")
def test_a_second_copy_is_made_where_two_are_allowed() -> None:
    """Each task is asked from a device of its own, and the input is large: a copy at each saves the transfer."""
    document = instance({"a": 4, "b": 4}, {"x": (2, {"a": 0.5, "b": 0.5})}, ["x"], ["x"], mbps=8.0).model_dump()
    document["modules"][0]["input_kb"] = 1_000
    document["tasks"][0]["source"], document["tasks"][1]["source"] = "a", "b"
    for copies, placement in ((1, 1), (2, 2), (3, 2)):
        found = solve(parse_instance({**document, "max_replicas": copies}), budget_s=60.0)
        assert len(found.placement["x"]) == placement


def test_nothing_is_improved_without_time() -> None:
    home = naive.home_instance(1)
    assert solve(home, budget_s=0.0).objective_s == pytest.approx(solve(home, method="greedy").objective_s)


def test_a_placement_that_was_excluded_is_not_found_again() -> None:
    problem = Problem(instance({"a": 10.0, "b": 10.0}, {"m": (8.0, {"a": 1.0, "b": 1.0})}, ["m"]))
    program = Program(problem, [], float("inf"))
    found: list[list[int]] = []
    while (copies := program.solve(WAIT_S).copies) is not None:
        assert copies[0] not in found
        found.append(copies[0])
        program.exclude(copies)
    assert {device for devices in found for device in devices} == {0, 1}
