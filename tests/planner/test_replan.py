"""What was lost is placed at once and nothing else moves; anything else has to be worth its moves."""

from typing import Any

import pytest

from s2m3.planner.solving.replan import Worth, replan
from s2m3.planner.solving.solve import solve
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance, parse_instance
from tests.planner import naive


def _without(instance: Instance, device: str) -> Instance:
    document = instance.model_dump()
    document["devices"] = [d for d in document["devices"] if d["id"] != device]
    for module in document["modules"]:
        module["seconds"].pop(device, None)
    for task in document["tasks"]:
        if task["source"] == device:
            task["source"] = None
    return parse_instance(document)


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5, 7, 8])  # the modules of 6 do not fit on five devices
def test_after_a_loss_only_what_was_lost_moves(seed: int) -> None:
    instance = naive.home_instance(seed)
    before = solve(instance, method="greedy").placement
    lost = next(devices[0] for devices in before.values())
    left = _without(instance, lost)
    plan = replan(left, before)
    assert naive.fits(left, plan.placement)
    moved = {module for module in before if plan.placement[module] != before[module]}
    gone = {module for module, devices in before.items() if devices == [lost]}
    assert plan.why == "lost"
    assert moved == gone
    assert {move.module for move in plan.loads} == gone


def _home(**changes: Any) -> Instance:
    """Two modules on a slow and, perhaps, a fast device."""
    fast = changes.pop("fast", 0.1)
    document: dict[str, Any] = {
        "devices": [
            {"id": "slow", "memory_mb": changes.pop("memory_mb", 500)},
            {"id": "fast", "memory_mb": 500},
        ],
        "modules": [
            {"id": "vit", "memory_mb": 300, "seconds": {"slow": 1.0, "fast": fast}},
            {"id": "text", "memory_mb": 100, "seconds": {"slow": 0.2, "fast": 0.2}},
        ],
        "tasks": [
            {
                "id": "t",
                "steps": [{"id": "image", "module": "vit"}, {"id": "text", "module": "text", "after": ["image"]}],
            }
        ],
        **changes,
    }
    return parse_instance(document)


CURRENT = {"vit": ["slow"], "text": ["slow"]}


def test_a_device_that_joins_is_used_if_it_gains_much() -> None:
    plan = replan(_home(), CURRENT)
    assert plan.why == "gain"
    assert plan.placement == {"vit": ["fast"], "text": ["slow"]}, "the text encoder would gain nothing and stays"
    assert [(move.verb, move.module, move.device) for move in plan.loads] == [("load", "vit", "fast")]


def test_a_small_gain_changes_nothing() -> None:
    plan = replan(_home(fast=0.98), CURRENT)
    assert plan.why == "unchanged"
    assert plan.placement == {"vit": ["slow"], "text": ["slow"]}
    assert plan.loads == ()


def test_a_load_that_is_not_paid_back_changes_nothing() -> None:
    assert replan(_home(), CURRENT, worth=Worth(payback_rounds=2, load_mb_s=10)).why == "unchanged"


def test_without_time_nothing_is_looked_for() -> None:
    assert replan(_home(), CURRENT, budget_s=0).why == "unchanged"


def test_a_plan_made_twice_is_made_once() -> None:
    plan = replan(_home(), CURRENT)
    assert replan(_home(), plan.placement).why == "unchanged"


def test_a_second_copy_takes_over_what_was_lost_without_a_load() -> None:
    plan = replan(_without(_home(), "slow"), {"vit": ["slow", "fast"], "text": ["slow", "fast"]})
    assert plan.placement == {"vit": ["fast"], "text": ["fast"]}
    assert plan.loads == ()


def test_a_new_module_is_placed_and_the_others_stay() -> None:
    plan = replan(_home(), {"vit": ["slow"]})
    assert plan.why == "lost"
    assert plan.placement["vit"] == ["slow"]


def test_what_is_lost_makes_room_if_it_has_to() -> None:
    plan = replan(_home(memory_mb=300), {"text": ["fast"]})
    assert naive.fits(_home(memory_mb=300), plan.placement)
    crowded = parse_instance(
        {
            "devices": [{"id": "a", "memory_mb": 5}, {"id": "b", "memory_mb": 2}],
            "modules": [
                {"id": "big", "memory_mb": 5, "seconds": {"a": 1}},
                {"id": "small", "memory_mb": 2, "seconds": {"a": 1, "b": 9}},
            ],
            "tasks": [],
        }
    )
    assert replan(crowded, {"small": ["a"]}).placement == {"big": ["a"], "small": ["b"]}


def test_what_cannot_fit_is_said() -> None:
    with pytest.raises(NoCapacityError, match="vit needs 300 MB"):
        replan(
            parse_instance(
                {
                    **_home().model_dump(),
                    "devices": [{"id": "slow", "memory_mb": 100}, {"id": "fast", "memory_mb": 100}],
                }
            ),
            CURRENT,
        )


def _choice(**seconds: dict[str, float]) -> Instance:
    """Modules of 300 MB each, every one alone in a task of its own, on devices with room for all."""
    return parse_instance(
        {
            "devices": [{"id": name, "memory_mb": 2_000} for name in ("old", "new")],
            "modules": [{"id": name, "memory_mb": 300, "seconds": times} for name, times in seconds.items()],
            "tasks": [{"id": name, "steps": [{"id": "s", "module": name}]} for name in seconds],
        }
    )


def test_only_the_modules_whose_gain_pays_for_their_load_move() -> None:
    """300 MB at 100 MB/s over 1,000 rounds are 3 ms: what gains 2.9 ms stays, what gains 3.1 ms and 1 s moves."""
    instance = _choice(
        much={"old": 2.0, "new": 1.0}, little={"old": 1.0029, "new": 1.0}, enough={"old": 1.0031, "new": 1.0}
    )
    plan = replan(instance, {name: ["old"] for name in ("much", "little", "enough")})
    assert plan.why == "gain"
    assert plan.placement == {"much": ["new"], "little": ["old"], "enough": ["new"]}


def test_a_plan_has_to_gain_a_twentieth_of_what_there_is() -> None:
    for new, why in ((0.949, "gain"), (0.951, "unchanged")):
        assert replan(_choice(one={"old": 1.0, "new": new}), {"one": ["old"]}).why == why


def test_where_the_load_costs_more_than_all_gains_nothing_moves() -> None:
    instance = _choice(one={"old": 1.0, "new": 0.5})
    for rounds, why in ((5.9, "unchanged"), (6.1, "gain")):  # 3 s of loading for half a second a round
        worth = Worth(payback_rounds=rounds)
        assert replan(instance, {"one": ["old"]}, worth=worth).why == why


def test_the_search_ends_when_its_time_by_the_clock_given_is_over() -> None:
    instance = naive.home_instance(0)
    current = solve(instance, method="greedy").placement
    ticks = iter(range(10**6))
    plan = replan(instance, current, budget_s=5.0, clock=lambda: float(next(ticks)))
    assert naive.fits(instance, plan.placement)
    assert next(ticks) < 100, "every look at the clock takes a second of it"
