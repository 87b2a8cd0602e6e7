"""A requester's second tries: how long they wait, which nodes they avoid, and what the caller hears in the end."""

import random
from typing import Any

import pytest

from s2m3.broker.requests.actions import Action, EmitDelta, Stop
from s2m3.broker.requests.tracker import RequestTracker
from s2m3.schemas.errors import BusyError, NotReadyError
from s2m3.schemas.messages import Replica, RouteDoc, RouteStep
from s2m3.schemas.wire.generation import Piece
from s2m3.schemas.wire.work import Answer, Work
from tests.broker.asked import ID, failed, lost, ok, ready, refused, requests, result, route, sent


class Extreme(random.Random):
    """Draws the longest wait each time, and the same seed."""

    def uniform(self, a: float, b: float) -> float:
        return max(a, b)

    def getrandbits(self, k: int) -> int:
        assert k == 53
        return 1234


def waits(made: RequestTracker, count: int, error: Any = None) -> list[float]:
    """Returns how long each next attempt waits when each is refused at once."""
    found, now = [], 0.0
    for attempt in range(1, count + 1):
        made.on_answer(refused(error or BusyError("full"), attempt=attempt), now)
        due = made.next_due()
        assert due is not None
        found.append(round(due - now, 6))
        now = due
        assert sent(made.tick(now)).attempt == attempt + 1
    return found


def test_the_wait_doubles_with_each_failure_up_to_a_second() -> None:
    made = RequestTracker("inbox", Extreme())
    made.on_route("t", route("a"), 0.0)
    made.submit(ID, "t", {"x": "a"}, 3_600.0, 0.0)
    assert waits(made, 15) == [0.1, 0.2, 0.4, 0.8] + [1.0] * 11


def test_every_wait_is_drawn_from_nothing_up_to_its_longest() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, 3_600.0, 0.0)
    found = waits(made, 200)
    assert all(0.0 <= wait <= 1.0 for wait in found)
    assert min(found) < 0.1
    assert max(found) > 0.9


def test_a_node_that_failed_a_request_is_avoided_until_every_node_has() -> None:
    made = requests("a", "b")
    first = sent(made.submit(ID, "t", {"x": "a"}, 100.0, 0.0)).hop.node
    other = {"a": "b", "b": "a"}[first]
    made.on_answer(refused(BusyError("full", node=first)), 0.0)
    assert sent(made.tick(2.0)).hop.node == other
    made.on_answer(refused(BusyError("full", node=other), attempt=2), 2.0)
    assert sent(made.tick(4.0)).attempt == 3


def test_an_error_without_a_node_blames_none() -> None:
    made = requests("a", "b")
    first = sent(made.submit(ID, "t", {"x": "a"}, 100.0, 0.0)).hop.node
    made.on_answer(refused(BusyError("full")), 0.0)
    assert sent(made.tick(2.0)).hop.node == first


def test_a_request_that_failed_and_finds_no_node_ends_with_its_last_error() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_answer(refused(BusyError("full", node="a")), 0.0)
    made.on_route("t", route(revision=2), 0.0)
    assert made.tick(2.0) == []
    error = failed(made.tick(10.0))
    assert (error.code, error.detail, error.node) == ("busy", "full", "a")


def test_after_half_of_the_time_the_nodes_that_do_not_answer_are_avoided_by_every_later_attempt() -> None:
    made = requests("a", "b", "c")
    first = sent(made.submit(ID, "t", {"x": "a"}, 16.0, 0.0)).hop.node
    second = sent(made.tick(8.0)).hop.node
    third = sent(made.tick(12.0)).hop.node
    assert sorted({first, second, third}) == ["a", "b", "c"]


def test_the_second_try_of_a_slow_request_waits_for_half_of_what_is_left() -> None:
    made = requests("a", "b", "c")
    made.submit(ID, "t", {"x": "a"}, 16.0, 4.0)
    assert made.next_due() == pytest.approx(12.0)
    assert sent(made.tick(12.0)).ms_left == pytest.approx(8_000.0)
    assert made.next_due() == pytest.approx(16.0)


def test_what_is_tried_elsewhere_takes_the_inputs_the_task_has_by_then_or_stays_where_it_is() -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_route("t", route("a", "b", revision=2, inputs={"other": "text"}), 1.0)
    assert made.tick(5.0) == []
    assert result(made.on_answer(ok(), 6.0)).error is None


def test_a_task_that_was_removed_is_not_tried_elsewhere_but_may_still_answer() -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_route("t", None, 1.0)
    assert made.tick(5.0) == []
    assert result(made.on_answer(ok(), 6.0)).error is None


