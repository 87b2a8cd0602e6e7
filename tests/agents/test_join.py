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


def test_what_came_rounded_is_known_of_each_value_that_is_kept_whatever_the_later_attempts_route_says() -> None:
    joins = Joins(10, "c")
    joins.add(replace(part({"x": 1}), rounded=frozenset({"x"})), 0.0)
    joins.add(replace(part({"y": 2}, attempt=2)), 0.0)
    whole = joins.add(replace(part({"x": 3, "z": 3}, attempt=2), rounded=frozenset({"z"})), 0.0)
    assert whole is not None
    assert whole.inputs == {"x": 1, "y": 2, "z": 3}
    assert whole.rounded == frozenset({"x", "z"})


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
    assert late.error.detail == "head on c waited 1.0 s for text on b"
    assert late.work.inputs == {"x": 1, "z": 1}
    assert len(joins) == 0


def test_a_join_gives_up_a_tenth_of_the_time_and_at_most_a_second_before_its_caller_does() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1}, ms_left=1_000.0), 5.0)
    assert joins.expire(5.89) == []
    assert len(joins.expire(5.9)) == 1
    joins.add(part({"x": 1}, request=b"2" * 16, ms_left=60_000.0), 5.0)
    assert joins.expire(63.9) == []
    (late,) = joins.expire(64.0)
    assert late.error.detail == "head on c waited 59.0 s for text on b, input"
    assert late.error.step == "text"


def test_an_input_of_the_request_that_never_came_is_missed_here() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1, "y": 1}), 0.0)
    (late,) = joins.expire(1.0)
    assert (late.error.step, late.error.node, late.error.detail) == ("input", "c", "head on c waited 1.0 s for input")


def test_one_that_comes_when_its_time_is_over_is_given_up_at_once() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1}, ms_left=-5.0), 7.0)
    assert len(joins.expire(7.0)) == 1


def test_a_step_whose_outputs_name_has_a_point_is_still_the_step() -> None:
    route = {**ROUTE, "head": replace(ROUTE["head"], inputs={"x": "vision.features.last", "y": "text.embedding"})}
    joins = Joins(10, "c")
    joins.add(replace(part({"y": 1}), route=route), 0.0)
    (late,) = joins.expire(1.0)
    assert late.error.step == "vision"


def test_the_newest_attempt_counts_whichever_came_last() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1}, attempt=2), 0.0)
    joins.add(part({"y": 1}, attempt=1), 0.0)
    whole = joins.add(part({"z": 1}, attempt=1), 0.0)
    assert whole is not None
    assert whole.attempt == 2


def test_inputs_that_the_newest_route_does_not_want_are_left_out() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1, "odd": 1}), 0.0)
    whole = joins.add(part({"y": 1, "z": 1}), 0.0)
    assert whole is not None
    assert whole.inputs == {"x": 1, "y": 1, "z": 1}


def test_finished_steps_are_forgotten_after_their_deadline() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1, "y": 2, "z": 3}), 0.0)
    assert joins.remembered == 1
    joins.expire(0.999)
    assert joins.remembered == 1
    joins.expire(1.0)
    assert joins.remembered == 0


def test_a_step_that_was_joined_is_forgotten_after_the_deadline_of_the_join() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1}), 0.0)
    joins.add(part({"y": 2, "z": 3}), 0.5)
    joins.expire(0.89)
    assert joins.remembered == 1
    joins.expire(0.9)
    assert joins.remembered == 0


def test_a_newer_run_is_not_forgotten_at_the_end_of_the_older_one() -> None:
    joins = Joins(10, "c")
    everything: dict[str, object] = {"x": 1, "y": 2, "z": 3}
    joins.add(part(everything, ms_left=1_000.0), 0.0)
    joins.add(part(everything, attempt=2, ms_left=5_000.0), 0.5)
    joins.expire(1.0)
    assert joins.remembered == 1
    assert joins.add(part(everything, attempt=2), 1.5) is None
    joins.expire(5.5)
    assert joins.remembered == 0


def test_a_cancelled_join_is_forgotten_and_what_still_comes_for_it_is_dropped_until_its_end() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1}), 0.0)
    joins.cancel(b"1" * 16, "head", 1, 4.0)
    assert len(joins) == 0
    assert joins.add(part({"y": 1, "z": 1, "x": 1}), 1.0) is None
    assert joins.expire(3.9) == []
    assert joins.remembered == 1
    joins.expire(4.0)
    assert joins.remembered == 0


