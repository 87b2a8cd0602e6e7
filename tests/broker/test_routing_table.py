"""What a requester knows of the site: which route document counts, which nodes are there, and which routes follow."""

import pytest

from s2m3.broker.requests.pending import Pending
from s2m3.broker.requests.ranks import Chosen
from s2m3.broker.requests.routing_table import RoutingTable
from s2m3.schemas.messages import NodeState, RankRoute, Replica, RouteDoc, RouteStep
from s2m3.schemas.wire.generation import Options


def doc(*nodes: str, epoch: int = 3, revision: int = 1, tolerance: float = 0.0) -> RouteDoc:
    """Of a task with a model for each text: the nodes of its one step, a letter each; the first is the fastest."""
    ranks = []
    for rank, letters in enumerate(nodes):
        replicas = [Replica(node=node, ms=10.0 * (place + 1)) for place, node in enumerate(letters)]
        step = RouteStep(module=f"m{rank}", inputs={"x": "input.x"}, outputs=["y"], replicas=replicas)
        ranks.append(RankRoute(model=f"model-{rank}", inputs={"x": "text"}, answer=["y"], steps={f"s{rank}": step}))
    best = ranks[0]
    return RouteDoc(
        epoch=epoch, revision=revision, model=best.model, inputs=best.inputs, answer=best.answer, deadline_s=10,
        steps=best.steps, ranks=ranks, tolerance=tolerance,
    )  # fmt: skip


def table(document: RouteDoc, *, nodes: str = "abc") -> RoutingTable:
    made = RoutingTable()
    for node in nodes:
        made.take_node(node, state(node))
    assert made.take_route("t", document)
    return made


def state(node: str, boot: str = "1", word: str = "ready") -> NodeState:
    return NodeState.model_validate({"state": word, "boot": f"{node}{boot}", "protocol": 1})


def pending(*, rank: int = 0, avoid: str = "", chosen: Chosen | None = None, task: str = "t") -> Pending:
    made = Pending(b"1" * 16, task, {"x": "a"}, 0.0, 10.0, rank=rank, avoid=set(avoid))
    made.route = None if chosen is None else chosen.route
    return made


def where(chosen: Chosen | None) -> tuple[int, str] | None:
    return None if chosen is None else (chosen.doc.rank, "".join(sorted(chosen.nodes)))


@pytest.mark.parametrize(
    ("epoch", "revision", "counts"),
    [(2, 9, False), (3, 4, False), (3, 5, True), (3, 6, True), (4, 0, True)],
    ids=["of an older planner", "older", "the same again", "newer", "of a newer planner"],
)
def test_on_one_connection_the_newest_route_document_counts(*, epoch: int, revision: int, counts: bool) -> None:
    made = table(doc("a", revision=5))
    assert made.take_route("t", doc("b", epoch=epoch, revision=revision)) is counts
    assert where(made.choose(pending(), 0.0)) == (0, "b" if counts else "a")


def test_on_a_new_connection_any_route_document_counts_and_nobody_is_there_until_heard() -> None:
    made = table(doc("a", revision=5))
    made.take_load("a", {"m0": 4})
    made.link_down()
    assert made.choose(pending(), 0.0) is None
    assert made.backlog.queued == {}
    made.take_node("b", state("b"))
    assert made.take_route("t", doc("b", epoch=1))
    assert where(made.choose(pending(), 0.0)) == (0, "b")


def test_a_task_that_was_removed_has_no_route_and_may_come_again_from_an_earlier_epoch() -> None:
    made = table(doc("a", revision=5))
    assert made.take_route("t", None)
    assert made.take_route("never known", None)
    assert made.choose(pending(), 0.0) is None
    assert made.take_route("t", doc("b", epoch=1))
    assert where(made.choose(pending(), 0.0)) == (0, "b")


def test_an_unknown_task_has_no_route_at_all() -> None:
    made, unknown = RoutingTable(), pending(task="other")
    assert (made.choose(unknown, 0.0), made.below(unknown, 0.0), made.reserve_s(unknown, 10.0)) == (None, None, 0.0)
    assert made.elsewhere(unknown, 0.0) is None
    assert not made.has_other_replica(unknown, 0.0)


def test_a_new_state_says_something_and_the_same_again_nothing() -> None:
    made = RoutingTable()
    assert made.take_node("a", state("a")) == (True, False)
    assert made.take_node("a", state("a")) == (False, False)
    assert made.take_node("a", state("a", word="draining")) == (True, False)
    assert made.take_node("a", None) == (False, False)


def test_a_lost_process_takes_its_queues_along_and_its_copies_are_not_used() -> None:
    made = table(doc("ab"))
    made.take_load("a", {"m0": 1})
    made.take_load("b", {"m0": 2, "other": 1})
    assert made.take_node("a", state("a", word="lost")) == (True, True)
    assert made.backlog.queued == {("b", "m0"): 2, ("b", "other"): 1}
    assert where(made.choose(pending(), 0.0)) == (0, "b")
    assert made.take_node("a", state("a")) == (True, False)
    assert where(made.choose(pending(), 0.0)) == (0, "a")  # the same process is back


def test_a_new_process_has_loaded_nothing_until_a_route_document_says_so() -> None:
    made = table(doc("ab"))
    made.take_load("a", {"m0": 1})
    assert made.take_node("a", state("a", boot="2")) == (True, True)
    assert made.backlog.queued == {}
    assert where(made.choose(pending(), 0.0)) == (0, "b")
    made.take_route("t", doc("ab", revision=2))
    assert where(made.choose(pending(), 0.0)) == (0, "a")


