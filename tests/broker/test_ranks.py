"""A request of a task with stand-ins: when it goes down a rank, what it keeps time for, and what its answer says."""

import pytest

from s2m3.broker.requests.tracker import RequestTracker
from s2m3.schemas.errors import (
    BadInputError,
    BusyError,
    ModuleFailedError,
    NoCapacityError,
    NotReadyError,
    RequestTimeoutError,
    S2M3Error,
)
from s2m3.schemas.messages import ErrorBody, RankRoute, Replica, RouteDoc, RouteStep
from s2m3.schemas.wire.work import Answer
from tests.broker.asked import ID, failed, lost, ready, requests, result, sent

OUTPUTS = ("text", "answer", "label")


def ranked(*nodes: list[str], deadline_s: float = 10, **changes: object) -> RouteDoc:
    """A task of as many models as there are lists of nodes; each has one step and an output of its own name."""
    ranks = [_rank(rank, found) for rank, found in enumerate(nodes)]
    best = ranks[0]
    doc = RouteDoc(
        epoch=3,
        revision=1,
        model=best.model,
        inputs=best.inputs,
        answer=best.answer,
        deadline_s=deadline_s,
        steps=best.steps,
        ranks=ranks,
    )
    return doc.model_copy(update=changes)


def _rank(rank: int, nodes: list[str], **changes: object) -> RankRoute:
    replicas = [Replica(node=node, ms=10) for node in nodes]
    name = "s" if rank == 0 else f"s-rank{rank}"
    step = RouteStep(module=f"m{rank}", inputs={"x": "input.x"}, outputs=[OUTPUTS[rank]], replicas=replicas)
    route = RankRoute(model=f"model-{rank}", inputs={"x": "text"}, answer=[OUTPUTS[rank]], steps={name: step})
    return route.model_copy(update=changes)


def tracker(doc: RouteDoc, *nodes: str) -> RequestTracker:
    made = requests()
    for node in nodes or ("a", "b", "c"):
        made.on_node_state(node, ready(), 0.0)
    made.on_route("t", doc, 0.0)
    return made


def refused(error: S2M3Error, attempt: int = 1, rank: int = 0) -> Answer:
    return Answer(ID, "s" if rank == 0 else f"s-rank{rank}", attempt, error=error)


def answered(attempt: int, rank: int) -> Answer:
    return Answer(ID, "s" if rank == 0 else f"s-rank{rank}", attempt, {OUTPUTS[rank]: f"of {rank}"})


def test_the_best_rank_answers_while_it_can_and_the_answer_says_so() -> None:
    made = tracker(ranked(["a"], ["b"]))
    work = sent(made.submit(ID, "t", {"x": "1"}, None, 0.0))
    assert (work.hop.module, work.hop.node) == ("m0", "a")
    found = result(made.on_answer(answered(1, 0), 0.1))
    assert (found.model, found.rank, found.outputs) == ("model-0", 0, {"text": "of 0"})


def test_when_the_node_of_the_best_rank_is_lost_the_next_rank_gets_the_request_at_once() -> None:
    made = tracker(ranked(["a"], ["b"]))
    made.submit(ID, "t", {"x": "1"}, None, 0.0)
    work = sent(made.on_node_state("a", lost(), 0.2))
    assert (work.hop.module, work.hop.node, work.attempt) == ("m1", "b", 2)
    found = result(made.on_answer(answered(2, 1), 0.3))
    assert (found.model, found.rank, found.answer, found.outputs) == ("model-1", 1, ("answer",), {"answer": "of 1"})


def test_while_the_best_rank_has_no_copy_the_next_one_is_asked_without_a_wait() -> None:
    made = tracker(ranked([], ["b"]))
    assert sent(made.submit(ID, "t", {"x": "1"}, None, 0.0)).hop.module == "m1"


def test_ranks_are_gone_down_in_order_past_those_without_a_copy() -> None:
    made = tracker(ranked(["a"], [], ["c"]))
    made.submit(ID, "t", {"x": "1"}, None, 0.0)
    assert sent(made.on_node_state("a", lost(), 0.2)).hop.module == "m2"


@pytest.mark.parametrize(
    "error",
    [
        NotReadyError("nobody serves it", node="a"),
        ModuleFailedError("broken", node="a"),
        NoCapacityError("no room", node="a"),
        RequestTimeoutError("too late", node="a"),
    ],
    ids=lambda error: error.code,
)
def test_an_error_of_the_better_rank_sends_the_request_down_at_once(error: S2M3Error) -> None:
    made = tracker(ranked(["a"], ["b"]))
    made.submit(ID, "t", {"x": "1"}, None, 0.0)
    work = sent(made.on_answer(refused(error), 0.1))
    assert (work.hop.module, work.attempt) == ("m1", 2)


