"""What is done after a process died: who is blamed, which requests are not run again, when it is given up."""

import pytest

from s2m3.agents.supervision.blackbox import LOADING, LOOP, PREPARING, WORKER
from s2m3.agents.supervision.restart_policy import CrashHistory, Mark, RestartPolicy

ONE, TWO = b"1" * 16, b"2" * 16
#: another request that asks what ONE asks
AGAIN = ONE[:8] + b"another8"


def after(policy: RestartPolicy, *marks: Mark, now: float = 0.0, poison: bool = True) -> CrashHistory:
    history = policy.after("killed by signal 11", marks, now, poison=poison)
    assert history is not None
    return history


def test_a_death_with_nothing_under_way_blames_nobody() -> None:
    assert after(RestartPolicy()) == CrashHistory()


def test_a_module_that_ends_the_process_while_it_is_loaded_is_reported_failed_the_first_time() -> None:
    history = after(RestartPolicy(), Mark(LOADING, "big", ()))
    assert history.failed == {"big": "loading it ended the process: killed by signal 11"}


def test_a_module_that_ends_the_process_while_it_runs_is_loaded_again_three_times_and_then_reported_failed() -> None:
    policy = RestartPolicy()
    found = [after(policy, Mark(WORKER, "m", (ONE,)), now=now).failed for now in (0.0, 10.0, 20.0, 30.0)]
    assert found[:3] == [{}, {}, {}]
    assert found[3] == {"m": "it ended the process 4 times in 60 s: killed by signal 11"}


def test_deaths_more_than_a_minute_ago_are_not_counted_against_a_module() -> None:
    policy = RestartPolicy()
    deaths = [after(policy, Mark(WORKER, "m", (ONE,)), now=now).failed for now in (0.0, 1.0, 2.0, 60.0)]
    assert deaths == [{}, {}, {}, {}]  # the first one was 60 s before the last
    assert after(policy, Mark(WORKER, "m", (ONE,)), now=60.5).failed != {}


def test_each_module_has_a_count_of_its_own() -> None:
    policy = RestartPolicy()
    for now in (0.0, 1.0, 2.0):
        after(policy, Mark(WORKER, "m", (ONE,)), now=now)
    history = after(policy, Mark(WORKER, "other", (ONE,)), now=3.0)
    assert history.failed == {}


def test_only_modules_of_the_last_death_are_reported_failed() -> None:
    policy = RestartPolicy()
    after(policy, Mark(LOADING, "big", ()))
    assert after(policy, Mark(WORKER, "small", (ONE,)), now=1.0).failed == {}


def test_a_request_that_was_run_alone_is_poison_and_says_what_it_did() -> None:
    history = after(RestartPolicy(), Mark(WORKER, "m", (ONE,)))
    assert history.poison == {ONE: "m did not survive this input: killed by signal 11"}
    assert history.suspects == frozenset()


def test_requests_of_a_batch_are_suspects_and_none_is_poison() -> None:
    history = after(RestartPolicy(), Mark(WORKER, "m", (ONE, TWO)))
    assert history.poison == {}
    assert history.suspects == {ONE, TWO}


def test_requests_that_were_prepared_beside_each_other_are_suspects_and_none_is_poison() -> None:
    history = after(RestartPolicy(), Mark(WORKER, "m", (ONE,)), Mark(PREPARING[0], "m", (TWO,)))
    assert history.poison == {}
    assert history.suspects == {ONE, TWO}
    assert history.poison_contents == {}


def test_a_request_whose_branches_ran_beside_each_other_was_alone_and_both_are_named() -> None:
    history = after(RestartPolicy(), Mark(WORKER, "left", (ONE,)), Mark(LOOP, "right", (ONE,)))
    assert history.poison == {ONE: "left and right did not survive this input: killed by signal 11"}
    assert history.suspects == frozenset()
    assert history.poison_contents == {}, "one death, not two"


def test_requests_of_one_content_in_one_batch_were_alone() -> None:
    history = after(RestartPolicy(), Mark(WORKER, "m", (ONE, AGAIN)))
    assert history.poison == dict.fromkeys((ONE, AGAIN), "m did not survive this input: killed by signal 11")


def test_a_request_that_ran_while_a_module_was_loaded_is_poison_all_the_same() -> None:
    history = after(RestartPolicy(), Mark(WORKER, "m", (ONE,)), Mark(LOADING, "big", ()))
    assert set(history.poison) == {ONE}


def test_where_memory_may_be_to_blame_a_request_that_was_run_alone_is_a_suspect_only() -> None:
    history = after(RestartPolicy(), Mark(WORKER, "m", (ONE,)), poison=False)
    assert history.poison == {}
    assert history.suspects == {ONE}


@pytest.mark.parametrize("poison", [True, False], ids=["crash", "sigkill"])
def test_29_a_content_that_was_run_alone_at_two_deaths_is_poison_under_every_id(*, poison: bool) -> None:
    policy = RestartPolicy()
    history = after(policy, Mark(WORKER, "m", (ONE,)), poison=poison)
    assert history.poison_contents == {}
    assert history.suspect_contents == {ONE[:8]}
    history = after(policy, Mark(WORKER, "m", (AGAIN,)), now=100.0, poison=poison)
    assert history.poison_contents == {ONE[:8]: "m did not survive this input 2 times: killed by signal 11"}


def test_29_a_content_of_a_batch_is_run_alone_and_is_not_poison() -> None:
    policy = RestartPolicy()
    for now in (0.0, 100.0, 200.0):
        history = after(policy, Mark(WORKER, "m", (ONE, TWO)), now=now)
    assert history.poison_contents == {}
    assert history.suspect_contents == {ONE[:8], TWO[:8]}


def test_29_deaths_longer_ago_than_ten_minutes_do_not_count_against_a_content() -> None:
    policy = RestartPolicy()
    after(policy, Mark(WORKER, "m", (ONE,)))
    history = after(policy, Mark(WORKER, "m", (AGAIN,)), now=600.0)
    assert history.poison_contents == {}


def test_what_earlier_processes_died_of_is_still_known_to_the_next() -> None:
    policy = RestartPolicy()
    after(policy, Mark(WORKER, "m", (ONE,)))
    history = after(policy, Mark(WORKER, "m", (TWO,)), now=100.0)
    assert set(history.poison) == {ONE, TWO}


@pytest.mark.parametrize("poison", [True, False])
def test_of_more_than_a_thousand_requests_the_oldest_are_forgotten(*, poison: bool) -> None:
    policy = RestartPolicy()
    for n in range(1_001):
        history = after(policy, Mark(WORKER, "m", (n.to_bytes(16, "big"),)), now=100.0 * n, poison=poison)
    kept = history.poison if poison else history.suspects
    assert len(kept) == 1_000
    assert (0).to_bytes(16, "big") not in kept
    assert (1).to_bytes(16, "big") in kept
    assert (1_000).to_bytes(16, "big") in kept


def test_after_ten_deaths_in_a_minute_whatever_their_cause_the_next_is_the_last() -> None:
    policy = RestartPolicy()
    for n in range(10):
        after(policy, now=float(n))
    assert policy.after("exit code 1", [], 10.0, poison=True) is None


def test_ten_deaths_in_each_minute_are_never_given_up_on() -> None:
    policy = RestartPolicy()
    for n in range(30):
        after(policy, now=6.0 * n)  # the eleventh is just 60 s old each time
