"""A requester's requests: what is sent when, again, or given up. Pure: the test is the clock."""

from dataclasses import replace

import pytest

from s2m3.schemas.errors import BadInputError, BusyError, RequestTimeoutError, S2M3Error
from s2m3.schemas.messages import ErrorBody, NodeState
from s2m3.schemas.wire.work import Answer, Timing
from tests.broker.asked import ID, failed, ok, ready, refused, requests, result, route, sent


def test_a_request_is_sent_to_its_first_steps_with_the_whole_route_and_what_is_left_of_the_deadline() -> None:
    work = sent(requests("a").submit(ID, "t", {"x": "hello"}, 5.0, 0.0))
    assert (work.step, work.attempt, work.epoch, work.reply_to, work.inputs) == (
        "encode",
        1,
        3,
        "inbox",
        {"x": "hello"},
    )
    assert {name: hop.node for name, hop in work.route.items()} == {"encode": "a", "head": "a"}
    assert work.ms_left == pytest.approx(5000)


def test_the_first_result_ends_it_and_everything_after_is_dropped() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "hello"}, None, 0.0)
    found = result(made.on_answer(ok(), 0.5))
    assert (found.error, found.outputs, found.attempts, found.latency_ms) == (None, {"out": "yes"}, 1, 500.0)
    assert made.on_answer(ok(), 0.6) == []
    assert len(made) == 0
    assert made.next_due() is None


def test_a_task_whose_document_does_not_come_is_unknown_after_two_seconds() -> None:
    made = requests()
    assert made.submit(ID, "t", {}, 30.0, 0.0) == []
    assert made.next_due() == pytest.approx(2.0)
    assert made.tick(1.9) == []
    assert failed(made.tick(2.0)).code == "unknown_task"


def test_a_request_waits_for_a_node_and_is_sent_the_moment_one_is_ready() -> None:
    made = requests()
    made.on_route("t", route(), 0.0)
    assert made.submit(ID, "t", {"x": "a"}, None, 0.0) == []
    assert made.tick(9.0) == []
    assert sent(made.on_route("t", route("a"), 9.0)).ms_left == pytest.approx(1000)


def test_a_request_that_waits_in_vain_says_what_was_not_ready() -> None:
    made = requests()
    made.on_route("t", route(), 0.0)
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    error = failed(made.tick(10.0))
    assert error.code == "not_ready"
    assert "encode" in error.detail


def test_what_the_planner_knows_cannot_be_is_told_at_once() -> None:
    made = requests()
    made.on_route("t", route(error=ErrorBody(code="no_capacity", detail="7 MB too little")), 0.0)
    error = failed(made.submit(ID, "t", {"x": "a"}, None, 0.0))
    assert (error.code, error.detail) == ("no_capacity", "7 MB too little")


def test_bad_inputs_are_refused_before_anything_is_sent_and_defaults_fill_in() -> None:
    made = requests("a")
    assert isinstance(failed(made.submit(ID, "t", {"x": {"a": 7}}, None, 0.0)), BadInputError)
    assert failed(made.submit(ID, "t", {}, None, 0.0)).code == "bad_input"
    made.on_route("t", route("a", defaults={"x": "default"}), 0.0)
    assert sent(made.submit(ID, "t", {}, None, 0.0)).inputs == {"x": "default"}


def test_busy_is_tried_again_with_jitter_on_another_node() -> None:
    made = requests("a", "b")
    first = sent(made.submit(ID, "t", {"x": "a"}, None, 0.0))
    node = first.hop.node
    assert made.on_answer(refused(BusyError("full", node=node)), 0.1) == []
    due = made.next_due()
    assert due is not None
    assert 0.1 <= due <= 1.1
    again = sent(made.tick(due))
    assert (again.attempt, again.hop.node != node) == (2, True)


@pytest.mark.parametrize("error", [BusyError("full", node="a"), BadInputError("not a picture")])
def test_an_error_of_an_earlier_attempt_changes_nothing(error: S2M3Error) -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_answer(refused(BusyError("full", node="a")), 0.1)
    assert sent(made.tick(2.0)).attempt == 2
    due = made.next_due()
    assert made.on_answer(refused(error, attempt=1), 2.1) == []
    assert made.next_due() == due
    assert made.tick(5.9) == []  # no third attempt is made for it
    assert result(made.on_answer(ok(attempt=2), 5.9)).error is None


