"""Waits before tries to connect: longer each time, bounded, and not the same for everybody."""

from s2m3.broker.mqtt.backoff import delay_s

MANY = 2_000


def longest(attempt: int) -> float:
    return max(delay_s(attempt) for _ in range(MANY))


def test_the_longest_wait_doubles_with_each_attempt_up_to_two_seconds() -> None:
    """Of 2,000 uniform draws the largest is below 95 % of the bound in one run of 10^44."""
    bounds = [0.2, 0.4, 0.8, 1.6, 2.0, 2.0]
    for attempt, bound in enumerate(bounds, start=1):
        assert 0.95 * bound < longest(attempt) <= bound + 0.05


def test_a_wait_is_drawn_from_everything_up_to_the_longest() -> None:
    drawn = sorted(delay_s(5) for _ in range(MANY))
    assert 0.0 <= drawn[0] < 0.1
    assert 0.8 < drawn[MANY // 2] < 1.25
    assert len(set(drawn)) > MANY // 2


def test_even_the_hundredth_attempt_waits_two_seconds_at_most() -> None:
    assert longest(100) <= 2.05
