"""Which model each task gets where not all fit: on small cases what brute force finds, on large ones in few tries."""

import random
from collections.abc import Callable, Mapping
from itertools import product

import pytest

from s2m3.planner.solving.rank_choice import WhyNot, choose_ranks, cost_of
from s2m3.schemas.errors import NoCapacityError

#: (task, rank) -> modules; module -> memory
Models = dict[tuple[str, int], tuple[str, ...]]


def fits_in(models: Models, sizes: Mapping[str, float], devices: list[float], asked: list[int] | None = None) -> WhyNot:
    """Whether one copy of each module of some models can be packed, by trying every way."""

    def why_not(ranks: Mapping[str, int]) -> NoCapacityError | None:
        if asked is not None:
            asked.append(len(ranks))
        needed = sorted({m for task, rank in ranks.items() for m in models[task, rank]}, key=lambda m: -sizes[m])
        return None if _packs([sizes[module] for module in needed], list(devices)) else NoCapacityError(str(ranks))

    return why_not


def _packs(sizes: list[float], free: list[float]) -> bool:
    if not sizes:
        return True
    for at in range(len(free)):
        if free[at] >= sizes[0]:
            free[at] -= sizes[0]
            if _packs(sizes[1:], free):
                return True
            free[at] += sizes[0]
    return False


def random_case(seed: int) -> tuple[dict[str, list[int]], Models, dict[str, float], list[float]]:
    chance = random.Random(seed)  # noqa: S311  # a case, no secret
    sizes = {f"m{n}": float(chance.randint(1, 9)) for n in range(8)}
    options = {f"t{n}": list(range(chance.randint(1, 3))) for n in range(chance.randint(2, 4))}
    models = {
        (task, rank): tuple(chance.sample(sorted(sizes), k=chance.randint(1, 2)))
        for task, ranks in options.items()
        for rank in ranks
    }
    return options, models, sizes, [float(chance.randint(3, 9)) for _ in range(chance.randint(1, 3))]


@pytest.mark.parametrize("seed", range(60))
def test_of_small_cases_nothing_costs_less_than_what_is_chosen(seed: int) -> None:
    options, models, sizes, devices = random_case(seed)
    weights = {task: float(1 + at % 2) for at, task in enumerate(options)}
    why_not = fits_in(models, sizes, devices)
    chosen, left_out = choose_ranks(options, weights, _size(models, sizes), why_not)
    assert why_not(chosen) is None
    assert chosen.keys() | left_out.keys() == options.keys()
    assert not chosen.keys() & left_out.keys()
    every = (
        {task: rank for task, rank in zip(options, ranks, strict=True) if rank is not None}
        for ranks in product(*([*ranks, None] for ranks in options.values()))
    )
    assert cost_of(chosen, weights, 2) == min(cost_of(one, weights, 2) for one in every if why_not(one) is None)


def _size(models: Models, sizes: Mapping[str, float]) -> Callable[[str, int], float]:
    return lambda task, rank: sum(sizes[module] for module in models[task, rank])


def test_twenty_tasks_all_get_an_answer_before_any_gets_a_better_one() -> None:
    tasks = [f"t{n:02}" for n in range(20)]
    sizes = {f"{task}-{rank}": (100.0, 30.0, 10.0)[rank] for task in tasks for rank in range(3)}
    models: Models = {(task, rank): (f"{task}-{rank}",) for task in tasks for rank in range(3)}
    asked: list[int] = []
    why_not = _of_total(models, sizes, 450.0, asked)
    options, weights = {task: [0, 1, 2] for task in tasks}, dict.fromkeys(tasks, 1.0)
    chosen, left_out = choose_ranks(options, weights, _size(models, sizes), why_not)
    assert left_out == {}
    # 20 x 10 leaves 250: two at their best (180) and three more at rank 1 (60)
    assert list(chosen.values()) == [0, 0, 1, 1, 1, *[2] * 15]
    assert len(asked) < 200


def _of_total(models: Models, sizes: Mapping[str, float], total: float, asked: list[int]) -> WhyNot:
    def why_not(ranks: Mapping[str, int]) -> NoCapacityError | None:
        asked.append(len(ranks))
        needed = {module for task, rank in ranks.items() for module in models[task, rank]}
        return NoCapacityError("full") if sum(sizes[module] for module in needed) > total else None

    return why_not


@pytest.mark.parametrize("too_large", [{3}, {0, 9}, {4, 5}, set()], ids=str)
def test_of_many_tasks_only_those_that_do_not_fit_are_left_out(too_large: set[int]) -> None:
    """Few attempts find them: the tasks are tried in halves."""
    tasks = [f"t{n}" for n in range(30)]
    refused, attempts = {f"t{n}" for n in too_large}, 0

    def why_not(ranks: Mapping[str, int]) -> NoCapacityError | None:
        nonlocal attempts
        attempts += 1
        lacking = sorted(refused & ranks.keys())
        return NoCapacityError(" ".join(lacking)) if lacking else None

    chosen, left_out = choose_ranks({t: [0] for t in tasks}, dict.fromkeys(tasks, 1.0), lambda *_: 1.0, why_not)
    assert list(chosen) == [task for task in tasks if task not in refused]
    assert {task: error.detail for task, error in left_out.items()} == {task: task for task in refused}
    assert attempts <= 1 + 12 * len(refused)


def test_an_earlier_task_comes_before_a_later_one_that_would_fit_alone() -> None:
    def why_not(ranks: Mapping[str, int]) -> NoCapacityError | None:
        return NoCapacityError("two at most") if len(ranks) > 2 else None

    tasks = ["c", "a", "e", "b", "d"]
    chosen, left_out = choose_ranks({t: [0] for t in tasks}, dict.fromkeys(tasks, 1.0), lambda *_: 1.0, why_not)
    assert list(chosen) == ["c", "a"]
    assert set(left_out) == {"b", "d", "e"}


def test_of_equal_choices_the_earlier_task_gets_the_better_model() -> None:
    def why_not(ranks: Mapping[str, int]) -> NoCapacityError | None:
        return NoCapacityError("one best at most") if sum(rank == 0 for rank in ranks.values()) > 1 else None

    for order in (["x", "y"], ["y", "x"]):
        options = {task: [0, 1] for task in order}
        chosen, _ = choose_ranks(options, dict.fromkeys(order, 1.0), lambda _, rank: 1.0 - rank, why_not)
        assert chosen == {order[0]: 0, order[1]: 1}


def test_a_task_of_more_weight_is_left_out_last() -> None:
    def why_not(ranks: Mapping[str, int]) -> NoCapacityError | None:
        return NoCapacityError("one at most") if len(ranks) > 1 else None

    chosen, left_out = choose_ranks({"a": [0], "b": [0]}, {"a": 1.0, "b": 2.0}, lambda *_: 1.0, why_not)
    assert (chosen, set(left_out)) == ({"b": 0}, {"a"})
