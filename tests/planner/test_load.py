"""Under load, waiting counts: shared modules are relieved and spare memory goes where it helps most."""

import random
from typing import Any

import pytest

from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.queueing import has_rates, loaded_latencies_s, loaded_objective_s, utilisation, waits_s
from s2m3.planner.solving.second_copies import Spare, second_copies
from s2m3.planner.solving.solve import solve
from s2m3.schemas.instance import Instance, parse_instance


def _shared(rate: float, *, max_replicas: int = 1, slow: float = 0.3, **more: Any) -> Instance:
    """Two tasks that share one module, on two devices; each also has a module of its own that runs anywhere."""
    return parse_instance(
        {
            "devices": [{"id": "a", "memory_mb": 400}, {"id": "b", "memory_mb": 400}],
            "modules": [
                {"id": "shared", "memory_mb": 100, "seconds": {"a": 0.2, "b": slow}},
                {"id": "other", "memory_mb": 50, "seconds": {"a": 0.1, "b": 0.11}},
            ],
            "tasks": [
                {"id": "one", "rate": rate, "steps": [{"id": "s", "module": "shared"}]},
                {"id": "two", "rate": rate, "steps": [{"id": "s", "module": "shared"}]},
                {"id": "three", "rate": rate, "steps": [{"id": "s", "module": "other"}]},
            ],
            "max_replicas": max_replicas,
            **more,
        }
    )


def test_the_wait_is_pollaczek_khinchine() -> None:
    problem = Problem(_shared(1.0))
    routes = [(0,), (0,), (1,)]
    assert utilisation(problem, routes).tolist() == pytest.approx([0.4, 0.11])
    expected = [2 * 0.2**2 / (2 * (1 - 0.4)), 0.11**2 / (2 * (1 - 0.11))]
    assert waits_s(problem, routes).tolist() == pytest.approx(expected)
    assert loaded_latencies_s(problem, routes) == pytest.approx([0.2 + expected[0]] * 2 + [0.11 + expected[1]])


def test_the_wait_is_near_a_simulation_of_one_device() -> None:
    chance = random.Random(1)  # noqa: S311  # not a secret
    problem = Problem(_shared(1.2))
    expected = loaded_latencies_s(problem, [(0,), (0,), (0,)])[0]
    now = free = total = 0.0
    served = 0
    for _ in range(200_000):
        now += chance.expovariate(3.6)
        takes = chance.choice([0.2, 0.2, 0.1])
        start = max(now, free)
        free = start + takes
        if takes == 0.2:
            total, served = total + free - now, served + 1
    assert total / served == pytest.approx(expected, rel=0.05)


def test_an_overloaded_device_still_compares() -> None:
    problem = Problem(_shared(10.0))
    all_on_one, apart = ([(0,), (0,), (0,)], [(0,), (0,), (1,)])
    assert sum(loaded_latencies_s(problem, apart)) < sum(loaded_latencies_s(problem, all_on_one)) < float("inf")


def test_load_moves_a_module_off_the_shared_device() -> None:
    assert solve(_shared(0.01), budget_s=60.0).placement == {"shared": ["a"], "other": ["a"]}
    assert solve(_shared(2.0), budget_s=60.0).placement == {"shared": ["a"], "other": ["b"]}


def test_load_adds_a_copy_and_splits_the_tasks_over_both() -> None:
    plan = solve(_shared(2.4, max_replicas=2), budget_s=60.0)
    assert plan.placement["shared"] == ["a", "b"]
    assert {plan.tasks["one"].route["s"], plan.tasks["two"].route["s"]} == {"a", "b"}
    assert plan.lower_bound_s <= plan.objective_s


def test_greedy_and_exact_are_about_idle_devices() -> None:
    for method in ("greedy", "exact"):
        plan = solve(_shared(2.0), method=method)
        assert plan.placement["other"] == ["a"]