def test_an_error_counts_once_while_the_next_attempt_is_still_to_come() -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_answer(refused(BusyError("full", node="a")), 0.1)
    due = made.next_due()
    assert made.on_answer(refused(BusyError("full", node="b")), 0.1) == []
    assert made.next_due() == due
    assert made.on_answer(refused(BadInputError("not a picture")), 0.1) == []
    assert sent(made.tick(2.0)).hop.node == "b"


def test_the_result_of_an_earlier_attempt_ends_it_all_the_same() -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_answer(refused(BusyError("full", node="a")), 0.1)
    made.tick(2.0)
    assert result(made.on_answer(ok(attempt=1), 2.2)).error is None


def test_a_result_has_the_times_that_its_answer_says() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    timings = {"head": Timing("a", 1.0, 2.0, 3)}
    assert result(made.on_answer(replace(ok(), timings=timings), 2.2)).timings == timings


def test_an_error_that_trying_again_would_not_change_ends_it() -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    assert failed(made.on_answer(refused(BadInputError("not a picture")), 0.1)).code == "bad_input"


def test_when_a_node_of_its_route_is_lost_a_request_is_sent_elsewhere_at_once() -> None:
    made = requests("a", "b")
    work = sent(made.submit(ID, "t", {"x": "a"}, None, 0.0))
    made.on_node_state(work.hop.node, NodeState(state="ready", boot="1"), 0.0)
    again = sent(made.on_node_state(work.hop.node, NodeState(state="lost", boot="1"), 1.0))
    assert again.attempt == 2
    assert work.hop.node not in {hop.node for hop in again.route.values()}
    assert again.ms_left == pytest.approx(9000)


def test_when_the_only_node_is_lost_a_request_waits_for_the_next() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_node_state("a", NodeState(state="ready", boot="1"), 0.0)
    assert made.on_node_state("a", NodeState(state="lost", boot="1"), 1.0) == []
    assert sent(made.on_route("t", route("b"), 2.0)).hop.node == "b"


def test_after_half_of_the_time_another_replica_is_tried_or_else_the_same_once_more() -> None:
    made = requests("a", "b")
    first = sent(made.submit(ID, "t", {"x": "a"}, None, 0.0))
    assert made.tick(4.9) == []
    second = sent(made.tick(5.0))
    assert (second.attempt, second.hop.node != first.hop.node) == (2, True)
    alone = requests("a")
    alone.submit(ID, "t", {"x": "a"}, None, 0.0)
    assert sent(alone.tick(5.0)).attempt == 2
    assert alone.tick(7.5) == []


def test_the_deadline_ends_it_naming_steps_and_nodes_and_a_late_answer_is_dropped() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    error = failed(made.tick(10.0))
    assert isinstance(error, RequestTimeoutError)
    assert "encode on a" in error.detail
    assert "10.0 s" in error.detail
    assert made.on_answer(ok(), 10.1) == []


def test_a_deadline_already_past_is_a_timeout() -> None:
    assert failed(requests("a").submit(ID, "t", {"x": "a"}, 0.0, 5.0)).code == "timeout"


def test_a_cancelled_request_is_forgotten() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.cancel(ID)
    assert made.on_answer(ok(), 0.1) == []
    assert made.tick(20.0) == []


def test_load_is_spread_over_replicas_and_the_books_are_even_in_the_end() -> None:
    made = requests("a", "b")
    ids = [i.to_bytes(16, "big") for i in range(20)]
    used = [sent(made.submit(request, "t", {"x": "a"}, None, 0.0)).hop.node for request in ids]
    assert abs(used.count("a") - used.count("b")) <= 2
    for request in ids:
        made.on_answer(replace(ok(), request=request), 1.0)
    again = sent(made.submit(ID, "t", {"x": "a"}, None, 2.0))
    fresh = sent(requests("a", "b").submit(ID, "t", {"x": "a"}, None, 2.0))
    assert {n: h.node for n, h in again.route.items()} == {n: h.node for n, h in fresh.route.items()}


