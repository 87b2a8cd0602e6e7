"""Where a request goes that has no answer yet: away from a node that is silent, and after half of its time from any."""

import pytest

from s2m3.broker.requests.tracker import RequestTracker
from s2m3.schemas.errors import BusyError
from s2m3.schemas.messages import RankRoute, Replica, RouteDoc, RouteStep
from s2m3.schemas.wire.work import Answer
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


def test_a_silent_node_is_left_for_one_that_failed_the_request_once_and_is_heard() -> None:
    made = requests("a", "b")
    beat(made, 0.0, "a", "b")
    assert sent(made.submit(ID, "t", {"x": "a"}, 60.0, 1.0)).hop.node == "a"
    made.on_answer(refused(BusyError("full", node="a")), 2.0)
    assert ways(made, 4.0)[0][1] == "bb"
    beat(made, 7.0, "a")
    assert ways(made, 9.0) == [(8.0, "aa")]


# ---- nodes of each step by how long they take: the first is the quickest ---------------------------------------------


def steps(**nodes: str) -> dict[str, RouteStep]:
    """Steps one after the other, each with its nodes, a letter each, the quickest first."""
    made, ref = dict[str, RouteStep](), "input.x"
    for name, letters in nodes.items():
        replicas = [Replica(node=node, ms=100.0**place) for place, node in enumerate(letters)]
        made[name] = RouteStep(module=name, inputs={"x": ref}, outputs=["y"], replicas=replicas)
        ref = f"{name}.y"
    return made


def tracker(*models: dict[str, RouteStep]) -> RequestTracker:
    ranks = [
        RankRoute(model=f"m{n}", inputs={"x": "text"}, answer=["y"], steps=model) for n, model in enumerate(models)
    ]
    doc = route("a").model_copy(update={"model": "m0", "steps": models[0], "ranks": ranks if len(ranks) > 1 else []})
    made = requests()
    made.on_route("t", doc, 0.0)
    return made


def submit(made: RequestTracker, now: float = 0.0) -> str:
    """Submits a request with 64 s; returns its nodes, a letter for each step."""
    return "".join(hop.node for hop in sent(made.submit(ID, "t", {"x": "a"}, 64.0, now)).route.values())


def refuse_as_full(made: RequestTracker, node: str, now: float, attempt: int = 1) -> None:
    made.on_answer(Answer(ID, "s", attempt, error=BusyError("full", node=node)), now)


def first_way(made: RequestTracker, until: float = 40.0) -> tuple[float, str]:
    return ways(made, until)[0]


def test_a_lower_model_over_the_silent_node_does_not_hide_the_next_whose_nodes_are_heard() -> None:
    made = tracker(steps(s="a"), steps(s="a", u="b"), steps(s="c"))
    beat(made, 0.0, "a", "b", "c")
    assert submit(made) == "a"
    beat(made, 7.0, "b", "c")
    assert first_way(made) == (8.0, "c")


def test_where_the_nodes_of_every_lower_model_are_silent_too_the_best_of_these_is_asked_after_half_of_the_time() -> (
    None
):
    made = tracker(steps(s="a"), steps(s="b"))
    beat(made, 0.0, "a", "b")
    assert submit(made) == "a"
    assert first_way(made) == (32.0, "b")


def test_one_error_of_the_node_that_is_heard_does_not_send_the_request_back_to_the_silent_one() -> None:
    made = tracker(steps(s="ab"))
    beat(made, 0.0, "a", "b")
    assert submit(made) == "a"
    beat(made, 7.0, "b")
    assert ways(made, 8.1) == [(8.0, "b")]
    refuse_as_full(made, "b", 8.1, attempt=2)
    assert first_way(made, 9.0)[1] == "b"
    beat(made, 9.0, "a")
    refuse_as_full(made, "b", 9.1, attempt=3)
    assert first_way(made, 11.0)[1] == "a", "it is heard again, and has failed the request no more than the other"


def test_a_way_over_another_silent_node_does_not_hide_one_over_heard_nodes() -> None:
    made = tracker(steps(s="ca", u="bda"))
    made.on_load("c", {}, -20.0, 5.0)
    beat(made, 0.0, "a", "b", "d")
    assert submit(made) == "ab"
    beat(made, 7.0, "a", "d")
    assert first_way(made) == (8.0, "ad")


def test_the_node_that_is_left_out_does_not_depend_on_queues() -> None:
    made = tracker(steps(s="ab", u="ba"))
    made.on_load("a", {}, 0.0, 600.0)
    assert submit(made) == "ab"
    made.on_load("a", {"s": 5_000}, 1.0, 600.0)
    assert first_way(made) == (32.0, "aa"), "b was never heard"


def test_where_all_are_heard_a_stand_in_is_asked_at_half_of_the_time_whatever_the_queues() -> None:
    made = tracker(steps(s="ab", u="ba"), steps(s="c"))
    for node in "abc":
        made.on_load(node, {}, 0.0, 600.0)
    assert submit(made) == "ab"
    made.on_load("b", {"u": 5_000}, 1.0, 600.0)
    assert first_way(made) == (32.0, "c")


def test_a_second_silence_is_noticed_after_one_that_nothing_could_be_done_about() -> None:
    made = tracker(steps(s="a", u="bc"))
    made.on_load("a", {}, -20.0, 5.0)
    beat(made, 0.0, "b", "c")
    assert submit(made) == "ab"
    beat(made, 7.0, "b", "c")
    assert made.tick(8.0) == []
    beat(made, 8.5, "a", "b", "c")
    beat(made, 15.0, "a", "c")
    assert first_way(made) == (16.5, "ac")


def test_nothing_is_sent_while_there_is_no_connection_however_late_a_look_comes() -> None:
    made = tracker(steps(s="ab"))
    beat(made, 0.0, "a")
    submit(made)
    made.on_link_down()
    assert made.tick(9.1) == []
    assert ways(made, 60.0) == []


def test_a_silent_node_is_left_out_before_one_that_was_never_heard() -> None:
    made = tracker(steps(s="ad", u="be"))
    beat(made, 0.0, "a", "d")
    made.on_load("e", {}, 0.0, 600.0)
    assert submit(made) == "ab"
    refuse_as_full(made, "d", 0.1)
    assert first_way(made, 2.0)[1] == "ab"
    beat(made, 7.0, "d")
    assert first_way(made) == (8.0, "db")


def test_a_heard_node_that_failed_the_request_is_asked_before_a_lower_model_over_a_silent_one() -> None:
    made = tracker(steps(s="ab"), steps(t="b"))
    beat(made, 0.0, "a", "b")
    assert submit(made) == "a"
    refuse_as_full(made, "a", 0.1)
    assert first_way(made, 2.0)[1] == "b"
    beat(made, 7.0, "a")
    assert first_way(made) == (8.0, "a")


def test_a_node_that_was_left_for_the_silence_of_another_is_as_good_as_any() -> None:
    made = tracker(steps(s="acb", u="bd"), steps(t="e"))
    beat(made, 0.0, "a")
    for node in "bcde":
        made.on_load(node, {}, 0.0, 600.0)
    assert submit(made) == "ab"
    assert ways(made, 40.0) == [(8.0, "cd"), (36.0, "bb")]
