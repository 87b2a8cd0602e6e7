"""Lower bounds against every route: never above what can be had, and exact where steps follow one another."""

import math

import pytest
from hypothesis import given, settings

from s2m3.planner.solving.bounds import Paths, task_bounds_s
from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.problem import Problem
from s2m3.schemas.instance import Instance, PlacedTask, parse_instance
from tests.planner import naive


def least_through_s(instance: Instance, task: PlacedTask, step: str, device: str) -> float:
    """The least latency of all routes that have a step on a device; infinite where its module cannot be."""
    room = {device.id: device.memory_mb for device in instance.devices}
    everywhere = {m.id: tuple(d for d in m.seconds if m.memory_mb <= room[d]) for m in instance.modules}
    found = [naive.latency_s(instance, task, r) for r in naive.routes(task, everywhere) if r[step] == device]
    return float(min(found, default=math.inf))


def is_chain(task: PlacedTask) -> bool:
    followed = [before for step in task.steps for before in step.after]
    return len(followed) == len(set(followed)) and all(len(step.after) <= 1 for step in task.steps)


@settings(max_examples=60)
@given(naive.tiny_instances())
def test_no_route_through_a_step_on_a_device_is_faster_than_its_bound(instance: Instance) -> None:
    problem = Problem(instance)
    for shape, task in zip(problem.tasks, instance.tasks, strict=True):
        through = Paths(problem).through_s(shape)
        for s, step in enumerate(shape.step_ids):
            for d, device in enumerate(problem.device_ids):
                least = least_through_s(instance, task, step, device)
                if is_chain(task):
                    assert through[s][d] == pytest.approx(least, abs=1e-9)
                else:
                    assert through[s][d] <= least


@settings(max_examples=60)
@given(naive.tiny_instances())
def test_the_bound_of_a_task_is_its_best_route_where_all_are_tabulated(instance: Instance) -> None:
    problem = Problem(instance)
    best = [
        min(least_through_s(instance, task, task.steps[0].id, device) for device in problem.device_ids)
        for task in instance.tasks
    ]
    assert task_bounds_s(Costs(problem)).tolist() == pytest.approx(best, abs=1e-9)
    assert task_bounds_s(Costs(problem), [0]).tolist() == pytest.approx(best[:1], abs=1e-9)


def chain(devices: int, steps: int) -> Instance:
    """A task of steps one after another, each fast on a device of its own: too many routes for a table."""
    return parse_instance(
        {
            "devices": [
                {"id": f"d{d}", "memory_mb": 9, "latency_ms": d % 7, "mbps": 10 + 13 * (d % 5)} for d in range(devices)
            ],
            "modules": [
                {
                    "id": f"m{s}",
                    "memory_mb": 1,
                    "input_kb": 10,
                    "output_kb": 5 + s,
                    "seconds": {f"d{d}": 0.1 + ((d * 7 + s * 3) % 11) / 100 for d in range(devices)},
                }
                for s in range(steps)
            ],
            "tasks": [
                {
                    "id": "t",
                    "source": "d0",
                    "steps": [
                        {"id": f"s{s}", "module": f"m{s}", "after": [f"s{s - 1}"] if s else []} for s in range(steps)
                    ],
                }
            ],
        }
    )


def test_a_task_of_too_many_routes_for_a_table_is_bounded_by_its_shortest_path() -> None:
    instance = chain(devices=30, steps=6)
    problem = Problem(instance)
    costs = Costs(problem)
    assert costs.table(0) is None
    through = Paths(problem).through_s(problem.tasks[0])
    assert task_bounds_s(costs).tolist() == pytest.approx([max(float(step.min()) for step in through)])
    small = chain(devices=3, steps=6)
    shortest = [float(step.min()) for step in Paths(Problem(small)).through_s(Problem(small).tasks[0])]
    best = min(least_through_s(small, small.tasks[0], "s0", f"d{d}") for d in range(3))
    assert shortest == pytest.approx([best] * 6, abs=1e-9)
