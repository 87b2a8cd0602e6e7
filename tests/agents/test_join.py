"""Joins: complete when every input is there, once per attempt, forgotten in time. Pure: the test is the clock."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.agents.serving.joins import Joins
from s2m3.schemas.errors import BusyError
from s2m3.schemas.wire.work import Hop, Timing, Work

ROUTE = {
    "vision": Hop("v", "a", {"image": "input.image"}, ("features",)),
    "text": Hop("t", "b", {"text": "input.text"}, ("embedding",)),
    "head": Hop("h", "c", {"x": "vision.features", "y": "text.embedding", "z": "input.extra"}, ("label",)),
}


def part(inputs: dict[str, object], *, request: bytes = b"1" * 16, attempt: int = 1, ms_left: float = 1000.0) -> Work:
    return Work(request, "task", "head", attempt, 1, "reply", inputs, ROUTE, ms_left)


def test_a_step_with_one_part_is_complete_at_once() -> None:
    work = replace(part({"image": b"x"}), step="vision")
    assert Joins(10, "a").add(work, 0.0) == work


@given(st.permutations(["x", "y", "z"]))
def test_the_last_part_completes_a_join_in_whatever_order_they_come(order: list[str]) -> None:
    joins = Joins(10, "c")
    whole = [joins.add(part({name: name.upper()}), 0.0) for name in order]
    assert whole[:2] == [None, None]
    assert whole[2] is not None
    assert whole[2].inputs == {"x": "X", "y": "Y", "z": "Z"}
    assert len(joins) == 0


def test_requests_do_not_mix() -> None:
    joins = Joins(10, "c")
    assert joins.add(part({"x": 1, "y": 1}), 0.0) is None
    assert joins.add(part({"z": 2}, request=b"2" * 16), 0.0) is None
    assert len(joins) == 2


def test_duplicates_are_dropped_and_the_first_value_is_kept() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": "first"}), 0.0)
    joins.add(part({"x": "second"}), 0.0)
    whole = joins.add(part({"y": 1, "z": 1}), 0.0)
    assert whole is not None
    assert whole.inputs["x"] == "first"
    assert joins.add(part({"x": "third", "y": 1, "z": 1}), 0.0) is None


def test_a_later_attempt_completes_what_an_earlier_one_began_and_its_route_is_followed() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1, "z": 1}), 0.0)
    other = {**ROUTE, "text": replace(ROUTE["text"], node="elsewhere")}
    whole = joins.add(replace(part({"y": 2}, attempt=2), route=other), 0.0)
    assert whole is not None
    assert (whole.attempt, whole.route["text"].node) == (2, "elsewhere")


def test_a_step_runs_again_for_a_later_attempt_only() -> None:
    joins = Joins(10, "c")
    everything: dict[str, object] = {"x": 1, "y": 2, "z": 3}
    assert joins.add(part(everything), 0.0) is not None
    assert joins.add(part(everything), 0.0) is None
    assert joins.add(part(everything, attempt=2), 0.0) is not None
    assert joins.add(part(everything, attempt=1), 0.0) is None


def test_a_join_that_is_never_complete_says_which_step_on_which_node_was_missing_and_is_forgotten() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1, "z": 1}), 0.0)
    assert joins.expire(0.8) == []
    (late,) = joins.expire(1.0)
    assert (late.error.code, late.error.step, late.error.node) == ("timeout", "text", "b")
    assert "text on b" in late.error.detail
    assert len(joins) == 0


def test_finished_steps_are_forgotten_after_their_deadline() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1, "y": 2, "z": 3}), 0.0)
    assert joins.remembered == 1
    joins.expire(2.0)
    assert joins.remembered == 0


def test_one_join_more_than_the_bound_is_busy() -> None:
    joins = Joins(2, "c")
    joins.add(part({"x": 1}, request=b"1" * 16), 0.0)
    joins.add(part({"x": 1}, request=b"2" * 16), 0.0)
    with pytest.raises(BusyError):
        joins.add(part({"x": 1}, request=b"3" * 16), 0.0)
    assert joins.add(part({"y": 1, "z": 1}, request=b"1" * 16), 0.0) is not None


def test_what_is_left_of_the_deadline_counts_down_while_a_part_waits() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1, "y": 2}, ms_left=1000.0), 10.0)
    whole = joins.add(part({"z": 3}, ms_left=1000.0), 10.4)
    assert whole is not None
    assert whole.ms_left == pytest.approx(600.0)


def test_the_parts_timings_come_together() -> None:
    joins = Joins(10, "c")
    timing = Timing("a", 1.0, 2.0, 1)
    joins.add(replace(part({"x": 1}), timings={"vision": timing}), 0.0)
    whole = joins.add(replace(part({"y": 1, "z": 1}), timings={"text": timing}), 0.0)
    assert whole is not None
    assert set(whole.timings) == {"vision", "text"}