def test_another_copy_of_the_better_rank_comes_before_the_next_rank() -> None:
    made = tracker(ranked(["a", "b"], ["c"]))
    first = sent(made.submit(ID, "t", {"x": "1"}, None, 0.0))
    assert made.on_answer(refused(NotReadyError("gone", node=first.hop.node)), 0.1) == []
    again = sent(made.tick(2.0))
    assert (again.hop.module, again.hop.node) == ("m0", {"a": "b", "b": "a"}[first.hop.node])
    third = sent(made.on_answer(refused(NotReadyError("gone too", node=again.hop.node), attempt=2), 2.1))
    assert third.hop.module == "m1"


def test_what_is_wrong_with_the_request_itself_ends_it_at_the_better_rank() -> None:
    made = tracker(ranked(["a"], ["b"]))
    made.submit(ID, "t", {"x": "1"}, None, 0.0)
    assert failed(made.on_answer(refused(BadInputError("no picture", node="a")), 0.1)).code == "bad_input"


def test_a_full_queue_is_tried_again_for_half_of_the_time_and_then_the_next_rank_is_asked() -> None:
    made = tracker(ranked(["a"], ["b"]))
    made.submit(ID, "t", {"x": "1"}, 10.0, 0.0)
    for second in range(5):  # the longest pause between two attempts is one second
        error = refused(BusyError("full", node="a"), attempt=second + 1)
        assert made.on_answer(error, second + 0.0) == []
        assert sent(made.tick(second + 1.0)).hop.module == "m0"
    assert sent(made.on_answer(refused(BusyError("full", node="a"), attempt=6), 5.0)).hop.module == "m1"


def test_a_better_rank_that_does_not_answer_leaves_half_of_the_time_to_the_next() -> None:
    made = tracker(ranked(["a"], ["b"]))
    made.submit(ID, "t", {"x": "1"}, 10.0, 0.0)
    assert made.tick(4.9) == []
    assert sent(made.tick(5.0)).hop.module == "m1"
    found = result(made.on_answer(answered(1, 0), 5.1))  # the better one after all, in time: the first answer counts
    assert (found.rank, found.outputs) == (0, {"text": "of 0"})


def test_a_better_rank_that_says_that_it_works_is_left_alone_until_the_next_rank_needs_its_time() -> None:
    made = tracker(ranked(["a"], ["b"]))
    work = sent(made.submit(ID, "t", {"x": "1"}, 10.0, 0.0))
    assert work.ms_left == pytest.approx(9_000)  # a second stays for the next rank, which takes 10 ms
    for second in range(1, 9):
        made.on_working(ID, 1, float(second))
        assert made.tick(float(second)) == []
    down = sent(made.tick(9.0))
    assert down.hop.module == "m1"
    assert down.ms_left == pytest.approx(1_000)


def test_the_time_kept_for_a_slow_rank_is_four_times_what_it_takes_and_never_above_half() -> None:
    slow = RankRoute.model_validate(_rank(1, ["b"]).model_dump())
    step = slow.steps["s-rank1"].model_copy(update={"replicas": [Replica(node="b", ms=1_000)]})
    doc = ranked(["a"], ["b"])
    doc = doc.model_copy(update={"ranks": [doc.ranks[0], slow.model_copy(update={"steps": {"s-rank1": step}})]})
    assert sent(tracker(doc).submit(ID, "t", {"x": "1"}, 10.0, 0.0)).ms_left == pytest.approx(6_000)
    assert sent(tracker(doc).submit(ID, "t", {"x": "1"}, 5.0, 0.0)).ms_left == pytest.approx(2_500)
    assert sent(tracker(ranked(["a"], [])).submit(ID, "t", {"x": "1"}, 5.0, 0.0)).ms_left == pytest.approx(5_000)


def test_the_last_rank_has_all_the_time_there_is_and_its_error_ends_the_request() -> None:
    made = tracker(ranked(["a"], ["b"]))
    made.submit(ID, "t", {"x": "1"}, 4.0, 0.0)
    work = sent(made.on_answer(refused(NotReadyError("gone", node="a")), 1.0))
    assert work.ms_left == pytest.approx(3_000)
    error = failed(made.on_answer(refused(RequestTimeoutError("late", node="b"), 2, rank=1), 1.5))
    assert error.node == "b"


def test_a_request_that_went_down_goes_back_up_only_where_no_lower_rank_has_a_copy() -> None:
    made = tracker(ranked(["a"], ["b"]))
    made.submit(ID, "t", {"x": "1"}, None, 0.0)
    made.on_answer(refused(NotReadyError("gone", node="a")), 0.1)
    assert sent(made.on_node_state("b", lost(), 0.2)).hop.module == "m0"


