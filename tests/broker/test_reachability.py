"""Which nodes a requester has not heard of for long, by their own keepalives."""

from s2m3.broker.requests.reachability import Reachability

NOBODY: frozenset[str] = frozenset()


def test_a_node_is_silent_after_1_6_of_its_own_keepalives_and_no_more_once_it_is_heard() -> None:
    reach = Reachability()
    assert reach.silent(0.0) == NOBODY
    reach.heard("quick", 5.0, 0.0)
    reach.heard("slow", 10.0, 0.0)
    assert reach.silent(7.9) == NOBODY
    assert reach.silent(8.0) == {"quick"}
    reach.heard("slow", 10.0, 9.0)
    assert reach.silent(24.9) == {"quick"}
    assert reach.silent(25.0) == {"quick", "slow"}
    reach.heard("quick", 5.0, 25.0)
    assert reach.silent(25.0) == {"slow"}
    assert reach.silent(33.0) == {"quick", "slow"}


def test_a_node_that_says_no_keepalive_or_was_never_heard_is_not_silent() -> None:
    reach = Reachability()
    reach.heard("older", 0.0, 0.0)
    assert reach.silent(1_000.0) == NOBODY
    assert reach.next_silence(["older", "unknown"], 0.0) == float("inf")
    assert reach.next_silence([], 0.0) == float("inf")


def test_the_next_silence_is_that_of_the_first_of_some_nodes_that_is_not_silent_yet() -> None:
    reach = Reachability()
    for node, at in (("a", 3.0), ("b", 1.0), ("c", 0.0)):
        reach.heard(node, 5.0, at)
    assert reach.next_silence(["a", "b", "unknown"], 8.9) == 9.0
    assert reach.next_silence(["a", "b", "unknown"], 9.0) == 11.0
    assert reach.next_silence(["a", "b", "unknown"], 11.0) == float("inf")


def test_forgotten_nodes_are_not_silent() -> None:
    reach = Reachability()
    for node in "abc":
        reach.heard(node, 5.0, 0.0)
    assert reach.silent(9.0) == {*"abc"}
    reach.forget("a")
    assert reach.silent(9.0) == {*"bc"}
    reach.forget("never heard")
    assert reach.silent(9.0) == {*"bc"}
    reach.suspend()
    assert reach.silent(9.0) == NOBODY
    assert reach.next_silence("bc", 0.0) == float("inf")
    reach.heard("b", 5.0, 10.0)
    assert reach.silent(18.0) == {"b"}


def test_after_a_new_connection_nodes_have_their_time_again_and_are_silent_if_they_are_not_heard() -> None:
    reach = Reachability()
    reach.heard("quick", 5.0, 0.0)
    reach.heard("slow", 10.0, 0.0)
    reach.heard("lost", 5.0, 0.0)
    assert reach.silent(9.0) == {"quick", "lost"}
    reach.suspend()
    reach.forget("lost")
    reach.excuse(20.0)
    assert reach.silent(20.0) == NOBODY
    reach.heard("quick", 2.5, 21.0)
    assert reach.silent(35.9) == {"quick"}
    assert reach.silent(36.0) == {"quick", "slow"}
    reach.excuse(40.0)
    assert reach.silent(43.9) == NOBODY
    assert reach.silent(44.0) == {"quick"}, "by its newest keepalive"
    assert reach.silent(56.0) == {"quick", "slow"}


def test_nodes_never_heard_come_before_the_others_in_the_order_in_which_these_become_silent() -> None:
    reach = Reachability()
    for node, keepalive_s, at in (("a", 5.0, 3.0), ("b", 10.0, 1.0), ("c", 5.0, 0.0)):
        reach.heard(node, keepalive_s, at)
    assert reach.by_silence(["unknown", "b", "strange", "a", "c"]) == ["strange", "unknown", "c", "a", "b"]
