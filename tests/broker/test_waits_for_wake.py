"""Requests that a sleeping node would serve: the planner is told, and only who says so waits. The test is the clock."""

import random

import pytest

from s2m3.broker.requests.actions import Action, Finish, Send, TellDemand
from s2m3.broker.requests.tracker import RequestTracker
from s2m3.schemas.messages import ErrorBody, RouteDoc
from tests.broker.asked import ID, failed, ok, requests, result, route, sent

WHY = ErrorBody(code="no_capacity", detail="m does not fit; it would fit on desktop, asleep")
ASLEEP = route(error=WHY, asleep=["desktop"])


def told(actions: list[Action]) -> list[Action]:
    """The actions behind the first one, which tells of the demand."""
    assert actions[0] == TellDemand("t")
    return actions[1:]


def tracker(doc: RouteDoc = ASLEEP) -> RequestTracker:
    made = RequestTracker("inbox", random.Random(7))  # noqa: S311  # spreads retries, keeps no secret
    made.on_route("t", doc, 0.0)
    return made


def test_who_does_not_say_that_it_waits_is_answered_at_once_and_the_planner_is_told() -> None:
    actions = told(tracker().submit(ID, "t", {"x": "a"}, None, 0.0))
    assert failed(actions).code == "no_capacity"


def test_who_waits_is_sent_the_moment_the_node_is_ready_with_its_whole_deadline() -> None:
    made = tracker()
    assert told(made.submit(ID, "t", {"x": "a"}, 10.0, 0.0, options={"wait_s": 60})) == []
    assert made.tick(30.0) == []
    work = sent(made.on_route("t", route("desktop"), 40.0))
    assert work.ms_left == pytest.approx(10_000)
    assert all(hop.options is None for hop in work.route.values())
    assert result(made.on_answer(ok(), 41.0)).outputs == {"out": "yes"}


def test_a_node_that_does_not_come_ends_the_wait_with_the_reason() -> None:
    made = tracker()
    made.submit(ID, "t", {"x": "a"}, 10.0, 0.0, options={"wait_s": 60})
    assert made.next_due() == 60.0
    assert made.tick(59.9) == []
    assert failed(told(made.tick(60.0))).code == "no_capacity"
    assert made.next_due() is None


def test_what_a_better_node_that_sleeps_would_answer_goes_to_the_one_there_is_unless_it_waits() -> None:
    stand_in = route("pi", asleep=["desktop"])
    (send,) = told(tracker(stand_in).submit(ID, "t", {"x": "a"}, 10.0, 0.0))
    assert isinstance(send, Send)
    made = tracker(stand_in)
    assert told(made.submit(ID, "t", {"x": "a"}, 10.0, 0.0, options={"wait_s": 5})) == []
    (late,) = told(made.tick(5.0))
    assert isinstance(late, Send)
    assert late.work.ms_left == pytest.approx(10_000)


def test_a_demand_is_told_when_the_route_comes_after_the_request() -> None:
    made = requests()
    assert made.submit(ID, "t", {"x": "a"}, 10.0, 0.0) == []
    (finish,) = told(made.on_route("t", ASLEEP, 0.1))
    assert isinstance(finish, Finish)


def test_nothing_waits_where_nobody_sleeps() -> None:
    made = tracker(route(error=WHY))
    assert failed(made.submit(ID, "t", {"x": "a"}, 10.0, 0.0, options={"wait_s": 60})).code == "no_capacity"
    (send,) = requests("a").submit(ID, "t", {"x": "a"}, 10.0, 0.0, options={"wait_s": 60})
    assert isinstance(send, Send)


@pytest.mark.parametrize("wait_s", [-1, "soon", True, 1e9])
def test_a_wait_that_is_none_is_a_bad_input(wait_s: object) -> None:
    error = failed(requests("a").submit(ID, "t", {"x": "a"}, 10.0, 0.0, options={"wait_s": wait_s}))
    assert error.code == "bad_input"
    assert "options.wait_s" in error.detail


def test_other_options_of_a_task_that_writes_nothing_are_still_refused() -> None:
    error = failed(requests("a").submit(ID, "t", {"x": "a"}, 10.0, 0.0, options={"wait_s": 1, "seed": 1}))
    assert error.detail == "the task t writes no text: it takes no options"


@pytest.mark.parametrize("removed_at", [0.5, 1.0])
def test_a_wait_that_ends_after_the_task_was_removed_ends_the_request_as_unknown(removed_at: float) -> None:
    made = tracker(ASLEEP)
    made.submit(ID, "t", {"x": "a"}, 60.0, 0.0, options={"wait_s": 1})
    made.on_route("t", None, removed_at)
    assert made.tick(1.0) == []
    due = made.next_due()
    assert due is not None
    assert due > 1.0
    assert failed(made.tick(due)).code == "unknown_task"
