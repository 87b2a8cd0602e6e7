"""When a node gives up memory, how much, and when it takes it back. The clock and the figures are the test's."""

import pytest

from s2m3.agents.pressure import Pressure

BUDGET, DEVICE, PLENTY = 500.0, 4_000.0, 2_000.0


def looked(pressure: Pressure, rss: float, available: float, times: list[float]) -> list[float]:
    """What is given up after each look."""
    found = []
    for now in times:
        pressure.look(rss, available, now)
        found.append(pressure.mb)
    return found


def test_a_process_within_its_budget_gives_up_nothing() -> None:
    pressure = Pressure(BUDGET, DEVICE)
    assert looked(pressure, 620.0, PLENTY, [0, 2, 4, 100]) == [0, 0, 0, 0]
    assert not pressure.wants


def test_too_much_is_looked_at_twice_before_anything_is_given_up() -> None:
    pressure = Pressure(BUDGET, DEVICE)
    assert looked(pressure, 650.0, PLENTY, [0]) == [0]
    assert pressure.wants
    assert looked(pressure, 500.0, PLENTY, [2]) == [0]
    assert looked(pressure, 650.0, PLENTY, [4, 6]) == [0, 150]


def test_more_is_demanded_only_after_the_planner_had_time_and_never_more_than_the_budget() -> None:
    pressure = Pressure(BUDGET, DEVICE)
    assert looked(pressure, 800.0, PLENTY, [0, 2, 4, 11, 12, 22]) == [0, 300, 300, 300, 500, 500]


def test_a_device_that_runs_short_counts_although_the_process_is_within_its_budget() -> None:
    pressure = Pressure(BUDGET, DEVICE)
    assert looked(pressure, 300.0, 50.0, [0, 2]) == [0, 150]


@pytest.mark.parametrize(
    ("rss", "available", "then"), [(340.0, PLENTY, 0.0), (400.0, PLENTY, 150.0), (340.0, 300.0, 150.0)]
)
def test_what_was_given_up_comes_back_once_there_is_room_for_it_and_a_minute_of_calm(
    rss: float, available: float, then: float
) -> None:
    pressure = Pressure(BUDGET, DEVICE)
    assert looked(pressure, 650.0, PLENTY, [0, 2])[-1] == 150
    assert looked(pressure, rss, available, [10, 40, 69]) == [150, 150, 150]
    assert looked(pressure, rss, available, [70]) == [then]


def test_calm_has_to_last_a_minute_without_a_break() -> None:
    pressure = Pressure(BUDGET, DEVICE)
    looked(pressure, 650.0, PLENTY, [0, 2])
    assert looked(pressure, 340.0, PLENTY, [10, 60]) == [150, 150]
    assert looked(pressure, 400.0, PLENTY, [65]) == [150]  # no room for what was given up
    assert looked(pressure, 340.0, PLENTY, [70, 129]) == [150, 150]
    assert looked(pressure, 340.0, PLENTY, [130]) == [0]


def test_a_want_in_between_begins_the_minute_again() -> None:
    pressure = Pressure(BUDGET, DEVICE)
    looked(pressure, 650.0, PLENTY, [0, 2])
    assert looked(pressure, 340.0, PLENTY, [10]) == [150]
    assert looked(pressure, 650.0, PLENTY, [40]) == [150]
    assert looked(pressure, 340.0, PLENTY, [50, 109, 110]) == [150, 150, 0]


def test_a_look_says_whether_what_is_given_up_changed() -> None:
    pressure = Pressure(BUDGET, DEVICE)
    assert [pressure.look(650.0, PLENTY, now) for now in (0.0, 2.0, 4.0)] == [False, True, False]
    assert [pressure.look(340.0, PLENTY, now) for now in (10.0, 69.0, 70.0, 140.0)] == [False, False, True, False]


def test_a_budget_is_exceeded_from_a_quarter_more_and_by_all_that_is_over_it() -> None:
    assert looked(Pressure(BUDGET, DEVICE), 625.0, PLENTY, [0, 2]) == [0, 0]
    assert looked(Pressure(BUDGET, DEVICE), 625.1, PLENTY, [0, 2])[1] == pytest.approx(125.1)


def test_a_device_keeps_a_twentieth_of_its_memory_free_and_200_mb_at_most() -> None:
    assert looked(Pressure(BUDGET, 1_000.0), 300.0, 40.0, [0, 2]) == [0, 10]
    assert looked(Pressure(BUDGET, 1_000.0), 300.0, 50.0, [0, 2]) == [0, 0]
    assert looked(Pressure(BUDGET, 64_000.0), 300.0, 190.0, [0, 2]) == [0, 10]


def test_the_larger_of_two_wants_is_given_up() -> None:
    assert looked(Pressure(BUDGET, DEVICE), 650.0, 100.0, [0, 2]) == [0, 150]
    assert looked(Pressure(BUDGET, DEVICE), 650.0, 0.0, [0, 2]) == [0, 200]


def test_what_comes_back_fits_exactly_where_there_is_just_room_for_it() -> None:
    pressure = Pressure(BUDGET, DEVICE)
    looked(pressure, 650.0, PLENTY, [0, 2])
    assert looked(pressure, 350.0, 350.0, [10, 70]) == [150, 0]