PLACED = {"shared": ["a"], "other": ["a"]}


def test_spare_memory_holds_second_copies_elsewhere() -> None:
    assert second_copies(_shared(0.0), PLACED) == {"shared": ["b"], "other": ["b"]}


def test_the_copy_worth_most_per_megabyte_has_the_first_call_on_memory() -> None:
    devices = [{"id": "a", "memory_mb": 400}, {"id": "b", "memory_mb": 112}]
    # both would fit alone beside the tenth that stays free; two tasks depend on the shared one
    assert second_copies(_shared(0.0, devices=devices), PLACED) == {"shared": ["b"]}


def test_a_second_copy_that_is_slower_than_loading_is_worth_nothing() -> None:
    assert "shared" not in second_copies(_shared(0.0, slow=50.0), PLACED, spare=Spare(load_mb_s=100))


def test_under_load_a_second_copy_counts_what_it_relieves() -> None:
    assert "shared" in second_copies(_shared(2.4, slow=0.2), PLACED, spare=Spare(lost=0.0))
    assert second_copies(_shared(0.0), PLACED, spare=Spare(lost=0.0)) == {}


def test_a_second_copy_that_is_there_is_preferred() -> None:
    devices = [{"id": name, "memory_mb": 400} for name in "abc"]
    modules = [{"id": "shared", "memory_mb": 100, "seconds": {"a": 0.2, "b": 0.21, "c": 0.2}}]
    tasks = [{"id": "one", "steps": [{"id": "s", "module": "shared"}]}]
    instance = _shared(0.0, devices=devices, modules=modules, tasks=tasks)
    assert second_copies(instance, {"shared": ["a"]}) == {"shared": ["c"]}
    assert second_copies(instance, {"shared": ["a"]}, current={"shared": ["a", "b"]}) == {"shared": ["b"]}


def test_second_copies_fit_beside_the_part_that_stays_free() -> None:
    devices = [{"id": "a", "memory_mb": 400}, {"id": "b", "memory_mb": 105}]
    assert second_copies(_shared(0.0, devices=devices), PLACED) == {"other": ["b"]}


def test_over_95_percent_the_wait_goes_on_as_its_tangent() -> None:
    """At 95 % 1 / (1 - u) is 20, and its slope 400: at 100 % it counts as 20 + 400 * 0.05 = 40."""
    for rate, growth in ((4.75, 20.0), (5.0, 40.0), (7.5, 240.0)):
        problem = Problem(_shared(rate / 2))  # both tasks that share it
        waits = waits_s(problem, [(0,), (0,), (1,)])
        assert waits[0] == pytest.approx(rate * 0.2**2 / 2 * growth)


def test_the_objective_under_load_weighs_latencies_and_rates_of_nothing_are_none() -> None:
    document = _shared(1.0).model_dump()
    document["tasks"][0]["weight"] = 3.0
    problem = Problem(parse_instance(document))
    routes = [(0,), (0,), (1,)]
    one, two, three = loaded_latencies_s(problem, routes)
    assert loaded_objective_s(problem, routes) == pytest.approx(3 * one + two + three)
    assert has_rates(problem)
    assert not has_rates(Problem(_shared(0.0)))


def _two_steps(rate: float = 0.0, **changes: Any) -> Instance:
    """A task of an encoder and a head; three devices, the encoder's time on each given."""
    seconds = changes.pop("seconds", {"a": 0.2, "b": 0.2, "c": 0.2})
    return parse_instance(
        {
            "devices": [{"id": d, "memory_mb": 1_000, **changes.get(d, {})} for d in "abc"],
            "modules": [
                {"id": "big", "memory_mb": 100, "seconds": seconds},
                {"id": "head", "memory_mb": 1, "seconds": {"a": 0.1}},
            ],
            "tasks": [
                {
                    "id": "t",
                    "rate": rate,
                    "steps": [{"id": "e", "module": "big"}, {"id": "h", "module": "head", "after": ["e"]}],
                }
            ],
        }
    )