def test_one_more_than_the_bound_is_busy() -> None:
    made = requests("a")
    for i in range(10_000):
        made.submit(i.to_bytes(16, "big"), "t", {"x": "a"}, None, 0.0)
    assert failed(made.submit(b"x" * 16, "t", {"x": "a"}, None, 0.0)).code == "busy"


def test_when_the_broker_returns_all_under_way_is_sent_again_once_its_node_is_heard_of() -> None:
    made = requests("a")
    made.on_node_state("a", ready(), 0.0)
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_link_down()
    assert made.on_node_state("a", ready(), 1.0) == []  # retained, and our inbox is not confirmed yet
    assert sent(made.on_link_up(1.0)).attempt == 2
    made.on_link_down()
    assert made.on_link_up(2.0) == []  # the node has not found back itself
    assert sent(made.on_node_state("a", ready(), 2.5)).attempt == 3
    assert result(made.on_answer(ok(attempt=1), 3.0)).error is None


def test_nothing_is_sent_while_the_broker_is_away_and_deadlines_hold() -> None:
    made = requests("a")
    made.on_link_down()
    assert made.submit(ID, "t", {"x": "a"}, 3.0, 0.0) == []
    assert failed(made.tick(3.0)).code == "not_ready"


def test_a_task_is_not_called_unknown_while_the_broker_is_away() -> None:
    made = requests()
    made.on_link_down()
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    assert made.tick(2.0) == []
    made.on_link_up(10.0)
    assert made.tick(11.9) == []
    assert failed(made.tick(12.0)).code == "unknown_task"


def test_a_request_without_a_deadline_does_not_wait_for_a_broker_that_stays_away() -> None:
    made = requests()
    made.on_link_down()
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    assert failed(made.tick(30.0)).code == "not_ready"


def test_a_node_that_was_lost_and_returns_gets_what_waits_without_a_new_document() -> None:
    made = requests("a")
    made.on_node_state("a", ready(), 0.0)
    made.on_node_state("a", NodeState(state="lost", boot="1"), 1.0)
    assert made.submit(ID, "t", {"x": "a"}, None, 1.0) == []
    assert sent(made.on_node_state("a", ready(), 2.0)).hop.node == "a"


def test_a_node_that_was_started_again_gets_nothing_before_a_document_names_it_again() -> None:
    made = requests("a")
    made.on_node_state("a", ready(), 0.0)
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    assert made.on_node_state("a", ready("2"), 1.0) == []
    assert sent(made.on_route("t", route("a"), 1.5)).attempt == 2


@pytest.mark.parametrize("stamp", [{"epoch": 2, "revision": 99}, {"epoch": 3, "revision": 4}])
def test_a_document_older_than_the_one_held_is_refused(stamp: dict[str, int]) -> None:
    made = requests()
    made.on_route("t", route("a", epoch=3, revision=5), 0.0)
    assert made.on_route("t", route("b", **stamp), 1.0) == []
    assert sent(made.submit(ID, "t", {"x": "a"}, None, 1.0)).hop.node == "a"


@pytest.mark.parametrize(
    "stamp", [{"epoch": 3, "revision": 5}, {"epoch": 3, "revision": 6}, {"epoch": 4, "revision": 1}]
)
def test_one_of_the_same_age_or_newer_replaces_it(stamp: dict[str, int]) -> None:
    made = requests()
    made.on_route("t", route("a", epoch=3, revision=5), 0.0)
    made.on_route("t", route("b", **stamp), 1.0)
    assert sent(made.submit(ID, "t", {"x": "a"}, None, 1.0)).hop.node == "b"


def test_an_old_document_of_one_task_says_nothing_of_another() -> None:
    made = requests()
    made.on_route("t", route("a", epoch=3, revision=5), 0.0)
    made.on_route("other", route("b", epoch=3, revision=2), 0.0)
    assert sent(made.submit(ID, "other", {"x": "a"}, None, 1.0)).hop.node == "b"


