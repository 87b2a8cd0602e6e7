"""Every method finds plans that fit, no bound is above what can be had, and what is proven is the best there is."""

import json
import subprocess
import sys
from itertools import count

import pytest
from hypothesis import given, settings

from s2m3.planner.solving.integer_program import is_available
from s2m3.planner.solving.solve import Method, Solution, solve
from s2m3.schemas.errors import NoCapacityError, S2M3Error
from s2m3.schemas.instance import Instance, parse_instance
from tests.planner import naive

needs_highs = pytest.mark.skipif(not is_available(), reason="highspy is not installed")


def _check(instance: Instance, solution: Solution) -> None:
    """What has to be true of any solution, worked out from the instance alone."""
    placement = {module: tuple(devices) for module, devices in solution.placement.items()}
    assert placement.keys() == {module.id for module in instance.modules}
    assert naive.fits(instance, placement)
    for module in instance.modules:
        devices = placement[module.id]
        assert 1 <= len(devices) == len(set(devices)) <= instance.max_replicas
        assert set(devices) <= module.seconds.keys()
    total = 0.0
    for task in instance.tasks:
        plan = solution.tasks[task.id]
        assert plan.route.keys() == {step.id for step in task.steps}
        assert all(plan.route[step.id] in placement[step.module] for step in task.steps)
        assert plan.latency_s == pytest.approx(float(naive.latency_s(instance, task, dict(plan.route))), abs=1e-9)
        total += task.weight * plan.latency_s
    assert solution.objective_s == pytest.approx(total, abs=1e-9)
    assert solution.lower_bound_s <= solution.objective_s
    if solution.proven_optimal:
        assert solution.lower_bound_s == solution.objective_s


@needs_highs
@settings(max_examples=80)
@given(naive.tiny_instances())
def test_exact_is_what_trying_everything_finds(instance: Instance) -> None:
    best = naive.best_objective_s(instance)
    if best is None:
        with pytest.raises(NoCapacityError):
            solve(instance, method="exact")
        return
    solution = solve(instance, method="exact")
    _check(instance, solution)
    assert solution.proven_optimal
    assert solution.objective_s == pytest.approx(best, rel=1e-7, abs=1e-9)


@settings(max_examples=60)
@given(naive.tiny_instances())
def test_greedy_fits_wherever_anything_fits_and_its_bound_is_below_the_best(instance: Instance) -> None:
    best = naive.best_objective_s(instance)
    if best is None:
        with pytest.raises(NoCapacityError):
            solve(instance, method="greedy")
        return
    for key in ("memory", "compute"):
        solution = solve(instance, method="greedy", key=key)
        _check(instance, solution)
        assert solution.lower_bound_s <= best + 1e-9 <= solution.objective_s + 2e-9


@settings(max_examples=30)
@given(naive.tiny_instances())
def test_auto_is_what_trying_everything_finds(instance: Instance) -> None:
    best = naive.best_objective_s(instance)
    if best is None:
        return
    solution = solve(instance)
    _check(instance, solution)
    assert solution.objective_s == pytest.approx(best, rel=1e-7, abs=1e-9)


@needs_highs
@pytest.mark.parametrize("replicas", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_auto_proves_instances_of_home_size(seed: int, replicas: int) -> None:
    instance = naive.home_instance(seed, max_replicas=replicas)
    solution = solve(instance, budget_s=60.0)
    _check(instance, solution)
    assert solution.proven_optimal
    exact = solve(instance, method="exact")
    assert solution.objective_s == pytest.approx(exact.objective_s, rel=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_without_highs_auto_still_improves_and_stays_above_its_bound(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance = naive.home_instance(seed)
    best = solve(instance, budget_s=60.0).objective_s
    monkeypatch.setattr("s2m3.planner.solving.solve.is_available", lambda: False)
    solution = solve(instance, budget_s=0.3)
    _check(instance, solution)
    assert solution.objective_s <= solve(instance, method="greedy").objective_s
    assert solution.lower_bound_s <= best * (1 + 1e-9)


def test_exact_without_highs_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("s2m3.schemas.extras.missing", lambda _: ["highspy"])
    with pytest.raises(S2M3Error, match=r"the exact search needs highspy: .*s2m3\[exact\]"):
        solve(naive.home_instance(0), method="exact")


def test_more_copies_are_never_worse() -> None:
    one, two = (solve(naive.home_instance(3, max_replicas=r), budget_s=60.0).objective_s for r in (1, 2))
    assert two <= one + 1e-9


@pytest.mark.parametrize("method", ["auto", "greedy", "exact"])
def test_the_json_has_the_keys_of_the_design_and_nothing_else_is_printed(
    method: Method, capfd: pytest.CaptureFixture[str]
) -> None:
    document = json.loads(json.dumps(solve(naive.home_instance(1), method=method).to_json()))
    assert list(document) == [
        "method",
        "objective_s",
        "proven_optimal",
        "lower_bound_s",
        "placement",
        "tasks",
        "memory_mb",
        "solve_s",
    ]
    assert document["method"] == method
    assert set(document["tasks"]["t0"]) == {"latency_s", "route"}
    assert capfd.readouterr().out == ""


def test_the_clock_given_is_the_clock_used() -> None:
    ticks = count()
    solution = solve(naive.home_instance(2), budget_s=0.0, clock=lambda: float(next(ticks)))
    assert solution.solve_s == int(solution.solve_s) > 0
    assert solution.tasks


def test_the_same_instance_gives_the_same_plan() -> None:
    first, second = (solve(naive.home_instance(4), budget_s=60.0).placement for _ in range(2))
    assert first == second


def test_a_better_current_placement_is_kept() -> None:
    instance = naive.home_instance(5)
    best = solve(instance, budget_s=60.0)
    again = solve(instance, budget_s=0.0, current=best.placement)
    assert again.objective_s <= best.objective_s + 1e-9


def test_what_does_not_fit_is_named_with_numbers() -> None:
    instance = parse_instance(
        {
            "devices": [{"id": "pi", "memory_mb": 500}, {"id": "pc", "memory_mb": 100}],
            "modules": [
                {"id": "vit", "memory_mb": 400, "seconds": {"pi": 1, "pc": 1}},
                {"id": "text", "memory_mb": 250, "seconds": {"pi": 0.5}},
            ],
            "tasks": [
                {
                    "id": "t",
                    "steps": [{"id": "a", "module": "vit"}, {"id": "b", "module": "text", "after": ["a"]}],
                }
            ],
        }
    )
    for method in ("auto", "greedy", "exact"):
        with pytest.raises(NoCapacityError) as caught:
            solve(instance, method=method)
        assert "text needs 250 MB" in caught.value.detail
        assert "150 MB too little" in caught.value.detail


def test_modules_that_no_task_uses_get_a_place_too() -> None:
    instance = parse_instance(
        {
            "devices": [{"id": "a", "memory_mb": 3}, {"id": "b", "memory_mb": 2}],
            "modules": [{"id": f"m{n}", "memory_mb": 1, "seconds": {"a": 1, "b": 1}} for n in range(5)],
            "tasks": [],
        }
    )
    solution = solve(instance)
    _check(instance, solution)
    assert solution.proven_optimal


def test_the_planner_needs_neither_torch_nor_agents() -> None:
    code = (
        "import sys\n"
        "from s2m3.planner.solving import migration, replan, second_copies, solve\n"
        "print([m for m in sys.modules if m.startswith(('torch', 's2m3.agents', 's2m3.broker', 's2m3.c', 'highspy'))])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout == "[]\n"
