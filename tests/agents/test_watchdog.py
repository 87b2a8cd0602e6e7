"""Calls into modules that have no end are told, and requests that killed a process are not run again."""

import pytest

from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.restart_policy import CrashHistory, Mark
from s2m3.agents.supervision.watchdog import LOADING, LOOP, WORKER, Watchdog
from s2m3.schemas.errors import ModuleFailedError

ONE = b"1" * 16


class Clock:
    """Time as the test has it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_call_is_marked_while_it_runs_and_no_longer(clock: Clock) -> None:
    box = Blackbox()
    watchdog = Watchdog(box, clock=clock)
    with watchdog.running(WORKER, "m", [ONE], 1.0), watchdog.running(LOOP, "light", [], 1.0):
        assert box.marks() == [Mark(WORKER, "m", (ONE,)), Mark(LOOP, "light", ())]
    assert box.marks() == []


def test_a_load_is_marked_while_it_lasts_and_no_longer(clock: Clock) -> None:
    box = Blackbox()
    with Watchdog(box, clock=clock).loading("m"):
        assert box.marks() == [Mark(LOADING, "m", ())]
    assert box.marks() == []


def test_a_call_that_fails_is_not_under_way_any_more(clock: Clock) -> None:
    box = Blackbox()
    watchdog = Watchdog(box, clock=clock)
    with pytest.raises(ZeroDivisionError), watchdog.running(WORKER, "m", [ONE], 1.0):
        raise ZeroDivisionError
    with pytest.raises(ZeroDivisionError), watchdog.loading("m"):
        raise ZeroDivisionError
    clock.now += 10_000
    assert box.marks() == []
    assert watchdog.check() is None


def test_each_check_counts_as_a_beat_of_the_loop(clock: Clock) -> None:
    box = Blackbox()
    watchdog = Watchdog(box, clock=clock)
    assert watchdog.check() is None
    assert watchdog.check() is None
    assert box.beats == 2


def test_a_call_longer_than_the_limit_hangs_and_the_reason_is_left_in_the_blackbox(clock: Clock) -> None:
    box = Blackbox()
    watchdog = Watchdog(box, hang_s=5.0, clock=clock)
    with watchdog.running(WORKER, "m", [ONE], 1.0):
        clock.now += 5.0
        assert watchdog.check() is None
        clock.now += 0.6
        assert watchdog.check() == "running m has not ended after 6 s"
        assert box.reason == "running m has not ended after 6 s"


def test_without_a_setting_a_call_hangs_after_ten_seconds(clock: Clock) -> None:
    watchdog = Watchdog(clock=clock)
    with watchdog.running(WORKER, "m", [ONE], 1.0):
        clock.now += 10.0
        assert watchdog.check() is None
        clock.now += 0.1
        assert watchdog.check() is not None


def test_a_call_may_take_as_long_as_its_most_patient_caller_waits_but_not_over_ten_minutes(clock: Clock) -> None:
    watchdog = Watchdog(hang_s=5.0, clock=clock)
    with watchdog.running(WORKER, "m", [ONE], 30.0):
        clock.now += 30.0
        assert watchdog.check() is None
        clock.now += 0.1
        assert watchdog.check() is not None
    fresh = Watchdog(hang_s=5.0, clock=clock)
    with fresh.running(WORKER, "m", [ONE], 86_400.0):
        clock.now += 600.0
        assert fresh.check() is None
        clock.now += 0.1
        assert fresh.check() is not None


def test_a_call_may_take_twenty_times_the_slowest_before_it(clock: Clock) -> None:
    watchdog = Watchdog(hang_s=5.0, clock=clock)
    for took in (1.0, 0.1):  # the slowest counts, not the last
        with watchdog.running(WORKER, "m", [ONE], 1.0):
            clock.now += took
    with watchdog.running(WORKER, "m", [ONE], 1.0):
        clock.now += 20.0
        assert watchdog.check() is None
        clock.now += 0.1
        assert watchdog.check() is not None


def test_how_slow_one_module_is_gives_no_other_more_time(clock: Clock) -> None:
    watchdog = Watchdog(hang_s=5.0, clock=clock)
    with watchdog.running(WORKER, "slow", [ONE], 1.0):
        clock.now += 4.0
    with watchdog.running(WORKER, "m", [ONE], 1.0):
        clock.now += 5.1
        assert watchdog.check() is not None


def test_loading_may_take_half_an_hour(clock: Clock) -> None:
    watchdog = Watchdog(clock=clock)
    with watchdog.loading("m"):
        clock.now += 1_800.0
        assert watchdog.check() is None
        clock.now += 0.9
        assert watchdog.check() == "loading m has not ended after 1801 s"


def test_the_slots_are_watched_each_for_itself(clock: Clock) -> None:
    watchdog = Watchdog(hang_s=5.0, clock=clock)
    with watchdog.running(WORKER, "m", [ONE], 100.0), watchdog.running(LOOP, "light", [ONE], 1.0):
        clock.now += 6.0
        assert watchdog.check() == "running light has not ended after 6 s"


def test_a_request_that_killed_a_process_is_refused_with_the_reason_and_no_other_is() -> None:
    watchdog = Watchdog(crash_history=CrashHistory(poison={ONE: "m did not survive this input"}))
    with pytest.raises(ModuleFailedError, match="m did not survive this input"):
        watchdog.refuse_poison(ONE)
    watchdog.refuse_poison(b"2" * 16)


def test_29_requests_of_a_poison_content_are_refused_and_those_of_a_suspected_one_are_suspected() -> None:
    content, same = ONE[:8], ONE[:8] + b"another8"
    watchdog = Watchdog(crash_history=CrashHistory(poison_contents={content: "m did not survive this input 2 times"}))
    with pytest.raises(ModuleFailedError, match="2 times"):
        watchdog.refuse_poison(same)
    watchdog = Watchdog(crash_history=CrashHistory(suspect_contents=frozenset({content})))
    watchdog.refuse_poison(same)
    assert watchdog.is_suspected(same)


def test_a_request_of_a_batch_that_killed_a_process_is_suspected_and_no_other_is() -> None:
    watchdog = Watchdog(crash_history=CrashHistory(suspects=frozenset({ONE})))
    assert watchdog.is_suspected(ONE)
    assert not watchdog.is_suspected(b"2" * 16)
    assert not Watchdog().is_suspected(ONE)


def test_36_a_call_hangs_only_if_none_of_its_slices_ends(clock: Clock) -> None:
    watchdog = Watchdog(hang_s=10.0, clock=clock)
    with watchdog.running(WORKER, "m", [ONE], 1.0) as call:
        for _ in range(5):
            clock.now += 9.0
            assert watchdog.check() is None
            watchdog.note_progress(call)
        clock.now += 11.0
        assert watchdog.check() == "running m has not ended after 56 s"


def test_36_a_call_gets_on_after_a_second_and_until_it_takes_longer_than_is_usual(clock: Clock) -> None:
    watchdog = Watchdog(hang_s=10.0, clock=clock)
    with watchdog.running(WORKER, "m", [ONE], 600.0) as call:
        found: list[bool] = []
        for _ in range(5):
            clock.now += 4.0 if found else 0.9
            found.append(watchdog.gets_on(call, 1.0))
        assert found == [False, True, True, False, False]
        watchdog.note_progress(call)
        assert watchdog.gets_on(call, 1.0)


def test_a_module_that_is_allowed_longer_does_not_hang_before_and_others_do(clock: Clock) -> None:
    watchdog = Watchdog(hang_s=10.0, clock=clock)
    watchdog.allow("mapped", 60.0)
    with watchdog.running(WORKER, "mapped", [ONE], 1.0):
        clock.now += 59
        assert watchdog.check() is None
        clock.now += 2
        assert watchdog.check() is not None
    watchdog.allow("mapped", 0.0)
    with watchdog.running(WORKER, "other", [ONE], 1.0):
        clock.now += 11
        assert watchdog.check() is not None