def test_a_task_that_was_removed_while_a_request_waited_for_a_node_is_unknown() -> None:
    made = requests()
    made.on_route("t", route(), 0.0)
    made.submit(ID, "t", {"x": "a"}, None, 5.0)
    made.on_route("t", None, 6.0)
    assert made.next_due() == pytest.approx(7.0)
    error = failed(made.tick(7.0))
    assert (error.code, error.detail) == ("unknown_task", "no task 't' is known")


# ---- nodes and the broker ------------------------------------------------------------------------------------------


def test_a_request_whose_node_was_lost_and_that_finds_no_other_names_the_node() -> None:
    made = requests("a")
    made.on_node_state("a", ready(), 0.0)
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_node_state("a", lost(), 1.0)
    error = failed(made.tick(10.0))
    assert (error.code, error.detail, error.node) == ("not_ready", "the node was lost", "a")


def test_a_node_that_is_lost_leaves_requests_at_other_nodes_alone() -> None:
    made = requests("a")
    for node in ("a", "b"):
        made.on_node_state(node, ready(), 0.0)
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    assert made.on_node_state("b", lost(), 1.0) == []
    assert result(made.on_answer(ok(), 1.0)).attempts == 1


def test_a_node_that_is_told_of_again_with_nothing_new_changes_nothing() -> None:
    made = requests("a")
    made.on_node_state("a", ready(), 0.0)
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    assert made.on_node_state("a", ready(), 1.0) == []
    assert made.on_node_state("a", None, 1.0) == []
    assert result(made.on_answer(ok(), 1.0)).attempts == 1


def test_what_was_under_way_when_the_broker_was_lost_says_so_if_it_never_returns() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_link_down()
    assert made.tick(9.9) == []
    error = failed(made.tick(10.0))
    assert error.code == "timeout"  # it was sent: whether its node has it is not known
    waiting = requests()
    waiting.on_route("t", route(), 0.0)
    waiting.submit(ID, "t", {"x": "a"}, None, 0.0)
    waiting.on_link_down()
    error = failed(waiting.tick(10.0))
    assert (error.code, error.detail) == ("not_ready", "the connection to the broker was lost")


def test_while_the_broker_is_away_no_other_replica_is_tried() -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    made.on_link_down()
    assert made.tick(5.0) == []


def test_a_broker_that_is_away_when_a_task_is_not_known_is_what_the_error_says() -> None:
    made = requests()
    made.on_link_down()
    made.submit(ID, "t", {}, None, 0.0)
    assert made.next_due() == pytest.approx(30.0)
    assert failed(made.tick(30.0)).detail == "the broker is away, and what 't' takes is not known"


# ---- who is busy ---------------------------------------------------------------------------------------------------


def chosen(made: RequestTracker, request: bytes = b"9" * 16) -> str:
    return sent(made.submit(request, "t", {"x": "a"}, 100.0, 0.0)).hop.node


def test_a_node_with_a_queue_is_passed_over_until_the_queue_is_empty() -> None:
    made = requests("a", "b")
    made.on_load("a", {"e": 5})
    assert chosen(made) == "b"
    made.on_load("b", {"e": 9})
    assert chosen(made, b"8" * 16) == "a"
    made = requests("a", "b")
    made.on_load("a", {"e": 5})
    made.on_load("a", {})
    assert chosen(made) == "a"


def test_the_queue_of_a_node_that_was_lost_is_forgotten_and_that_of_others_kept() -> None:
    made = requests("a", "b")
    for node in ("a", "b"):
        made.on_node_state(node, ready(), 0.0)
    made.on_load("a", {"e": 9})
    made.on_load("b", {"e": 5})
    made.on_node_state("a", lost(), 0.0)
    made.on_node_state("a", ready(), 0.0)
    assert chosen(made) == "a"
    made.on_node_state("a", lost(), 0.0)
    assert chosen(made, b"8" * 16) == "b"


def test_queues_are_forgotten_with_the_broker() -> None:
    made = requests("a", "b")
    made.on_load("a", {"e": 9})
    made.on_link_down()
    made.on_link_up(0.0)
    for node in ("a", "b"):
        made.on_node_state(node, ready(), 0.0)
    assert chosen(made) == "a"


def ids(count: int) -> list[bytes]:
    return [n.to_bytes(16, "big") for n in range(1, count + 1)]


@pytest.mark.parametrize("how", ["cancelled", "answered", "failed", "lost connection"])
def test_a_request_that_is_over_weighs_on_no_node(how: str) -> None:
    made = requests("a", "b")
    under_way = ids(5)
    for request in under_way:
        made.submit(request, "t", {"x": "a"}, 100.0, 0.0)
    for request in under_way:
        if how == "cancelled":
            made.cancel(request)
        elif how == "answered":
            made.on_answer(Answer(request, "head", 1, {"out": "yes"}), 0.0)
        elif how == "failed":
            made.on_answer(Answer(request, "head", 1, error=NotReadyError("gone")), 0.0)
            made.cancel(request)
        else:
            made.on_link_down()
            made.on_link_up(0.0)
            made.cancel(request)
    for node in ("a", "b"):
        made.on_node_state(node, ready(), 0.0)
    fresh = requests("a", "b")
    again = [chosen(made, request) for request in ids(6)]
    assert again == [chosen(fresh, request) for request in ids(6)]