HERE = {"big": ["a"], "head": ["a"]}


def test_a_second_copy_goes_where_its_tasks_would_be_fastest() -> None:
    assert second_copies(_two_steps(seconds={"a": 0.2, "b": 0.5, "c": 0.3}), HERE) == {"big": ["c"]}
    slow_link = _two_steps(seconds={"a": 0.2, "b": 0.3, "c": 0.3}, b={"latency_ms": 50.0})
    assert second_copies(slow_link, HERE) == {"big": ["c"]}


@pytest.mark.parametrize(("extra_s", "copied"), [(1.29, True), (1.31, False)])
def test_a_second_copy_is_worth_something_if_it_costs_less_than_to_notice_and_to_load(
    extra_s: float, *, copied: bool
) -> None:
    """To notice takes 0.3 s and 100 MB load in 1 s; what counts is how much slower than now the task is there."""
    instance = _two_steps(seconds={"a": 0.2, "b": 0.2 + extra_s})
    assert second_copies(instance, HERE) == ({"big": ["b"]} if copied else {})


def test_a_copy_under_load_takes_its_module_along_and_leaves_the_other_steps_where_they_are() -> None:
    found = second_copies(_two_steps(3.0), HERE, spare=Spare(lost=0.0))
    assert found.keys() == {"big"}, "the head runs on one device alone"


def test_what_has_two_copies_gets_no_third_and_nothing_without_room_gets_a_second() -> None:
    assert second_copies(_two_steps(), {"big": ["a", "b"], "head": ["a"]}) == {}
    small = _two_steps(b={"memory_mb": 50}, c={"memory_mb": 50})
    assert second_copies(small, HERE) == {}


def test_a_copy_that_is_there_is_worth_a_quarter_more_and_no_further() -> None:
    """Worth there: 0.01 x (1.3 s - how much slower); sticky while that is over 1 / 1.25 of the best."""
    for slower, stays in ((0.25, True), (0.27, False)):
        instance = _two_steps(seconds={"a": 0.2, "b": 0.2, "c": 0.2 + slower})
        found = second_copies(instance, HERE, current={"big": ["a", "c"]})
        assert found == {"big": ["c" if stays else "b"]}


def _rivals(c_mb: float) -> Instance:
    """Two modules, `much` with two tasks: each is best off on `b`, which has room for one beside the part kept free."""
    modules = [{"id": name, "memory_mb": 100, "seconds": {"a": 0.2, "b": 0.2, "c": 0.25}} for name in ("much", "less")]
    uses = {"one": "much", "two": "much", "three": "less"}
    return parse_instance(
        {
            "devices": [{"id": name, "memory_mb": mb} for name, mb in (("a", 400), ("b", 150), ("c", c_mb))],
            "modules": modules,
            "tasks": [{"id": task, "steps": [{"id": "s", "module": module}]} for task, module in uses.items()],
        }
    )


def test_a_copy_that_is_there_makes_way_only_for_one_that_fits_nowhere_else() -> None:
    placed, now = {"much": ["a"], "less": ["a"]}, {"less": ["a", "b"]}
    assert second_copies(_rivals(150), placed) == {"much": ["b"], "less": ["c"]}
    assert second_copies(_rivals(150), placed, current=now) == {"much": ["c"], "less": ["b"]}
    assert second_copies(_rivals(50), placed, current=now) == {"much": ["b"]}


def test_a_copy_that_is_there_stays_in_the_part_of_memory_that_is_kept_free_of_new_ones() -> None:
    devices = [{"id": "a", "memory_mb": 400}, {"id": "b", "memory_mb": 105}]
    instance = _shared(0.0, devices=devices)
    assert "shared" not in second_copies(instance, PLACED)
    assert second_copies(instance, PLACED, current={"shared": ["a", "b"]}) == {"shared": ["b"]}
