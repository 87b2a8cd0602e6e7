"""Where a request goes that has no answer yet: away from a node that is silent, and after half of its time from any."""

import pytest

from s2m3.broker.requests.tracker import RequestTracker
from s2m3.schemas.errors import BusyError
from s2m3.schemas.messages import RankRoute, Replica, RouteDoc
from tests.broker.asked import ID, lost, ready, refused, requests, route, sent


def beat(made: RequestTracker, now: float, *nodes: str) -> None:
    for node in nodes:
        made.on_load(node, {}, now, 5.0)


def test_a_request_goes_to_another_node_when_its_own_is_silent_and_the_next_ones_go_there_at_once() -> None:
    made = requests("a", "b")
    beat(made, 0.0, "a", "b")
    assert sent(made.submit(ID, "t", {"x": "a"}, 60.0, 1.0)).hop.node == "a"
    beat(made, 5.0, "b")
    assert made.next_due() == 8.0
    assert made.tick(7.9) == []
    second = sent(made.tick(8.0))
    assert (second.hop.node, second.attempt) == ("b", 2)
    assert sent(made.submit(b"2" * 16, "t", {"x": "a"}, 60.0, 8.0)).hop.node == "b"
    beat(made, 8.5, "a")
    assert sent(made.submit(b"3" * 16, "t", {"x": "a"}, 60.0, 8.5)).hop.node == "a"


def test_a_node_that_is_heard_keeps_its_requests() -> None:
    made = requests("a", "b")
    beat(made, 0.0, "a", "b")
    made.submit(ID, "t", {"x": "a"}, 60.0, 1.0)
    beat(made, 7.5, "a", "b")
    assert made.tick(8.0) == []
    assert made.next_due() == 15.5
    made.on_working(ID, 1, 15.0)
    beat(made, 15.0, "b")
    assert made.tick(15.9) == []
    assert made.tick(17.9) == []
    assert sent(made.tick(18.0)).attempt == 2


@pytest.mark.parametrize("at", [1.0, 9.0], ids=["silent later", "silent before"])
def test_where_there_is_no_other_node_a_silent_one_is_asked_and_not_twice_before_half_of_the_time(at: float) -> None:
    made = requests("a")
    beat(made, 0.0, "a")
    assert sent(made.submit(ID, "t", {"x": "a"}, 60.0, at)).attempt == 1
    assert made.tick(8.0) == []
    assert made.next_due() == at + 30.0
    assert sent(made.tick(at + 30.0)).attempt == 2


def test_to_a_process_that_slept_nobody_is_silent_until_its_time_has_passed_again() -> None:
    made = requests("a", "b")
    beat(made, 0.0, "a")
    made.submit(ID, "t", {"x": "a"}, 60.0, 1.0)
    assert made.tick(9.1) == []
    assert made.next_due() == 17.1
    assert sent(made.tick(17.1)).route["head"].node == "b"


def test_over_a_new_connection_a_node_that_is_not_heard_any_more_is_silent_too() -> None:
    made = requests("a", "b")
    beat(made, 0.0, "a", "b")
    made.on_link_down()
    made.on_link_up(9.0)
    for node in "ab":
        made.on_node_state(node, ready(node), 9.0)
    assert sent(made.submit(ID, "t", {"x": "a"}, 60.0, 9.0)).hop.node == "a"
    beat(made, 12.0, "b")
    assert made.tick(16.9) == []
    assert sent(made.tick(17.0)).hop.node == "b"
    made.on_node_state("a", None, 18.0)
    beat(made, 18.0, "b")
    assert made.tick(25.0) == []
    assert sent(made.submit(b"2" * 16, "t", {"x": "a"}, 60.0, 25.0)).hop.node == "a", "a node that is not known now"


def test_a_silence_of_before_is_none_over_a_new_connection_or_of_a_lost_node_that_is_back() -> None:
    made = requests("a", "b")
    beat(made, 0.0, "a")
    made.on_link_down()
    made.on_link_up(9.0)
    for node in "ab":
        made.on_node_state(node, ready(node), 9.0)
    assert sent(made.submit(ID, "t", {"x": "a"}, 60.0, 9.0)).hop.node == "a"
    beat(made, 10.0, "a")
    made.on_node_state("a", lost("a"), 11.0)
    made.on_node_state("a", ready("a"), 19.0)
    assert sent(made.submit(b"2" * 16, "t", {"x": "a"}, 60.0, 19.0)).hop.node == "a"


