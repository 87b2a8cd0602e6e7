"""Preferences: an order of devices per task and a weight per device count as seconds in the objective."""

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2m3.planner.solving.bounds import Paths, task_bounds_s
from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.integer_program import is_available
from s2m3.planner.solving.latency import latencies_s, latency_s
from s2m3.planner.solving.preferences import prices_s
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.replan import replan
from s2m3.planner.solving.second_copies import second_copies
from s2m3.planner.solving.solve import solve
from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.instance import Instance, parse_instance
from s2m3.schemas.instance_paths import without_device
from tests.command import s2m3_here
from tests.planner import naive

#: One module that three devices run; the desktop is the slowest.
SITE: dict[str, Any] = {
    "devices": [{"id": name, "memory_mb": 1000} for name in ("desktop", "laptop", "pi")],
    "modules": [{"id": "m", "memory_mb": 400, "seconds": {"desktop": 1.5, "laptop": 1.0, "pi": 0.9}}],
    "tasks": [{"id": "t", "steps": [{"id": "only", "module": "m"}]}],
}


def site(*, prefer: tuple[str, ...] = (), weights: dict[str, float] | None = None, **more: Any) -> Instance:
    devices = [{**device, "prefer": (weights or {}).get(device["id"], 1.0)} for device in SITE["devices"]]
    return parse_instance({**SITE, "devices": devices, "tasks": [{**SITE["tasks"][0], "prefer": prefer}], **more})


@st.composite
def preferring_instances(draw: st.DrawFn) -> Instance:
    """Tiny instances with weights and orders, in eighths: sums of floats are exact."""
    plain = draw(naive.tiny_instances(max_replicas=1)).model_dump()
    names = [device["id"] for device in plain["devices"]]
    for device in plain["devices"]:
        device["prefer"] = draw(st.integers(0, 4)) / 2
    for task in plain["tasks"]:
        task["prefer"] = draw(st.lists(st.sampled_from(names), unique=True))
    return parse_instance({**plain, "preference_s": draw(st.integers(0, 8)) / 8})


def test_a_place_in_the_order_and_a_point_of_weight_are_worth_the_same() -> None:
    weights = {"desktop": 2.0, "laptop": 1.0, "pi": 1.0}
    assert prices_s(weights, [], 1.0) == {"desktop": 0.0, "laptop": 1.0, "pi": 1.0}
    assert prices_s(weights, ["laptop", "away", "pi"], 0.5) == {"desktop": 1.0, "laptop": 0.5, "pi": 1.0}


@pytest.mark.parametrize(
    ("instance", "chosen"),
    [
        (site(), "pi"),
        (site(prefer=("desktop",)), "desktop"),
        (site(prefer=("desktop", "laptop")), "desktop"),
        (site(weights={"desktop": 2.0}), "desktop"),
        (site(weights={"desktop": 1.5}), "pi"),  # half a second is less than the 0.6 that the desktop takes longer
        (site(prefer=("desktop",), preference_s=0.5), "pi"),
        (site(prefer=("desktop",), weights={"laptop": 3.0}), "laptop"),
    ],
)
def test_a_preference_is_worth_its_seconds_and_no_more(instance: Instance, chosen: str) -> None:
    solution = solve(instance)
    assert solution.placement == {"m": [chosen]}
    seconds = instance.modules[0].seconds[chosen]
    assert solution.tasks["t"].latency_s == pytest.approx(seconds), "what is preferred takes no longer for that"
    assert solution.objective_s == pytest.approx(seconds + solution.tasks["t"].preference_s)


@pytest.mark.skipif(not is_available(), reason="highspy is not installed")
@settings(max_examples=60)
@given(preferring_instances())
def test_the_plan_is_what_trying_everything_finds(instance: Instance) -> None:
    best = naive.best_objective_s(instance)
    if best is None:
        return
    solution = solve(instance, method="exact")
    assert solution.proven_optimal
    assert solution.objective_s == pytest.approx(best, rel=1e-7, abs=1e-9)
    for task in instance.tasks:
        plan = solution.tasks[task.id]
        assert plan.latency_s == pytest.approx(float(naive.latency_s(instance, task, dict(plan.route))), abs=1e-9)
        assert plan.preference_s == float(naive.price_s(instance, task, dict(plan.route)))