def test_new_requests_ask_the_best_rank_again_as_soon_as_it_has_a_copy() -> None:
    made = tracker(ranked([], ["b"]))
    assert sent(made.submit(ID, "t", {"x": "1"}, None, 0.0)).hop.module == "m1"
    made.on_route("t", ranked(["a"], ["b"], revision=2), 1.0)
    assert sent(made.submit(b"2" * 16, "t", {"x": "1"}, None, 1.0)).hop.module == "m0"


def test_a_request_waits_for_any_rank_and_takes_the_first_that_comes() -> None:
    made = tracker(ranked([], []))
    assert made.submit(ID, "t", {"x": "1"}, None, 0.0) == []
    assert sent(made.on_route("t", ranked([], ["b"], revision=2), 1.0)).hop.module == "m1"


def test_a_stand_in_gets_the_inputs_that_it_takes_and_its_own_values_of_the_others() -> None:
    doc = ranked([], ["b"], inputs={"x": "text", "image": "image"})
    best = doc.ranks[0].model_copy(update={"inputs": {"x": "text", "image": "image"}})
    step = RouteStep(
        module="m1",
        inputs={"pictures": "input.image", "labels": "input.x"},
        outputs=["answer"],
        replicas=[Replica(node="b", ms=1)],
    )
    lower = RankRoute(
        model="labels",
        inputs={"image": "images", "x": "texts"},
        fixed={"x": ["a cat", "a dog"]},
        answer=["answer"],
        steps={"s-rank1": step},
    )
    made = tracker(doc.model_copy(update={"ranks": [best, lower]}))
    work = sent(made.submit(ID, "t", {"x": "what is it?", "image": b"jpeg"}, None, 0.0))
    assert work.inputs == {"pictures": [b"jpeg"], "labels": ["a cat", "a dog"]}
    missing = made.submit(b"2" * 16, "t", {"x": "what is it?"}, None, 0.0)
    assert failed(missing).code == "bad_input"  # what the task takes is what its best model takes
    unknown = made.submit(b"3" * 16, "t", {"x": "?", "image": b"jpeg", "labels": "a"}, None, 0.0)
    assert failed(unknown).code == "bad_input"


def test_options_for_a_model_that_writes_are_not_given_to_one_that_does_not() -> None:
    doc = ranked([], ["b"])
    writes = {"s": doc.ranks[0].steps["s"].model_copy(update={"generates": "text"})}
    best = doc.ranks[0].model_copy(update={"steps": writes})
    doc = doc.model_copy(update={"steps": writes, "ranks": [best, doc.ranks[1]]})
    work = sent(tracker(doc).submit(ID, "t", {"x": "1"}, None, 0.0, options={"max_tokens": 3}))
    assert (work.hop.module, work.hop.options) == ("m1", None)
    silent = tracker(ranked(["a"], ["b"])).submit(ID, "t", {"x": "1"}, None, 0.0, options={"max_tokens": 3})
    assert failed(silent).code == "bad_input"


def test_the_threshold_is_that_of_the_model_that_answered() -> None:
    doc = ranked(["a"], ["b"])
    doc = doc.model_copy(update={"ranks": [doc.ranks[0].model_copy(update={"threshold": 0.9}), doc.ranks[1]]})
    made = tracker(doc)
    made.submit(ID, "t", {"x": "1"}, None, 0.0)
    made.on_node_state("a", lost(), 0.1)
    low = Answer(ID, "s-rank1", 2, {"answer": "cat", "score": 0.2})
    assert result(made.on_answer(low, 0.2)).outputs["answer"] == "cat"


def test_a_model_that_the_planner_does_not_know_is_passed_over() -> None:
    doc = ranked(["a"], ["b"])
    unknown = RankRoute(model="newer", error=ErrorBody(code="unknown_task", detail="no such model"))
    made = tracker(doc.model_copy(update={"ranks": [unknown, doc.ranks[1]]}))
    assert sent(made.submit(ID, "t", {"x": "1"}, None, 0.0)).hop.module == "m1"


def test_a_task_that_all_ranks_refuse_says_why_at_once() -> None:
    none = ranked([], [], error=ErrorBody(code="no_capacity", detail="nothing fits"))
    assert failed(tracker(none).submit(ID, "t", {"x": "1"}, None, 0.0)).code == "no_capacity"


def test_a_request_at_a_rank_that_the_task_has_no_more_goes_on_with_what_there_is() -> None:
    made = tracker(ranked(["a"], ["b"], ["c"]))
    made.submit(ID, "t", {"x": "1"}, None, 0.0)
    made.on_node_state("b", lost(), 0.1)
    assert sent(made.on_node_state("a", lost(), 0.2)).hop.module == "m2"
    assert made.on_route("t", ranked(["a"], ["b"], revision=2), 0.3) == []
    assert made.on_node_state("c", lost(), 0.4) == []
    assert sent(made.on_node_state("b", ready(), 0.5)).hop.module == "m1"
