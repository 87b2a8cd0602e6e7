"""Stand-ins in spare memory: on other devices than the better model, for as many tasks as can be, the best of them."""

import random
from collections.abc import Mapping
from itertools import combinations, product
from typing import Any

import pytest

from s2m3.planner.solving.rank_choice import cost_of
from s2m3.planner.solving.second_copies import Spare
from s2m3.planner.solving.stand_ins import RankedTask, StandIns, absence_s, stand_ins
from s2m3.schemas.instance import Instance, parse_instance

#: task -> models, the best first, each a list of modules
Tasks = Mapping[str, list[list[str]]]


def instance(memory: Mapping[str, float], sizes: Mapping[str, float], tasks: Tasks, **only: list[str]) -> Instance:
    """Modules run on every device, but for those named in `only`."""
    return parse_instance(
        {
            "devices": [{"id": name, "memory_mb": mb} for name, mb in memory.items()],
            "modules": [
                {"id": name, "memory_mb": mb, "seconds": dict.fromkeys(only.get(name, list(memory)), 0.1)}
                for name, mb in sizes.items()
            ],
            "tasks": [
                {"id": f"{task}@{rank}", "steps": [_step(modules, at) for at in range(len(modules))]}
                for task, models in tasks.items()
                for rank, modules in enumerate(models)
            ],
        }
    )


def _step(modules: list[str], at: int) -> dict[str, Any]:
    return {"id": f"s{at}", "module": modules[at], "after": [f"s{at - 1}"] if at else []}


def ranked(tasks: Tasks) -> dict[str, RankedTask]:
    return {
        task: RankedTask(0, {rank: tuple(modules) for rank, modules in enumerate(models)})
        for task, models in tasks.items()
    }


def test_a_stand_in_lies_where_the_loss_of_the_better_model_leaves_it() -> None:
    tasks = {"porch": [["big"], ["small"]]}
    given = instance({"a": 100.0, "b": 30.0}, {"big": 50.0, "small": 20.0}, tasks)
    assert stand_ins(given, {"big": ["a"]}, ranked(tasks)) == StandIns({"small": ["b"]}, {"porch": [1]})


def test_a_module_that_both_models_use_gets_a_copy_beside_the_stand_in() -> None:
    tasks = {"porch": [["big", "head"], ["small", "head"]]}
    given = instance({"a": 100.0, "b": 30.0}, {"big": 50.0, "small": 20.0, "head": 1.0}, tasks)
    found = stand_ins(given, {"big": ["a"], "head": ["a"]}, ranked(tasks))
    assert found.copies == {"small": ["b"], "head": ["b"]}


def test_a_module_with_two_copies_is_taken_away_by_no_single_loss() -> None:
    tasks = {"porch": [["big", "head"], ["small", "head"]]}
    given = instance({"a": 100.0, "b": 30.0, "c": 10.0}, {"big": 50.0, "small": 20.0, "head": 1.0}, tasks)
    found = stand_ins(given, {"big": ["a"], "head": ["a", "c"]}, ranked(tasks))
    assert found.copies == {"small": ["b"]}


def test_where_no_other_device_can_hold_it_a_stand_in_lies_beside_the_better_model() -> None:
    tasks = {"porch": [["big"], ["small"]]}
    given = instance({"a": 100.0, "b": 30.0}, {"big": 50.0, "small": 20.0}, tasks, small=["a"])
    assert stand_ins(given, {"big": ["a"]}, ranked(tasks)).copies == {"small": ["a"]}
    full = instance({"a": 60.0, "b": 30.0}, {"big": 50.0, "small": 20.0}, tasks, small=["a"])
    assert stand_ins(full, {"big": ["a"]}, ranked(tasks)) == StandIns()


def test_beside_a_model_on_all_devices_a_stand_in_needs_few_and_the_next_outlives_the_rest() -> None:
    tasks = {"porch": [["eye", "words", "head"], ["eye", "classes"], ["tiny", "top"]]}
    sizes = {"eye": 20.0, "words": 90.0, "head": 3.0, "classes": 5.0, "tiny": 2.0, "top": 1.0}
    memory = {"a": 300.0, "b": 60.0, "c": 60.0}
    placed = {"eye": ["b"], "words": ["a"], "head": ["c"]}
    found = stand_ins(instance(memory, sizes, tasks), placed, ranked(tasks))
    assert found.ranks == {"porch": [1, 2]}
    assert found.copies["classes"] == ["b"]  # with the eye: a loss of the other two is outlived
    assert found.copies["tiny"] == found.copies["top"] != ["b"]  # on one device, and answers when b is lost