@settings(max_examples=40)
@given(preferring_instances())
def test_one_route_and_many_at_once_cost_the_same_and_no_less_than_the_bound(instance: Instance) -> None:
    problem = Problem(instance)
    bounds = task_bounds_s(Costs(problem))
    room = {device.id: device.memory_mb for device in instance.devices}
    everywhere = {m.id: tuple(d for d in m.seconds if m.memory_mb <= room[d]) for m in instance.modules}
    for shape, task, bound in zip(problem.tasks, instance.tasks, bounds, strict=True):
        if not (found := list(naive.routes(task, everywhere))):
            continue
        positions = [[problem.device_at[route[step]] for step in shape.step_ids] for route in found]
        one_by_one = [latency_s(problem, shape, route) for route in positions]
        assert latencies_s(problem, shape, list(np.array(positions).T)).tolist() == one_by_one
        expected = [naive.latency_s(instance, task, r) + naive.price_s(instance, task, r) for r in found]
        assert one_by_one == pytest.approx([float(cost) for cost in expected], abs=1e-9)
        assert bound == pytest.approx(min(one_by_one), abs=1e-9)
        for step, through in enumerate(Paths(problem).through_s(shape)):
            for route, cost in zip(positions, one_by_one, strict=True):
                assert through[route[step]] <= cost + 1e-9


def test_what_is_preferred_is_moved_to_when_it_comes_and_left_alone_for_little() -> None:
    back = replan(site(prefer=("desktop",), preference_s=2.0), {"m": ["laptop"]})
    assert (back.placement, back.why) == ({"m": ["desktop"]}, "gain")
    little = replan(site(prefer=("desktop",), preference_s=0.65), {"m": ["pi"]})
    assert (little.placement, little.why) == ({"m": ["pi"]}, "unchanged")


def test_a_second_copy_goes_where_it_is_preferred_and_no_preference_prevents_it() -> None:
    assert second_copies(site(), {"m": ["desktop"]}) == {"m": ["laptop"]}
    assert second_copies(site(prefer=("desktop", "pi")), {"m": ["desktop"]}) == {"m": ["pi"]}
    far = site(prefer=("desktop",), preference_s=100.0)
    assert second_copies(far, {"m": ["desktop"]}).keys() == {"m"}


def test_an_order_names_known_devices_once_and_loses_those_that_are_taken_away() -> None:
    with pytest.raises(BadDefinitionError, match=r"tasks\.t\.prefer: unknown device 'cellar'"):
        site(prefer=("desktop", "cellar"))
    with pytest.raises(BadDefinitionError, match=r"tasks\.t\.prefer: a device is there twice"):
        site(prefer=("desktop", "desktop"))
    document = site(prefer=("desktop", "laptop")).model_dump(mode="json")
    assert solve(parse_instance(without_device(document, "desktop"))).placement == {"m": ["laptop"]}


def test_the_command_takes_preferences_and_says_what_they_counted(tmp_path: Any) -> None:
    file = tmp_path / "home.json"
    file.write_text(json.dumps({**SITE, "tasks": [{**SITE["tasks"][0], "prefer": ["laptop"]}]}))
    plan = json.loads(s2m3_here("plan", str(file), "--json").stdout)
    assert plan["placement"] == {"m": ["laptop"]}
    assert "preference_s" not in plan["tasks"]["t"]
    swept = json.loads(s2m3_here("plan", str(file), "--sweep", "preference_s=0,1", "--json").stdout)
    assert [case["placement"]["m"] for case in swept["cases"]] == [["pi"], ["laptop"]]
    away = json.loads(s2m3_here("plan", str(file), "--without", "laptop", "--json").stdout)
    assert away["placement"] == {"m": ["pi"]}


def test_the_price_of_a_route_is_what_the_plain_reckoning_says() -> None:
    instance = site(prefer=("desktop", "laptop"), weights={"pi": 3.0}, preference_s=0.25)
    route = {"only": "laptop"}
    assert naive.price_s(instance, instance.tasks[0], route) == Fraction(1, 4) * (1 + 2)
