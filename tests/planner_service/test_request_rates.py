"""How often tasks are asked: an average that forgets, two digits of it, and nothing for a task that is idle."""

import pytest

from s2m3.planner.site.request_rates import Rates


def test_a_task_that_nobody_asks_has_no_rate() -> None:
    rates = Rates()
    assert rates.rate("t", 0.0) is None
    rates.add("t", 0, 0.0)
    assert rates.rate("t", 0.0) is None


def test_a_steady_rate_is_found_after_a_few_times_the_memory() -> None:
    rates = Rates()
    for second in range(1_200):
        rates.add("t", 3, float(second))
    assert rates.rate("t", 1_199.0) == pytest.approx(3.0, rel=0.05)


def test_requests_count_a_third_after_two_minutes() -> None:
    rates = Rates()
    rates.add("t", 1_200, 100.0)
    assert rates.rate("t", 100.0) == pytest.approx(10.0)
    assert rates.rate("t", 220.0) == 3.7  # 10 / e, two digits of it
    rates.add("t", 1_200, 220.0)
    assert rates.rate("t", 220.0) == 14.0


def test_a_rate_has_two_digits() -> None:
    rates = Rates()
    rates.add("t", 1_234, 0.0)
    assert rates.rate("t", 0.0) == 10.0


def test_one_request_in_more_than_some_minutes_is_as_good_as_none() -> None:
    rates = Rates()
    rates.add("t", 1, 0.0)  # 1/120 a second
    assert rates.rate("t", 0.0) == 0.0083
    assert rates.rate("t", 61.0) == 0.005
    assert rates.rate("t", 62.0) is None


def test_each_task_has_a_rate_of_its_own() -> None:
    rates = Rates()
    rates.add("t", 120, 0.0)
    assert (rates.rate("t", 0.0), rates.rate("u", 0.0)) == (1.0, None)


def test_whether_anybody_asks_is_known_of_all_tasks() -> None:
    rates = Rates()
    assert not rates.has_any(0.0)
    rates.add("idle", 0, 0.0)
    assert not rates.has_any(0.0)
    rates.add("asked", 100, 0.0)
    assert rates.has_any(0.0)
    assert not rates.has_any(10_000.0)