def test_every_task_gets_one_before_any_gets_a_better_one_or_a_second() -> None:
    tasks = {name: [[f"{name}0"], [f"{name}1"], [f"{name}2"]] for name in ("x", "y")}
    sizes = {f"{name}{rank}": (50.0, 30.0, 10.0)[rank] for name in tasks for rank in range(3)}
    placed = {"x0": ["a"], "y0": ["a"]}
    few = stand_ins(instance({"a": 100.0, "b": 20.0}, sizes, tasks), placed, ranked(tasks))
    assert few.ranks == {"x": [2], "y": [2]}
    more = stand_ins(instance({"a": 100.0, "b": 40.0}, sizes, tasks), placed, ranked(tasks))
    assert more.ranks == {"x": [1], "y": [2]}
    room = stand_ins(instance({"a": 100.0, "b": 60.0, "c": 20.0}, sizes, tasks), placed, ranked(tasks))
    assert room.ranks == {"x": [1, 2], "y": [1, 2]}
    assert room.copies == {"x1": ["b"], "y1": ["b"], "x2": ["c"], "y2": ["c"]}


def test_the_task_whose_loss_lasts_longest_comes_first() -> None:
    tasks = {"light": [["l0"], ["l1"]], "weighty": [["w0"], ["w1"]]}
    sizes = {"l0": 10.0, "l1": 10.0, "w0": 10.0, "w1": 25.0}
    given = instance({"a": 20.0, "b": 30.0}, sizes, tasks)
    assert stand_ins(given, {"l0": ["a"], "w0": ["a"]}, ranked(tasks)).ranks == {"weighty": [1]}


def test_what_its_absence_costs_is_the_time_to_notice_and_to_load_the_smallest_model() -> None:
    task = RankedTask(0, {0: ("big",), 1: ("mid", "mid"), 2: ("small", "head")})
    spare = Spare(lost=0.01, notice_s=0.3, load_mb_s=100.0)
    sizes = {"big": 900.0, "mid": 150.0, "small": 60.0, "head": 10.0}
    assert absence_s(task, sizes, spare) == pytest.approx(0.01 * (0.3 + 0.7))


def test_a_copy_that_is_there_stays_where_it_is() -> None:
    tasks = {"porch": [["big"], ["small"]]}
    given = instance({"a": 100.0, "b": 30.0, "c": 90.0}, {"big": 50.0, "small": 20.0}, tasks)
    assert stand_ins(given, {"big": ["a"]}, ranked(tasks)).copies == {"small": ["b"]}
    assert stand_ins(given, {"big": ["a"]}, ranked(tasks), current={"small": ["c"]}).copies == {"small": ["c"]}


def test_a_task_that_a_stand_in_answers_already_gets_the_models_below_that() -> None:
    tasks = {"porch": [["big"], ["mid"], ["small"]]}
    given = instance({"a": 60.0, "b": 60.0}, {"big": 50.0, "mid": 40.0, "small": 20.0}, tasks)
    lower = {"porch": RankedTask(1, {1: ("mid",), 2: ("small",)})}
    assert stand_ins(given, {"mid": ["b"]}, lower) == StandIns({"small": ["a"]}, {"porch": [2]})


@pytest.mark.parametrize("seed", range(40))
def test_of_small_cases_no_choice_leaves_out_less(seed: int) -> None:
    """By brute force over all choices of one stand-in per task, and all places of their modules."""
    chance = random.Random(seed)  # noqa: S311  # a case, no secret
    names = [f"t{n}" for n in range(chance.randint(1, 3))]
    tasks = {name: [[f"{name}-{rank}"] for rank in range(chance.randint(2, 3))] for name in names}
    sizes = {f"{name}-{rank}": float(chance.randint(2, 9)) for name in names for rank in range(len(tasks[name]))}
    placed = {f"{name}-0": ["a"] for name in names}
    memory = {"a": 50.0, "b": float(chance.randint(0, 12)), "c": float(chance.randint(0, 12))}
    found = stand_ins(instance(memory, sizes, tasks), placed, ranked(tasks))
    costs = {name: absence_s(one, sizes, Spare()) for name, one in ranked(tasks).items()}
    # strict first: what lies beside the better model is only for tasks that have nothing elsewhere
    elsewhere = {name: found.ranks[name][0] for name in found.ranks if _is_elsewhere(found, name)}
    every = product(*([*range(1, len(tasks[name])), None] for name in names))
    choices = ({n: r for n, r in zip(names, ranks, strict=True) if r is not None} for ranks in every)
    fitting = [one for one in choices if _fit([sizes[f"{n}-{r}"] for n, r in one.items()], memory["b"], memory["c"])]
    assert elsewhere in fitting
    assert cost_of(elsewhere, costs, 2) == min(cost_of(one, costs, 2) for one in fitting)


def _is_elsewhere(found: StandIns, name: str) -> bool:
    return "a" not in found.copies[f"{name}-{found.ranks[name][0]}"]


def _fit(sizes: list[float], one: float, other: float) -> bool:
    every = (some for count in range(len(sizes) + 1) for some in combinations(range(len(sizes)), count))
    return any(
        sum(sizes[at] for at in some) <= one and sum(size for at, size in enumerate(sizes) if at not in some) <= other
        for some in every
    )
