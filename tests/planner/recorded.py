"""What the searches find on drawn sites, for tests/planner/test_recorded.py.

A search that finds something else, better or worse, is recorded anew: `python -m tests.planner.recorded`.
"""

import itertools
import json
import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args
from unittest.mock import patch

from s2m3.planner.solving.baselines import random_plans
from s2m3.planner.solving.churn import POLICIES, Speeds, simulate_churn
from s2m3.planner.solving.exact import bounded
from s2m3.planner.solving.greedy import SortKey, kept, lay_out, named
from s2m3.planner.solving.local_search import descend, shake
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.queueing import loaded_objective_s, relieve
from s2m3.planner.solving.ranked_instance import plan_ranks
from s2m3.planner.solving.replan import Replan, replan
from s2m3.planner.solving.second_copies import second_copies
from s2m3.planner.solving.solve import first_layout, solve
from s2m3.schemas.churn_trace import drawn_trace
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance, parse_instance
from s2m3.schemas.instance_paths import without_device
from tests.planner.naive import home_instance

FILE = Path(__file__).with_name("recorded.json")
SEEDS = range(4)


def found(seed: int) -> dict[str, Any]:
    """Returns what each search finds on the site of a seed, with memory for little more than its modules."""
    tight = _tight(home_instance(seed, max_replicas=1 + seed % 2))
    wider, roomy = _with_memory(tight, 1.2), _with_memory(tight, 1.6)
    descended = first_layout(Problem(wider))
    descend(descended, _never)
    placed = named(descended)
    return {
        "greedy": {key: _digits(lay_out(Problem(tight), key).objective_s) for key in get_args(SortKey)},
        "descended": _digits(descended.objective_s),
        "shaken": _digits(shake(descended, _never, rounds=20).objective_s),
        "bound": _digits(bounded(descended).bound_s),
        "under load": _under_load(roomy, placed),
        "lost": {device.id: _after_loss(wider, placed, device.id) for device in wider.devices},
        "placed anew": [_replanned(replan(wider, drawn, budget_s=0.0)) for drawn in _drawn(roomy, seed)],
        "improved": [_replanned(replan(roomy, drawn, clock=_ticking())) for drawn in _drawn(roomy, seed)],
        "second copies": second_copies(roomy, placed),
        "second copies of before": second_copies(roomy, placed, current=second_copies(roomy, _drawn(roomy, seed)[0])),
        "ranks": _ranked(tight),
        "churn": {policy: _churned(roomy, policy, seed) for policy in POLICIES},
    }


def _never() -> bool:
    return False


def _ticking() -> Callable[[], float]:
    ticks = itertools.count()
    return lambda: next(ticks) * 1e-3


def _digits(value: float) -> float:
    """Rounds to nine digits: sums of another order differ in the last ones."""
    return float(f"{value:.9g}")


def _with_memory(instance: Instance, factor: float) -> Instance:
    devices = [
        device.model_copy(update={"memory_mb": round(device.memory_mb * factor, 1)}) for device in instance.devices
    ]
    return instance.model_copy(update={"devices": tuple(devices)})


def _tight(instance: Instance) -> Instance:
    """Returns the instance with the least memory, in steps of a twentieth, in which its modules are placed."""
    smallest = instance
    for twentieths in range(19, 8, -1):
        smaller = _with_memory(instance, twentieths / 20)
        try:
            first_layout(Problem(smaller))
        except NoCapacityError:
            return smallest
        smallest = smaller
    return smallest


def _drawn(instance: Instance, seed: int) -> list[Mapping[str, list[str]]]:
    return [plan.placement for plan in random_plans(instance, 2, seed=seed)]


def _under_load(instance: Instance, placed: Mapping[str, Sequence[str]]) -> list[float]:
    """Returns the objective under load of a placement, and of what the search for less load makes of it."""
    tasks = [task.model_copy(update={"rate": 0.4}) for task in instance.tasks]
    layout = kept(Problem(instance.model_copy(update={"tasks": tuple(tasks)})), placed)
    layout.reroute()
    before = loaded_objective_s(layout.problem, layout.routes)
    relieve(layout, _never)
    return [_digits(before), _digits(loaded_objective_s(layout.problem, layout.routes))]


def _after_loss(instance: Instance, placed: Mapping[str, list[str]], lost: str) -> Any:
    left = parse_instance(without_device(json.loads(instance.model_dump_json()), lost))
    try:
        return _replanned(replan(left, placed, budget_s=0.0))
    except NoCapacityError as error:
        return error.detail


def _replanned(found: Replan) -> list[Any]:
    return [found.why, _digits(found.objective_s), len(found.loads)]


def _churned(instance: Instance, policy: Any, seed: int) -> list[float]:
    trace = drawn_trace(
        [device.id for device in instance.devices], until_s=600, lost_every_s=300, back_after_s=60, seed=seed
    )
    found = simulate_churn(instance, trace, policy, Speeds(improve_s=0.0))
    latency = [task.latency_s or 0.0 for task in found.tasks.values()]
    return [found.plans, found.loads, found.unloads, *map(_digits, (found.availability, found.loaded_mb, sum(latency)))]


def _ranked(instance: Instance) -> dict[str, Any]:
    """Returns the models of the tasks on half of the memory, each with a stand-in of one module of another task."""
    chance = random.Random(len(instance.tasks))  # noqa: S311  # not a secret
    tasks = []
    for task in instance.tasks:
        other = chance.choice(instance.tasks).steps[0].model_copy(update={"after": ()})
        stand_in = {"id": f"{task.id}-less", "steps": [other.model_dump()]}
        tasks.append(type(task).model_validate({**task.model_dump(), "stand_ins": [stand_in]}))
    halved = _with_memory(instance, 0.5).model_copy(update={"tasks": tuple(tasks)})
    plan = plan_ranks(halved, lambda one: solve(one, method="greedy"))
    why = {task: error.detail for task, error in plan.left_out.items()}
    return {"ranks": plan.ranks, "left out": why, "warm": plan.warm.copies, "after": plan.after_loss}


def _written() -> str:
    sites = {
        seed: ",\n".join(f" {json.dumps(what)}: {json.dumps(value)}" for what, value in found(seed).items())
        for seed in SEEDS
    }
    return "{" + ",\n".join(f'"{seed}": {{\n{lines}\n}}' for seed, lines in sites.items()) + "}\n"


if __name__ == "__main__":
    with patch("s2m3.planner.solving.solve.is_available", return_value=False):
        FILE.write_text(_written(), encoding="utf-8")