def test_a_request_that_was_cancelled_twice_or_never_came_is_let_through() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    assert made.cancel(ID) != []
    assert made.cancel(ID) == []
    assert len(made) == 0
    assert made.next_due() is None


# ---- texts -----------------------------------------------------------------------------------------------------------


def writing(*nodes: str) -> RequestTracker:
    replicas = [Replica(node=node, ms=10) for node in nodes]
    step = RouteStep(module="w", inputs={"x": "input.x"}, outputs=["text"], generates="text", replicas=replicas)
    doc = RouteDoc(
        epoch=1, revision=1, model="m", inputs={"x": "text"}, answer=["text"], deadline_s=10, steps={"write": step}
    )
    made = RequestTracker("inbox", Extreme())
    made.on_route("t", doc, 0.0)
    return made


def begun(made: RequestTracker, **options: Any) -> Work:
    return sent(made.submit(ID, "t", {"x": "a"}, 100.0, 0.0, **options))


def test_how_long_a_request_waits_for_a_sleeping_node_is_no_option_of_the_writer() -> None:
    options = begun(writing("a"), options={"wait_s": 60, "max_tokens": 5}).hop.options
    assert options is not None
    assert (options.wait_s, options.max_tokens) == (None, 5)


def text(actions: list[Action]) -> list[tuple[int, str]]:
    """Returns what is to be shown, as position and text."""
    deltas = [action for action in actions if isinstance(action, EmitDelta)]
    assert len(deltas) == len(actions)
    assert all(delta.request == ID for delta in deltas)
    return [(delta.shown.at, delta.shown.text) for delta in deltas]


def piece(seq: int, at: int, said: str, attempt: int = 1) -> Piece:
    return Piece(ID, "write", attempt, seq, at, said)


def stopped(actions: list[Action]) -> list[tuple[str, int]]:
    """Returns node and attempt of each order to stop."""
    return [(action.work.hop.node, action.work.attempt) for action in actions if isinstance(action, Stop)]


def test_a_text_is_shown_as_its_pieces_come_and_the_rest_with_the_answer() -> None:
    made = writing("a")
    assert begun(made, stream=True).hop.stream
    assert text(made.on_piece(piece(0, 0, "one"))) == [(0, "one")]
    assert text(made.on_piece(piece(1, 3, " two"))) == [(3, " two")]
    assert made.on_piece(piece(1, 3, " two")) == []
    rest = result(made.on_answer(Answer(ID, "write", 1, {"text": "one two three"}), 1.0)).rest
    assert rest is not None
    assert (rest.at, rest.text) == (7, " three")


def test_pieces_of_no_request_of_an_attempt_still_to_come_or_that_nobody_wants_are_dropped() -> None:
    made = writing("a")
    assert made.on_piece(piece(0, 0, "one")) == []
    assert not begun(made).hop.stream
    assert made.on_piece(piece(0, 0, "one")) == []
    streamed = writing("a")
    begun(streamed, stream=True)
    assert streamed.on_piece(piece(0, 0, "one", attempt=2)) == []
    assert text(streamed.on_piece(piece(0, 0, "one", attempt=1))) == [(0, "one")]


def test_every_attempt_draws_with_the_same_seed() -> None:
    made = writing("a", "b")
    first = begun(made, options={"temperature": 1.0})
    second = sent(made.tick(50.0))
    assert first.hop.options is not None
    assert second.hop.options is not None
    assert (first.hop.options.seed, second.hop.options.seed) == (1234, 1234)
    assert second.attempt == 2


def test_a_second_try_streams_as_the_first_did() -> None:
    made = writing("a", "b")
    assert begun(made, stream=True).hop.stream
    assert sent(made.tick(50.0)).hop.stream
    made = writing("a", "b")
    begun(made)
    assert not sent(made.tick(50.0)).hop.stream


def test_an_answer_stops_every_other_attempt_and_not_its_own() -> None:
    made = writing("a", "b")
    first = begun(made).hop.node
    sent(made.tick(50.0))
    actions = made.on_answer(Answer(ID, "write", 2, {"text": "done"}), 51.0)
    assert stopped(actions) == [(first, 1)]


def test_a_cancelled_request_stops_all_that_write_for_it() -> None:
    made = writing("a", "b")
    begun(made)
    made.tick(50.0)
    assert sorted(stopped(made.cancel(ID))) == [("a", 1), ("b", 2)]