def spread(*ranks: RankRoute) -> RouteDoc:
    """Returns a route document by which a request goes from `a` to `b`, and may go along either of them alone."""
    ms = {"encode": {"a": 10.0, "b": 500.0}, "head": {"a": 500.0, "b": 10.0}}
    doc = route("a", "b")
    for step, each in ms.items():
        doc.steps[step].replicas[:] = [Replica(node=node, ms=took) for node, took in each.items()]
    best = RankRoute(model=doc.model, inputs=doc.inputs, answer=doc.answer, steps=doc.steps)
    return doc.model_copy(update={"ranks": [best, *ranks]}) if ranks else doc


def spread_requests(*ranks: RankRoute) -> RequestTracker:
    made = requests()
    made.on_route("t", spread(*ranks), 0.0)
    return made


def ways(made: RequestTracker, until: float) -> list[tuple[float, str]]:
    """Returns when a request is sent again, and the nodes of its two steps, until its deadline."""
    found: list[tuple[float, str]] = []
    while (due := made.next_due()) is not None and due < until:
        if actions := made.tick(due):
            hops = sent(actions).route
            found.append((due, "".join(hop.node for hop in hops.values())))
    return found


@pytest.mark.parametrize("other", ["a", "b"])
def test_of_two_nodes_the_silent_one_is_left_out_and_the_other_keeps_its_part(other: str) -> None:
    made = spread_requests()
    beat(made, 0.0, "a", "b")
    first = sent(made.submit(ID, "t", {"x": "a"}, 60.0, 1.0))
    assert [hop.node for hop in first.route.values()] == ["a", "b"]
    beat(made, 5.0, other)
    assert ways(made, 30.0) == [(8.0, 2 * other)]


def test_where_both_are_silent_neither_is_asked_before_half_of_the_time() -> None:
    made = spread_requests()
    beat(made, 0.0, "a", "b")
    made.submit(ID, "t", {"x": "a"}, 64.0, 0.0)
    assert ways(made, 64.0)[0][0] == 32.0


def test_after_half_of_its_time_a_request_leaves_out_one_of_its_nodes_then_the_other_and_ends() -> None:
    made = spread_requests()
    made.submit(ID, "t", {"x": "a"}, 64.0, 0.0)
    assert ways(made, 64.0) == [(32.0, "bb"), (48.0, "aa"), (56.0, "bb")]


def test_the_node_that_was_heard_longest_ago_is_left_out_first() -> None:
    made = spread_requests()
    for node, at in (("a", 30.0), ("b", 29.0)):
        made.on_load(node, {}, at, 600.0)
    made.submit(ID, "t", {"x": "a"}, 64.0, 31.0)
    assert ways(made, 70.0)[0] == (63.0, "aa")


@pytest.mark.parametrize(
    ("silent", "to"),
    [("a", [(8.0, "bb")]), ("", [(32.0, "c")])],
    ids=["heard nodes before a lower model", "a lower model before the same nodes"],
)
def test_a_stand_in_is_asked_where_it_is_not_known_which_node_is_at_fault(
    silent: str, to: list[tuple[float, str]]
) -> None:
    below = route("c")
    made = spread_requests(
        RankRoute(model="less", inputs=below.inputs, answer=below.answer, steps={"encode": below.steps["encode"]})
    )
    for node in "ab":
        made.on_load(node, {}, 0.0, 5.0 if node in silent else 600.0)
    made.submit(ID, "t", {"x": "a"}, 64.0, 0.0)
    assert ways(made, 33.0) == to


def test_a_silent_node_is_not_left_for_one_that_failed_the_request_before_half_of_the_time() -> None:
    made = requests("a", "b")
    beat(made, 0.0, "a", "b")
    assert sent(made.submit(ID, "t", {"x": "a"}, 60.0, 1.0)).hop.node == "a"
    made.on_answer(refused(BusyError("full", node="a")), 2.0)
    assert ways(made, 4.0)[0][1] == "bb"
    beat(made, 7.0, "a")
    assert [way for _, way in ways(made, 61.0)] == ["aa", "bb"]
