"""Better places are looked for unasked when a site is quiet, and at a bounded part of the planner's time."""

import pytest

from s2m3.planner.site.improvement_times import ImprovementTimes


def test_a_site_that_has_just_changed_is_left_alone_until_it_is_quiet() -> None:
    times = ImprovementTimes()
    assert not times.has_changed
    for now in (100.0, 115.0, 130.0):
        times.changed(now)
        assert times.has_changed
        assert not times.is_due(now + 19.0, 0.1)
    assert times.is_due(150.0, 0.1)
    times.improved(150.0)
    assert not times.has_changed


def test_a_site_that_is_never_quiet_is_improved_every_five_minutes() -> None:
    times = ImprovementTimes()
    due = []
    for now in range(0, 900, 10):
        times.changed(now)
        if times.is_due(now, 0.1):
            times.improved(now)
            due.append(now)
    assert due == [300, 610]


@pytest.mark.parametrize(("thorough_s", "after_s"), [(0.1, 5.0), (4.0, 200.0)])
def test_looking_takes_a_fiftieth_of_the_time_at_most(thorough_s: float, after_s: float) -> None:
    times = ImprovementTimes()
    times.improved(100.0)
    assert not times.is_due(100.0 + after_s - 0.1, thorough_s)
    assert times.is_due(100.0 + after_s, thorough_s)
