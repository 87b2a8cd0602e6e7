"""Who answers a roll call when, and who asks when: owners within a second and each five, askers ever more rarely."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.broker.roll_call_times import AnswerTimes, AskTimes

#: Sums of times are rounded.
_ROUNDED = 1e-9
MISSING = frozenset({"node/a/state"})


@given(chance=st.floats(0, 1))
def test_the_first_roll_call_is_answered_within_a_second(chance: float) -> None:
    delay = AnswerTimes().asked(100.0, chance)
    assert delay is not None
    assert 0.1 <= delay < 1


@pytest.mark.parametrize(("chance", "delay"), [(0.0, 0.1), (0.25, 0.3), (1.0, 0.9)])
def test_the_delay_grows_evenly_with_chance(chance: float, delay: float) -> None:
    assert AnswerTimes().asked(100.0, chance) == pytest.approx(delay)


@pytest.mark.parametrize(("now", "is_given"), [(15.0, True), (15.25, False)])
def test_an_answer_up_to_two_seconds_late_is_given(*, now: float, is_given: bool) -> None:
    times = AnswerTimes()
    times.asked(8.0, 0.0)
    assert times.take_due(8.0)
    assert times.asked(9.0, 0.0) == 4.0
    assert times.take_due(now) is is_given


def test_owners_are_spread_by_chance() -> None:
    delays = {AnswerTimes().asked(100.0, chance / 10) for chance in range(11)}
    assert len(delays) == 11


def test_roll_calls_that_come_while_an_answer_is_due_get_that_one() -> None:
    times = AnswerTimes()
    assert times.asked(100.0, 0.5) is not None
    assert times.asked(100.1, 0.1) is None
    assert times.take_due(100.5)
    assert times.asked(120.0, 0.1) is not None


@given(st.lists(st.tuples(st.floats(0, 3), st.floats(0, 1)), min_size=1, max_size=40))
def test_however_often_it_is_asked_an_owner_answers_at_most_each_five_seconds(asks: list[tuple[float, float]]) -> None:
    times, now = AnswerTimes(), 0.0
    due: float | None = None
    answers: list[float] = []
    for gap, chance in asks:
        now += gap
        if due is not None and due <= now:
            assert times.take_due(due)
            answers.append(due)
            due = None
        delay = times.asked(now, chance)
        assert (delay is None) == (due is not None), "one that is due is not put off"
        due = due if delay is None else now + delay
    assert all(later - earlier >= 5 - _ROUNDED for earlier, later in itertools.pairwise(answers))


def test_a_roll_call_right_after_an_answer_is_answered_late_and_not_lost() -> None:
    times = AnswerTimes()
    times.asked(100.0, 0.0)
    assert times.take_due(100.1)
    assert times.asked(101.1, 0.0) == pytest.approx(4.0)


def test_a_process_that_was_frozen_says_nothing_and_answers_the_next_roll_call() -> None:
    times = AnswerTimes()
    delay = times.asked(100.0, 0.5)
    assert delay is not None
    assert not times.take_due(100.0 + delay + 2.1)
    assert times.asked(110.0, 0.0) == pytest.approx(0.1)
    assert times.take_due(110.1 + 1.9)


def test_what_is_missing_for_a_moment_is_on_its_way() -> None:
    times = AskTimes()
    assert not times.is_due(MISSING, 100.0)
    assert not times.is_due(MISSING, 100.9)
    assert times.is_due(MISSING, 101.0)


def test_nobody_is_asked_where_nothing_is_missing() -> None:
    times = AskTimes()
    assert not any(times.is_due(frozenset(), 100.0 + n) for n in range(100))


def test_what_came_and_went_missing_again_has_its_moment_again() -> None:
    times = AskTimes()
    times.is_due(MISSING, 100.0)
    times.is_due(frozenset(), 100.5)
    assert not times.is_due(MISSING, 101.2)
    assert times.is_due(MISSING, 102.2)


def test_who_is_gone_for_good_is_asked_for_ever_more_rarely() -> None:
    times = AskTimes()
    asked = [now for now in range(100, 1500) if times.is_due(MISSING, float(now))]
    gaps = [later - earlier for earlier, later in itertools.pairwise(asked)]
    assert gaps[:5] == [5, 10, 20, 40, 80]
    assert max(gaps) == 300


def test_something_else_that_is_missing_is_asked_for_soon() -> None:
    times = AskTimes()
    for now in range(100, 300):
        times.is_due(MISSING, float(now))
    both = MISSING | {"node/b/state"}
    assert next(now for now in range(300, 320) if times.is_due(both, float(now))) <= 301 + 5


def test_the_roll_call_of_the_start_counts() -> None:
    times = AskTimes()
    times.asked(100.0)
    assert [now for now in range(100, 110) if times.is_due(MISSING, float(now))] == [105]