def test_of_a_request_that_was_sent_many_times_the_last_sixteen_attempts_are_kept() -> None:
    made = writing("a")
    begun(made)
    for n in range(40):
        sent(made.on_link_up(float(n)))
    assert made.on_answer(Answer(ID, "write", 25, {"text": "late"}), 41.0) == []
    assert [attempt for _, attempt in stopped(made.cancel(ID))] == list(range(26, 42))


def test_what_waits_in_queues_for_a_cancelled_request_is_dropped_at_each_step() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 0.0)
    orders = [action.work for action in made.cancel(ID) if isinstance(action, Stop)]
    assert [(work.step, work.attempt, work.inputs) for work in orders] == [("encode", 1, {}), ("head", 1, {})]


def test_options_for_a_task_that_writes_no_text_are_bad_input() -> None:
    error = failed(requests("a").submit(ID, "t", {"x": "a"}, None, 0.0, options={"max_tokens": 3}))
    assert (error.code, error.detail) == ("bad_input", "the task t writes no text: it takes no options")


# ---- what the caller is told -----------------------------------------------------------------------------------------


def test_the_time_waited_is_that_since_the_request_came() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, 4.0, 100.0)
    error = failed(made.tick(104.0))
    assert error.detail == "no answer after 4.0 s from encode on a, head on a"
    assert (error.step, error.node) == (None, None)


def test_where_a_request_has_one_step_its_timeout_names_step_and_node() -> None:
    made = writing("a")
    begun(made)
    error = failed(made.tick(100.0))
    assert (error.detail, error.step, error.node) == ("no answer after 100.0 s from write on a", "write", "a")


def test_what_no_node_is_ready_for_is_named_the_first_step_as_the_place() -> None:
    made = requests()
    doc = route("a")
    ready_head = {**doc.steps, "encode": doc.steps["encode"].model_copy(update={"replicas": []})}
    made.on_route("t", doc.model_copy(update={"steps": ready_head}), 0.0)
    made.submit(ID, "t", {"x": "a"}, 3.0, 0.0)
    error = failed(made.tick(3.0))
    assert (error.detail, error.step) == ("after 3.0 s no node is ready for encode", "encode")
    both = requests()
    both.on_route("t", route(), 0.0)
    both.submit(ID, "t", {"x": "a"}, 3.0, 0.0)
    assert failed(both.tick(3.0)).detail == "after 3.0 s no node is ready for encode, head"


def test_a_deadline_before_the_task_is_known_says_after_how_long() -> None:
    made = requests()
    made.submit(ID, "t", {"x": "a"}, 1.0, 0.0)
    error = failed(made.tick(1.0))
    assert (error.code, error.detail) == ("unknown_task", "no task 't' is known after 1.0 s")


def test_an_answer_has_the_nodes_its_time_and_its_attempts() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, None, 2.0)
    found = result(made.on_answer(ok(), 2.25))
    assert (found.request, found.task, found.attempts, found.latency_ms) == (ID, "t", 1, 250.0)
    assert (found.answer, found.route, found.rest) == (("out",), {"encode": "a", "head": "a"}, None)


def test_a_refusal_at_once_says_why() -> None:
    made = requests("a")
    assert failed(made.submit(ID, "t", {"x": "a"}, 0.0, 5.0)).detail == "the deadline was past when the request came"
    for n in range(10_000):
        made.submit(n.to_bytes(16, "big"), "t", {"x": "a"}, None, 0.0)
    assert failed(made.submit(b"x" * 16, "t", {"x": "a"}, None, 0.0)).detail == "10000 requests are under way"


def test_36_a_request_is_not_sent_to_a_second_node_while_the_first_says_that_it_runs_it() -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, 30.0, 0.0)
    for second in range(1, 25):
        made.on_working(ID, 1, float(second))
        assert made.tick(float(second)) == []
    assert made.tick(26.9) == []
    assert sent(made.tick(27.0)).attempt == 2, "the notices have ended"


def test_36_a_request_that_nobody_says_to_run_is_sent_to_a_second_node_at_half_its_time() -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, 30.0, 0.0)
    made.on_working(ID, 1, 2.0)
    assert sent(made.tick(15.0)).attempt == 2


@pytest.mark.parametrize(("request_id", "attempt"), [(ID, 2), (ID, 0), (b"2" * 16, 1), (None, 1)])
def test_notices_of_other_attempts_and_requests_hold_nothing_back(request_id: bytes | None, attempt: int) -> None:
    made = requests("a", "b")
    made.submit(ID, "t", {"x": "a"}, 30.0, 0.0)
    made.on_working(request_id, attempt, 14.5)
    assert sent(made.tick(15.0)).attempt == 2


def test_a_node_that_says_it_works_holds_back_no_deadline() -> None:
    made = requests("a")
    made.submit(ID, "t", {"x": "a"}, 30.0, 0.0)
    made.on_working(ID, 1, 29.0)
    assert failed(made.tick(30.0)).code == "timeout"