def test_what_waits_is_not_sent_by_an_old_document() -> None:
    made = requests()
    made.on_route("t", route(revision=5), 0.0)
    assert made.submit(ID, "t", {"x": "a"}, None, 0.0) == []
    assert made.on_route("t", route("a", revision=4), 1.0) == []
    assert sent(made.on_route("t", route("b", revision=6), 2.0)).hop.node == "b"


def test_a_task_that_is_removed_and_added_again_may_begin_at_any_age() -> None:
    made = requests("a")
    made.on_route("t", None, 1.0)
    made.on_route("t", route("b", epoch=1), 2.0)
    assert sent(made.submit(ID, "t", {"x": "a"}, None, 2.0)).hop.node == "b"


def test_over_a_new_connection_the_broker_is_believed_whatever_it_remembers() -> None:
    """A broker without persistence and a planner whose clock is behind: an epoch may be smaller than the one before."""
    made = requests("a")
    made.on_link_down()
    made.on_link_up(1.0)
    made.on_node_state("b", NodeState(state="ready", boot="1"), 1.0)
    made.on_route("t", route("b", epoch=1), 1.0)
    assert sent(made.submit(ID, "t", {"x": "a"}, None, 2.0)).hop.node == "b"
    made.on_route("t", route("a", epoch=0), 3.0)
    other = sent(made.submit(b"2" * 16, "t", {"x": "a"}, None, 3.0))
    assert other.hop.node == "b"


# ---- answers are taken from where the work was sent ----------------------------------------------------------------


def _timed(node: str) -> dict[str, Timing]:
    return {"head": Timing(node, 0.0, 1.0, 1)}


@pytest.mark.parametrize(
    "forged",
    [
        Answer(ID, "head", 1, {"out": "forged"}, _timed("elsewhere")),
        Answer(ID, "head", 2, {"out": "forged"}, _timed("a")),
        Answer(ID, "head", 0, {"out": "forged"}),
        Answer(ID, "encode", 1, {"out": "forged"}),
        Answer(ID, "other", 1, {"out": "forged"}),
        Answer(ID, "other", 1, error=BadInputError("forged")),
        Answer(ID, "head", 7, error=BadInputError("forged")),
    ],
    ids=["node", "later-attempt", "no-attempt", "inner-step", "step", "step-of-error", "attempt-of-error"],
)
def test_31_an_answer_that_is_not_from_where_the_work_was_sent_is_dropped(forged: Answer) -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "hello"}, 10.0, 0.0)
    assert made.on_answer(forged, 1.0) == []
    right = Answer(ID, "head", 1, {"out": "yes"}, _timed("a"))
    assert result(made.on_answer(right, 2.0)).outputs == {"out": "yes"}


def test_31_nothing_is_taken_before_work_was_sent() -> None:
    made = requests()
    made.submit(ID, "t", {"x": "hello"}, 10.0, 0.0)
    assert made.on_answer(ok(), 1.0) == []
    assert len(made) == 1


def test_31_the_result_of_an_earlier_attempt_counts_from_its_own_node() -> None:
    made = requests("a", "b")
    first = sent(made.submit(ID, "t", {"x": "hello"}, 10.0, 0.0)).route["head"].node
    assert sent(made.tick(5.0)).attempt == 2
    assert result(made.on_answer(Answer(ID, "head", 1, {"out": "yes"}, _timed(first)), 6.0)).outputs == {"out": "yes"}


def test_a_task_is_not_unknown_before_the_broker_had_the_time_to_deliver_its_route() -> None:
    made = requests()
    made.awaited.subscribed("t")
    made.submit(ID, "t", {}, 60.0, 0.0)
    assert made.tick(10.0) == []
    made.on_retained("t", 20.0)
    assert made.tick(21.9) == []
    assert failed(made.tick(22.0)).code == "unknown_task"


def test_a_route_that_could_never_come_is_no_unknown_task() -> None:
    made = requests()
    made.awaited.subscribed("t")
    made.submit(ID, "t", {}, None, 0.0)
    assert failed(made.tick(30.0)).code == "not_ready"
