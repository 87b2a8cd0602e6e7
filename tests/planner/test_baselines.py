"""What a plan is compared with: random placements, one device for all, and the energy of a request."""

import pytest
from hypothesis import given, settings

from s2m3.planner.solving.baselines import random_plans, solve_by
from s2m3.planner.solving.energy import energy_of
from s2m3.planner.solving.solve import solve
from s2m3.schemas.errors import BadInputError, NoCapacityError
from s2m3.schemas.instance import Instance
from tests.planner import naive


@settings(max_examples=40)
@given(naive.tiny_instances())
def test_random_plans_fit_and_none_is_better_than_trying_everything(instance: Instance) -> None:
    best = naive.best_objective_s(instance)
    try:
        plans = random_plans(instance, 5, seed=1)
    except NoCapacityError:
        return
    assert best is not None
    assert [plan.placement for plan in random_plans(instance, 5, seed=1)] == [plan.placement for plan in plans]
    for plan in plans:
        assert naive.fits(instance, plan.placement)
        assert all(len(devices) == 1 for devices in plan.placement.values())
        assert best <= plan.objective_s + 1e-9


def test_random_draws_differ_and_the_method_is_the_middle_one() -> None:
    instance = naive.home_instance(1)
    plans = random_plans(instance, 101)
    assert len({str(plan.placement) for plan in plans}) > 90
    values = sorted(plan.objective_s for plan in plans)
    assert solve_by(instance, "random").objective_s == values[50]
    assert values[0] < values[50] < values[-1]


@settings(max_examples=40)
@given(naive.tiny_instances())
def test_one_device_for_all_is_what_a_plan_on_that_device_alone_costs(instance: Instance) -> None:
    for device in instance.devices:
        held = sum(module.memory_mb for module in instance.modules)
        able = all(device.id in module.seconds for module in instance.modules)
        if held > device.memory_mb or not able:
            with pytest.raises(NoCapacityError, match=device.id):
                solve_by(instance, f"single:{device.id}")
            continue
        plan = solve_by(instance, f"single:{device.id}")
        routes = {task.id: {step.id: device.id for step in task.steps} for task in instance.tasks}
        alone = [task.weight * float(naive.latency_s(instance, task, routes[task.id])) for task in instance.tasks]
        assert plan.objective_s == pytest.approx(sum(alone), abs=1e-9)
        assert plan.memory_mb[device.id] == held


def test_the_methods_by_name_are_the_solvers() -> None:
    instance = naive.home_instance(2)
    for key in ("compute", "memory"):
        found = solve_by(instance, f"greedy:{key}").placement
        assert found == solve(instance, method="greedy", key=key).placement
    assert solve_by(instance, "greedy").placement == solve_by(instance, "greedy:compute").placement
    for wrong, said in (("fast", "no method"), ("greedy:size", "no method"), ("single:pi", "no device 'pi'")):
        with pytest.raises(BadInputError, match=said):
            solve_by(instance, wrong)


def test_energy_is_watts_while_computing_and_idle_watts_until_the_reply() -> None:
    """The example of docs/placement.md: the text on the Pi, the picture and the head on the desktop."""
    instance = naive.home_instance(3)
    devices = [device.model_copy(update={"energy_w": 10.0, "idle_w": 4.0}) for device in instance.devices]
    powered = instance.model_copy(update={"devices": tuple(devices)})
    plan = solve(powered, method="greedy")
    for task in powered.tasks:
        placed = plan.tasks[task.id]
        seconds = {module.id: module.seconds for module in powered.modules}
        busy = sum(seconds[step.module][placed.route[step.id]] for step in task.steps)
        places = len(set(placed.route.values()))
        assert placed.energy is not None
        assert placed.energy.above_idle == pytest.approx(busy * 6)
        assert placed.energy.joules == pytest.approx(busy * 6 + places * placed.latency_s * 4)
    assert "joules" not in str(solve(instance, method="greedy").to_json())
    known = [devices[0], *instance.devices[1:]]
    partly = instance.model_copy(update={"devices": tuple(known)})
    route = {step.id: "d0" for step in partly.tasks[0].steps}
    assert energy_of(partly, partly.tasks[0], route, 1.0) is not None
    assert energy_of(partly, partly.tasks[0], {**route, "s0": "d1"}, 1.0) is None