def test_a_newer_attempt_than_the_cancelled_one_goes_on_waiting_and_runs() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1}, attempt=3), 0.0)
    joins.cancel(b"1" * 16, "head", 2, 4.0)
    assert len(joins) == 1
    assert joins.add(part({"y": 1, "z": 1}, attempt=3), 1.0) is not None


def test_cancelling_one_step_leaves_the_others_of_the_request_and_other_requests() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1}), 0.0)
    joins.cancel(b"1" * 16, "vision", 1, 4.0)
    joins.cancel(b"2" * 16, "head", 1, 4.0)
    assert joins.add(part({"y": 1, "z": 1}), 1.0) is not None


def test_cancelling_an_earlier_attempt_than_the_one_that_ran_forgets_neither_it_nor_its_end() -> None:
    joins = Joins(10, "c")
    everything: dict[str, object] = {"x": 1, "y": 2, "z": 3}
    joins.add(part(everything, attempt=3, ms_left=9_000.0), 0.0)
    joins.cancel(b"1" * 16, "head", 1, 1.0)
    joins.expire(8.9)
    assert joins.add(part(everything, attempt=3), 8.9) is None
    assert joins.remembered == 1
    joins.expire(9.0)
    assert joins.remembered == 0


def test_cancelling_what_never_came_drops_it_when_it_comes() -> None:
    joins = Joins(10, "c")
    joins.cancel(b"1" * 16, "head", 1, 4.0)
    assert joins.add(part({"x": 1, "y": 1, "z": 1}), 1.0) is None
    assert joins.add(part({"x": 1, "y": 1, "z": 1}, attempt=2), 1.0) is not None


def test_one_join_more_than_the_bound_is_busy() -> None:
    joins = Joins(2, "c")
    joins.add(part({"x": 1}, request=b"1" * 16), 0.0)
    joins.add(part({"x": 1}, request=b"2" * 16), 0.0)
    with pytest.raises(BusyError, match="2 requests wait for a branch") as caught:
        joins.add(part({"x": 1}, request=b"3" * 16), 0.0)
    assert (caught.value.step, caught.value.node) == ("head", "c")
    assert joins.add(part({"y": 1, "z": 1}, request=b"1" * 16), 0.0) is not None


def test_what_is_left_of_the_deadline_counts_down_while_a_part_waits() -> None:
    joins = Joins(10, "c")
    joins.add(part({"x": 1, "y": 2}, ms_left=1000.0), 10.0)
    whole = joins.add(part({"z": 3}, ms_left=1000.0), 10.4)
    assert whole is not None
    assert whole.ms_left == pytest.approx(600.0)
    joins.add(part({"x": 1, "y": 2}, request=b"2" * 16, ms_left=1000.0), 10.0)
    late = joins.add(part({"z": 3}, request=b"2" * 16, ms_left=1000.0), 12.0)
    assert late is not None
    assert late.ms_left == 0.0


def test_the_parts_timings_come_together() -> None:
    joins = Joins(10, "c")
    timing = Timing("a", 1.0, 2.0, 1)
    joins.add(replace(part({"x": 1}), timings={"vision": timing}), 0.0)
    whole = joins.add(replace(part({"y": 1, "z": 1}), timings={"text": timing}), 0.0)
    assert whole is not None
    assert set(whole.timings) == {"vision", "text"}


def test_37_the_bytes_of_what_waits_are_counted_once_until_it_runs_is_dropped_or_is_late() -> None:
    joins = Joins(10, "c")
    for request in (b"1", b"2", b"3"):
        joins.add(part({"x": bytes(100)}, request=request * 16), 0.0)
    joins.add(part({"x": bytes(900), "y": bytes(20)}, request=b"1" * 16, attempt=2), 0.0)  # x is there already
    assert joins.waiting_bytes() == 320
    assert joins.add(part({"z": 0}, request=b"1" * 16), 0.0) is not None
    assert joins.waiting_bytes() == 200
    joins.cancel(b"2" * 16, "head", 1, 1.0)
    assert joins.waiting_bytes() == 100
    assert len(joins.expire(1.0)) == 1
    assert joins.waiting_bytes() == 0
