"""The evaluator says what design 6.1 says, alone and for many routes at once."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from s2m3.planner.solving.latency import Evaluator, latencies_s, latency_s
from s2m3.planner.solving.problem import ABSENT, Problem
from s2m3.planner.solving.solve import solve
from s2m3.schemas.instance import Instance, parse_instance
from tests.planner import naive

DOC = Path(__file__).parents[2] / "docs" / "placement.md"


@settings(max_examples=60)
@given(naive.tiny_instances())
def test_every_route_takes_what_a_walk_through_time_says(instance: Instance) -> None:
    problem = Problem(instance)
    for shape, task in zip(problem.tasks, instance.tasks, strict=True):
        placement = {module.id: tuple(module.seconds) for module in instance.modules}
        routes = list(naive.routes(task, placement))
        expected = [float(naive.latency_s(instance, task, route)) for route in routes]
        rows = [[problem.device_at[route[step]] for step in shape.step_ids] for route in routes]
        assert [latency_s(problem, shape, row) for row in rows] == expected
        assert latencies_s(problem, shape, list(np.array(rows).T)).tolist() == expected


def _two_devices(**task: Any) -> Instance:
    return parse_instance(
        {
            "devices": [
                {"id": "a", "memory_mb": 10, "latency_ms": 2, "mbps": 100},
                {"id": "b", "memory_mb": 10, "latency_ms": 3, "mbps": 10},
            ],
            "modules": [
                {"id": "m", "memory_mb": 1, "input_kb": 100, "output_kb": 10, "seconds": {"a": 1.0, "b": 0.5}},
                {"id": "n", "memory_mb": 1, "input_kb": 100, "output_kb": 10, "seconds": {"a": 0.25, "b": 0.5}},
            ],
            "tasks": [{"id": "t", **task}],
        }
    )


ONE = [{"id": "only", "module": "m"}]
TWO = [{"id": "x", "module": "m"}, {"id": "y", "module": "n"}, {"id": "z", "module": "n", "after": ["x", "y"]}]


def test_a_transfer_takes_both_latencies_and_the_slower_link() -> None:
    instance = _two_devices(source="a", steps=ONE)
    there, back = 2 + 3 + 8 * 100 / 10, 2 + 3 + 8 * 10 / 10
    assert Evaluator(instance).latency_s(instance.tasks[0], {"only": "b"}) == pytest.approx(
        (there + back) / 1000 + 0.5, abs=1e-12
    )


def test_without_a_source_only_the_devices_own_link_counts() -> None:
    instance = _two_devices(steps=ONE)
    there, back = 2 + 8 * 100 / 100, 2 + 8 * 10 / 100
    assert Evaluator(instance).latency_s(instance.tasks[0], {"only": "a"}) == pytest.approx(
        (there + back) / 1000 + 1.0, abs=1e-12
    )


def test_steps_on_one_device_queue_and_the_longer_goes_first_when_ready_together() -> None:
    instance = _two_devices(source="a", steps=TWO)
    # x (1 s) and y (0.25 s) are ready at 0 on a; z waits for both
    assert Evaluator(instance).latency_s(instance.tasks[0], {"x": "a", "y": "a", "z": "a"}) == 1.5


def test_side_by_side_steps_take_as_long_as_the_longer() -> None:
    instance = _two_devices(source="a", steps=TWO)
    sent, result = (5 + 80) / 1000, (5 + 8) / 1000
    assert Evaluator(instance).latency_s(instance.tasks[0], {"x": "a", "y": "b", "z": "a"}) == pytest.approx(
        max(1.0, sent + 0.5 + result) + 0.25, abs=1e-12
    )


def test_a_step_that_is_absent_takes_no_time_and_gets_nothing_sent() -> None:
    problem = Problem(_two_devices(source="a", steps=TWO))
    task = problem.tasks[0]
    assert latencies_s(problem, task, [np.array([1]), ABSENT, ABSENT]).tolist() == [(5 + 80) / 1000 + 0.5]


def test_the_objective_weighs_latencies() -> None:
    instance = _two_devices(source="a", steps=ONE, weight=3.0)
    evaluator = Evaluator(instance)
    one = evaluator.latency_s(instance.tasks[0], {"only": "b"})
    assert one != 1.0
    assert evaluator.objective_s({"t": {"only": "b"}}) == 3.0 * one
    assert evaluator.objective_s({"t": {"only": "a"}}) == 3.0


def test_memory_counts_distinct_modules() -> None:
    used = Evaluator(_two_devices(steps=ONE)).memory_mb({"m": ["a", "a"], "n": ["a", "b"]})
    assert used == {"a": 2.0, "b": 1.0}


def test_the_worked_example_of_the_docs_is_what_the_evaluator_computes() -> None:
    text = DOC.read_text(encoding="utf-8")
    example = re.search(r"```json\n(.*?)```", text, re.DOTALL)
    assert example is not None
    instance = parse_instance(json.loads(example[1]))
    evaluator = Evaluator(instance)
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\w+) \| ([\d.]+) ms \|$", text, re.MULTILINE)
    assert len(rows) == 8, "every route of the example is in the table"
    for image, text_encoder, head, milliseconds in rows:
        route = {"image": image, "text": text_encoder, "head": head}
        assert evaluator.latency_s(instance.tasks[0], route) * 1000 == pytest.approx(float(milliseconds), abs=5e-4)
    solution = solve(instance, method="exact")
    least = min(float(row[3]) for row in rows)
    assert solution.proven_optimal
    assert solution.objective_s * 1000 == pytest.approx(least, abs=5e-4)
