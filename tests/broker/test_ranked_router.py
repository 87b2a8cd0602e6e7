"""Which of a task's models a request goes along, what it keeps of its time for the next one, and when it goes down."""

import pytest

from s2m3.broker.requests.ranks import Chosen, RankedRouter, may_go_down
from s2m3.broker.requests.routing import Backlog
from s2m3.schemas.errors import (
    BadInputError,
    BusyError,
    ModuleFailedError,
    NoCapacityError,
    RequestTimeoutError,
    S2M3Error,
)
from s2m3.schemas.messages import RankRoute, Replica, RouteDoc, RouteStep

NONE: frozenset[str] = frozenset()


def ranked(*nodes: str, ms: float = 10.0) -> RankedRouter:
    """Of a task with a model for each text: the nodes of its one step, a letter each."""
    ranks = []
    for rank, letters in enumerate(nodes):
        replicas = [Replica(node=node, ms=ms * (place + 1)) for place, node in enumerate(letters)]
        step = RouteStep(module=f"m{rank}", inputs={"x": "input.x"}, outputs=["y"], replicas=replicas)
        ranks.append(RankRoute(model=f"model-{rank}", inputs={"x": "text"}, answer=["y"], steps={f"s{rank}": step}))
    best = ranks[0]
    return RankedRouter(
        RouteDoc(
            epoch=1, revision=1, model=best.model, inputs=best.inputs, answer=best.answer, deadline_s=10,
            steps=best.steps, ranks=ranks,
        )
    )  # fmt: skip


def where(chosen: Chosen | None) -> tuple[int, frozenset[str]] | None:
    return None if chosen is None else (chosen.doc.rank, chosen.nodes)


def at(rank: int, node: str) -> tuple[int, frozenset[str]]:
    return rank, frozenset({node})


def test_the_best_model_with_a_route_is_chosen() -> None:
    assert where(ranked("a", "b").choose(Backlog())) == at(0, "a")
    assert where(ranked("", "b").choose(Backlog())) == at(1, "b")
    assert where(ranked("", "").choose(Backlog())) is None


def test_better_models_are_chosen_only_where_no_other_has_a_route() -> None:
    router = ranked("a", "b", "c")
    assert where(router.choose(Backlog(), best=1)) == at(1, "b")
    assert where(router.choose(Backlog(), best=2)) == at(2, "c")
    assert where(router.choose(Backlog(), best=1, lost=frozenset("bc"))) == at(0, "a")
    assert where(router.choose(Backlog(), best=2, lost=frozenset("c"))) == at(0, "a")


def test_a_lost_node_is_never_used_and_one_to_be_avoided_only_for_want_of_another() -> None:
    router = ranked("ab", "c")
    assert where(router.choose(Backlog())) == at(0, "a")
    assert where(router.choose(Backlog(), avoid=frozenset("a"))) == at(0, "b")
    assert where(router.choose(Backlog(), avoid=frozenset("ab"))) == at(0, "a")
    assert where(router.choose(Backlog(), lost=frozenset("ab"))) == at(1, "c")


def test_a_long_queue_counts_at_each_rank() -> None:
    assert where(ranked("ab").choose(Backlog({("a", "m0"): 5}))) == at(0, "b")


def test_a_router_without_a_node_does_not_know_its_copies() -> None:
    router = ranked("ab", "ac").without("a")
    assert where(router.choose(Backlog())) == at(0, "b")
    assert where(router.choose(Backlog(), best=1)) == at(1, "c")
    assert router.doc.model == "model-0"


def test_below_a_rank_is_the_best_lower_model_with_a_route() -> None:
    router = ranked("a", "b", "c")
    assert where(router.below(0, Backlog(), NONE, NONE)) == at(1, "b")
    assert where(router.below(1, Backlog(), NONE, NONE)) == at(2, "c")
    assert where(router.below(2, Backlog(), NONE, NONE)) is None
    assert where(router.below(0, Backlog(), frozenset("b"), NONE)) == at(2, "c")


def test_a_model_of_the_same_rank_or_a_better_one_is_not_below() -> None:
    assert ranked("a", "").below(0, Backlog(), NONE, NONE) is None
    assert ranked("a").below(0, Backlog(), NONE, NONE) is None


def test_below_a_rank_what_is_to_be_avoided_and_queues_count() -> None:
    router = ranked("a", "bc")
    assert where(router.below(0, Backlog(), NONE, frozenset("b"))) == at(1, "c")
    assert where(router.below(0, Backlog({("b", "m1"): 5}), NONE, NONE)) == at(1, "c")


@pytest.mark.parametrize(
    ("ms", "left_s", "kept_s"),
    [(10.0, 10.0, 1.0), (250.0, 10.0, 1.0), (500.0, 10.0, 2.0), (2_000.0, 10.0, 5.0), (10.0, 1.0, 0.5)],
    ids=["at least a second", "exactly", "four times what it takes", "at most half", "half of little"],
)
def test_of_the_time_left_a_part_is_kept_for_the_next_model(ms: float, left_s: float, kept_s: float) -> None:
    assert ranked("a", "bc", ms=ms).reserve_s(0, left_s, Backlog(), NONE) == pytest.approx(kept_s, rel=1e-9)


def test_nothing_is_kept_where_no_lower_model_has_a_route() -> None:
    router = ranked("a", "b")
    assert router.reserve_s(1, 10.0, Backlog(), NONE) == 0
    assert router.reserve_s(0, 10.0, Backlog(), frozenset("b")) == 0


@pytest.mark.parametrize(
    ("error", "goes"),
    [
        (ModuleFailedError("broken"), True),
        (NoCapacityError("no room"), True),
        (RequestTimeoutError("late"), True),
        (BadInputError("no picture"), False),
    ],
    ids=lambda value: value.code if isinstance(value, S2M3Error) else "",
)
def test_an_error_of_the_model_is_a_reason_to_ask_the_next_and_one_of_the_request_is_none(
    *, error: S2M3Error, goes: bool
) -> None:
    assert may_go_down(error, 1.0, 5.0) is goes


@pytest.mark.parametrize(("now", "goes"), [(4.9, False), (5.0, True), (5.1, True)])
def test_a_full_queue_is_a_reason_once_its_time_is_over(*, now: float, goes: bool) -> None:
    assert may_go_down(BusyError("full"), now, 5.0) is goes