def test_the_load_of_a_node_replaces_the_one_before_and_counts_in_the_choice() -> None:
    made = table(doc("ab"))
    made.take_load("a", {"m0": 1, "other": 3})
    made.take_load("b", {"m0": 1})
    made.take_load("a", {"m0": 7})
    assert made.backlog.queued == {("a", "m0"): 7, ("b", "m0"): 1}
    assert where(made.choose(pending(), 0.0)) == (0, "b")


def test_a_request_is_chosen_a_route_at_its_rank_or_below_without_what_failed_it() -> None:
    made = table(doc("ab", "c"))
    assert where(made.choose(pending(), 0.0)) == (0, "a")
    assert where(made.choose(pending(avoid="a"), 0.0)) == (0, "b")
    assert where(made.choose(pending(), 0.0, avoid={"a"})) == (0, "b")
    assert where(made.choose(pending(rank=1), 0.0)) == (1, "c")


def test_below_its_rank_a_request_has_the_best_route_without_what_failed_it() -> None:
    made = table(doc("a", "bc"))
    assert where(made.below(pending(), 0.0)) == (1, "b")
    assert where(made.below(pending(avoid="b"), 0.0)) == (1, "c")
    assert where(made.below(pending(), 0.0, avoid={"b"})) == (1, "c")
    assert made.below(pending(rank=1), 0.0) is None
    made.take_load("b", {"m1": 9})
    assert where(made.below(pending(), 0.0)) == (1, "c")
    made.take_node("c", state("c", word="lost"))
    assert where(made.below(pending(), 0.0)) == (1, "b")


def test_without_an_answer_another_copy_is_asked_then_a_lower_model_then_the_same_copy() -> None:
    made = table(doc("ab", "c"))
    first = made.choose(pending(), 0.0)
    assert where(made.elsewhere(pending(chosen=first), 0.0)) == (0, "b")
    assert where(made.elsewhere(pending(chosen=first, avoid="b"), 0.0)) == (1, "c")
    assert where(table(doc("a")).elsewhere(pending(chosen=first), 0.0)) == (0, "a")
    assert where(table(doc("a", "b"), nodes="a").elsewhere(pending(chosen=first), 0.0)) == (
        1,
        "b",
    )  # its state may come yet


def test_what_failed_a_request_is_asked_again_only_where_there_is_nothing_else() -> None:
    made = table(doc("a", "b"))
    assert where(made.elsewhere(pending(avoid="a"), 0.0)) == (1, "b")
    assert where(table(doc("a")).elsewhere(pending(avoid="a"), 0.0)) == (0, "a")


def test_a_lower_model_that_the_choice_came_to_is_taken_as_it_is() -> None:
    made = table(doc("", "b", "c"))
    assert where(made.elsewhere(pending(chosen=table(doc("b")).choose(pending(), 0.0)), 0.0)) == (1, "b")


@pytest.mark.parametrize(
    ("avoid", "rank", "has"),
    [("", 0, True), ("a", 0, True), ("ab", 0, False), ("c", 1, False), ("", 1, True)],
)
def test_whether_the_model_has_a_copy_that_has_not_failed_the_request(*, avoid: str, rank: int, has: bool) -> None:
    assert table(doc("ab", "c")).has_other_replica(pending(avoid=avoid, rank=rank), 0.0) is has


def test_a_route_by_another_model_is_no_other_copy() -> None:
    assert not table(doc("", "b")).has_other_replica(pending(), 0.0)


def test_time_is_kept_for_the_next_model_that_has_a_route() -> None:
    made = table(doc("a", "b"))
    assert made.reserve_s(pending(), 10.0) == 1.0
    assert made.reserve_s(pending(), 1.0) == 0.5
    assert made.reserve_s(pending(rank=1), 10.0) == 0.0
    made.take_node("b", state("b", word="lost"))
    assert made.reserve_s(pending(), 10.0) == 0.0


def test_a_chosen_route_gets_the_options_of_the_request_and_the_tolerance_of_the_task() -> None:
    steps = {
        "see": RouteStep(
            module="e", inputs={"x": "input.x"}, outputs=["c"], replicas=[Replica(node="a", ms=1, mbps=9)]
        ),
        "write": RouteStep(
            module="w", inputs={"c": "see.c"}, outputs=["text"], generates="text", replicas=[Replica(node="b", ms=1)]
        ),
    }
    document = RouteDoc(
        epoch=1, revision=1, model="m", inputs={"x": "text"}, answer=["text"], deadline_s=10, steps=steps, tolerance=0.1
    )
    made = table(document)
    chosen = made.choose(pending(), 0.0)
    assert chosen is not None
    options = Options(max_tokens=7)
    for stream in (True, False):
        route = made.with_options(chosen, options, stream=stream)
        assert {step: hop.tolerance for step, hop in route.items()} == {"see": 0.1, "write": 0.0}
        assert {step: hop.options for step, hop in route.items()} == {"see": None, "write": options}
        assert {step: hop.stream for step, hop in route.items()} == {"see": False, "write": stream}
    made.take_node("b", NodeState(state="ready", boot="older"))
    assert not any(hop.tolerance for hop in made.with_options(chosen, options, stream=False).values())
