"""The gateway of a task: what it takes, when it answers and acknowledges, and what becomes of it when its session or
broker is lost. The dispatcher is the real one; links and time are the test's. tests/system runs it on real brokers."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr

from s2m3.agents.gateway import gateway as gateway_module
from s2m3.agents.gateway.gateway import Gateway
from s2m3.agents.serving.payloads import PayloadRoom
from s2m3.agents.supervision.restart_policy import CrashHistory
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.broker.mqtt.message import Message
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.schemas.errors import BusyError, UnauthorisedError, UndeliverableError
from s2m3.schemas.ids import shown_id
from s2m3.schemas.messages import Event, NodeState, Replica, RouteDoc, RouteStep
from s2m3.schemas.request_ids import content_of
from s2m3.schemas.settings import AgentSettings
from s2m3.schemas.wire.codec import decode_work, encode_answer, encode_piece
from s2m3.schemas.wire.generation import Piece
from s2m3.schemas.wire.work import Answer, Work
from tests.recorders import LinkFactory, ManualLoop, Published, RecordedLink

REQUEST, RESPONSE, MODULE = "home/request/t", "home/response/t", "home/module/m/a/in"


def route(revision: int = 1, node: str = "a", **changes: Any) -> RouteDoc:
    step = RouteStep(module="m", inputs={"x": "input.x"}, outputs=["y"], replicas=[Replica(node=node, ms=1)], **changes)
    return RouteDoc(
        epoch=1, revision=revision, model="m", inputs={"x": "text"}, answer=["y"], deadline_s=30, steps={"step": step}
    )


class Desk:
    """A gateway, its agent's link, and the links of the task's session that it made."""

    def __init__(
        self, links: LinkFactory, *, inflight: int = 2, history: CrashHistory | None = None, key: str | None = None
    ) -> None:
        settings = AgentSettings(
            root="home", node="a", plain_inflight=inflight, session_key=SecretStr(key) if key else None
        )
        self.loop = ManualLoop()
        self.links = links
        self.agent = RecordedLink(settings, "s2m3-node-home-a", self.loop, connected=True)
        self.events: list[Event] = []
        self.returns = 0
        self.room = PayloadRoom(200.0, lambda: 200.0)
        dispatcher = Dispatcher(self.agent, self.loop, "node-a")  # type: ignore[arg-type]
        dispatcher.start()
        dispatcher.follow("t")
        self.agent.deliver("home/route/t", route().encode())
        self.agent.deliver("home/node/a/state", NodeState(state="ready", boot="1").encode())
        self.dispatcher = dispatcher
        self.settings, self.history = settings, history
        self.open()

    def open(self) -> None:
        """Makes a gateway, which takes the task's session over."""
        self.gateway = Gateway(
            "t",
            self.settings,
            self.loop,  # type: ignore[arg-type]
            self.dispatcher,
            self.agent,  # type: ignore[arg-type]
            may_return=self._may_return,
            publish_event=self.events.append,
            watchdog=Watchdog(crash_history=self.history),
            room=self.room,
            clock=lambda: self.loop.now,
        )
        self.gateway.connect()
        self.session.connect()

    def _may_return(self) -> None:
        self.returns += 1

    @property
    def session(self) -> RecordedLink:
        return self.links.made[-1]

    def ask(self, text: str, mid: int = 1, **fields: Any) -> Message:
        return self.session.deliver(REQUEST, json.dumps({"inputs": {"x": text}}).encode(), mid=mid, **fields)

    @property
    def work(self) -> list[Work]:
        """What was sent to the module, oldest first."""
        return [
            decode_work(
                sent.message.payload, request=sent.message.correlation, user=dict(sent.message.user), reply_to="r"
            )
            for sent in self.agent.published
            if sent.message.topic == MODULE and sent.message.payload
        ]

    def answer(self, work: Work, text: str = "done") -> None:
        payload, user = encode_answer(Answer(work.request, "step", work.attempt, {"y": text}))
        self.agent.deliver("home/client/node-a/in", payload, correlation=work.request, user=dict(user))

    def answers(self, topic: str = RESPONSE) -> list[dict[str, Any]]:
        return [json.loads(payload) for payload in self.agent.at(topic)]

    def last(self, topic: str = RESPONSE) -> Published:
        return [sent for sent in self.agent.published if sent.message.topic == topic][-1]

    def deliver_answer(self, topic: str = RESPONSE) -> None:
        """The broker acknowledges the last answer."""
        delivered = self.last(topic).on_delivered
        assert delivered is not None
        delivered()


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Desk]:
    links = LinkFactory()
    monkeypatch.setattr(gateway_module, "Link", links)
    return lambda **options: Desk(links, **options)


def test_the_tasks_own_session_is_taken_over_and_not_by_itself_again(desk: Callable[..., Desk]) -> None:
    made = desk()
    assert made.session.client_id == "s2m3-front:home:t"
    assert made.session.filters == {"home/request/t": 1, "home/request/t/+": 1, "home/request/t/+/+": 1}
    assert {name: made.session.options[name] for name in made.session.options if name != "on_ended"} == {
        "session_expiry_s": 86_400,
        "manual_ack": True,
        "receive_maximum": 2,
        "cut_over": 32_000_000,
        "reconnect": False,
    }
    made.gateway.connect()
    assert len(made.links.made) == 1


def test_a_request_is_answered_and_acknowledged_only_once_the_broker_has_the_answer(desk: Callable[..., Desk]) -> None:
    made = desk()
    message = made.ask("hello")
    (work,) = made.work
    assert work.inputs == {"x": "hello"}
    made.answer(work)
    (answer,) = made.answers()
    assert (answer["status"], answer["answer"], answer["request"]) == ("ok", "done", shown_id(work.request))
    assert made.session.acknowledged == []
    made.deliver_answer()
    assert made.session.acknowledged == [message]


def test_an_answer_goes_where_its_caller_asked_for_it_with_the_correlation(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello", reply_to="elsewhere/answers", correlation=b"7")
    made.answer(made.work[0])
    assert made.last("elsewhere/answers").message.correlation == b"7"
    assert made.answers() == []


def test_an_answer_without_a_response_topic_has_no_properties(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello", correlation=b"7")
    made.answer(made.work[0])
    assert made.last().message.plain


@pytest.mark.parametrize("topic", ["home/plan/a", "home/response/other", "home", "/".join("a" * 201), "a" * 5_000, ""])
def test_29_30_a_topic_that_is_no_place_for_an_answer_is_refused_where_everybody_listens(
    desk: Callable[..., Desk], topic: str
) -> None:
    made = desk()
    message = made.session.deliver(
        REQUEST, b'{"transaction": 7, "inputs": {"x": "a"}}', mid=1, reply_to=topic, correlation=b"1"
    )
    (answer,) = made.answers()
    assert (answer["error"]["code"], answer["transaction"]) == ("bad_input", 7)
    assert "Response Topic" in answer["error"]["detail"]
    assert made.last().message.plain
    assert made.work == []
    assert [event.event for event in made.events] == ["request_failed"]
    made.deliver_answer()
    assert made.session.acknowledged == [message]


def test_30_a_caller_may_name_its_own_tasks_response_topic_and_an_inbox(desk: Callable[..., Desk]) -> None:
    made = desk()
    for mid, topic in enumerate((RESPONSE, "home/client/me/in"), 1):
        made.ask("hello", mid=mid, reply_to=topic, correlation=b"7")
        made.answer(made.work[-1])
        assert made.last(topic).message.correlation == b"7"


def test_a_refused_request_that_comes_again_is_answered_once(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello", reply_to="home/plan/a")
    made.session.lose()
    made.gateway.connect()
    made.session.connect()
    made.ask("hello", mid=9, reply_to="home/plan/a")
    assert len(made.answers()) == 1


def test_raw_bytes_are_one_input(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.session.deliver(f"{REQUEST}/x", b"as it is", mid=1)
    assert made.work[0].inputs == {"x": "as it is"}


def test_what_is_no_request_is_answered_with_the_reason_and_its_transaction(desk: Callable[..., Desk]) -> None:
    made = desk()
    message = made.session.deliver(REQUEST, b'{"transaction": 7, "inputs": 3}', mid=1)
    (answer,) = made.answers()
    assert (answer["status"], answer["error"]["code"], answer["transaction"]) == ("error", "bad_input", 7)
    made.deliver_answer()
    assert made.session.acknowledged == [message]
    assert made.events == []


def test_a_request_that_fails_is_answered_and_told_as_an_event(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.session.deliver(REQUEST, b'{"transaction": "mine", "inputs": {"wrong": "a"}}', mid=1)
    (answer,) = made.answers()
    assert (answer["error"]["code"], answer["transaction"]) == ("bad_input", "mine")
    (event,) = made.events
    assert (event.event, event.task, event.request) == ("request_failed", "t", answer["request"])
    assert event.detail is not None
    assert event.detail.startswith("bad_input: ")


def test_as_many_are_worked_on_as_allowed_and_the_next_is_begun_when_one_is_answered(
    desk: Callable[..., Desk],
) -> None:
    made = desk(inflight=2)
    for n in range(4):
        made.ask(f"text {n}", mid=n + 1)
    assert [work.inputs["x"] for work in made.work] == ["text 0", "text 1"]
    made.answer(made.work[1])
    assert len(made.work) == 2
    made.deliver_answer()
    assert [work.inputs["x"] for work in made.work] == ["text 0", "text 1", "text 2"]


def test_of_more_than_a_thousand_that_wait_the_newest_is_refused(desk: Callable[..., Desk]) -> None:
    made = desk(inflight=1)
    for n in range(1_001):
        made.ask(f"text {n}", mid=n + 1)
    assert made.answers() == []
    made.ask("one too many", mid=2_000)
    (answer,) = made.answers()
    assert answer["error"]["code"] == "busy"
    made.deliver_answer()
    assert [message.mid for message in made.session.acknowledged] == [2_000]


def test_an_answer_that_does_not_go_out_is_replaced_by_an_error_a_little_later(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello")
    made.agent.error = BusyError("full")
    made.answer(made.work[0])
    assert made.answers() == []
    made.loop.advance(0.5)
    (answer,) = made.answers()
    assert answer["error"]["code"] == "busy"
    made.loop.advance(60.0)
    assert len(made.answers()) == 1


def test_a_caller_whose_topic_the_broker_refuses_is_told_so_where_everybody_listens(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    message = made.ask("hello", reply_to="forbidden/topic")
    made.answer(made.work[0])
    refused = made.last("forbidden/topic").on_refused
    assert refused is not None
    refused(UnauthorisedError("not yours"))
    (answer,) = made.answers()
    assert (answer["error"]["code"], answer["error"]["node"]) == ("unauthorised", "a")
    assert [event.event for event in made.events] == ["request_failed"]
    made.deliver_answer()
    assert [acknowledged.mid for acknowledged in made.session.acknowledged] == [message.mid]
    assert made.last().on_refused is None  # a refusal there ends the agent's link


def test_29_an_answer_that_ends_every_connection_becomes_an_error_where_everybody_listens(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    message = made.ask("hello", reply_to="elsewhere/answers")
    made.answer(made.work[0])
    dropped = made.last("elsewhere/answers").on_dropped
    assert dropped is not None
    dropped(UndeliverableError("cut"))
    (answer,) = made.answers()
    assert (answer["status"], answer["error"]["code"], answer["error"]["node"]) == ("error", "bad_input", "a")
    made.deliver_answer()
    assert [acknowledged.mid for acknowledged in made.session.acknowledged] == [message.mid]


def test_29_a_request_whose_error_cannot_be_sent_either_is_acknowledged_and_not_brought_again(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    message = made.ask("hello")
    made.answer(made.work[0])
    for _ in range(2):
        dropped = made.last().on_dropped
        assert dropped is not None
        dropped(UndeliverableError("cut"))
    assert [answer["status"] for answer in made.answers()] == ["ok", "error"]
    assert [acknowledged.mid for acknowledged in made.session.acknowledged] == [message.mid]


def test_29_what_is_dropped_after_another_gateway_got_the_request_is_not_answered_here(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.ask("hello", reply_to="elsewhere/answers")
    made.answer(made.work[0])
    dropped = made.last("elsewhere/answers").on_dropped
    assert dropped is not None
    made.session.lose()
    made.gateway.give_up()
    dropped(UndeliverableError("cut"))
    assert made.answers() == []


# ---- requests that end processes --------------------------------------------------------------------------------


def _id_of(made: Desk, text: str) -> bytes:
    made.ask(text)
    return made.work[-1].request


def test_29_a_request_that_the_session_brings_to_another_gateway_has_an_id_of_the_same_content(
    desk: Callable[..., Desk],
) -> None:
    first, again, other = _id_of(desk(), "hello"), _id_of(desk(), "hello"), _id_of(desk(), "other")
    assert content_of(first) == content_of(again) != content_of(other)
    assert first != again


def test_29_ids_do_not_tell_what_was_asked_to_who_has_no_key(desk: Callable[..., Desk]) -> None:
    assert content_of(_id_of(desk(key="one" * 8), "hello")) != content_of(_id_of(desk(key="two" * 8), "hello"))


def test_29_what_ended_this_nodes_process_several_times_is_refused_and_acknowledged(
    desk: Callable[..., Desk],
) -> None:
    content = content_of(_id_of(desk(), "hello"))
    made = desk(history=CrashHistory(poison_contents={content: "m did not survive this input 2 times"}))
    message = made.ask("hello")
    (answer,) = made.answers()
    assert answer["error"]["code"] == "module_failed"
    assert made.work == []
    made.deliver_answer()
    assert made.session.acknowledged == [message]
    made.ask("other", mid=2)
    assert len(made.work) == 1


# ---- the session is lost -------------------------------------------------------------------------------------------


def test_a_lost_session_is_not_taken_back_before_the_agent_has_looked_at_its_plan(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.session.lose()
    assert made.session.calls == ["begin", "abort"]
    made.loop.advance(0.19)
    assert made.returns == 0
    made.loop.advance(0.82)
    assert made.returns == 1
    made.gateway.connect()
    assert len(made.links.made) == 2


def test_a_request_that_comes_again_over_the_new_session_goes_on_and_is_answered_once(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.ask("hello", mid=1)
    work = made.work[0]
    made.session.lose()
    made.answer(work)
    assert made.answers() == []  # kept back: another gateway may have the request
    made.gateway.connect()
    made.session.connect()
    again = made.ask("hello", mid=9)
    assert len(made.work) == 1
    assert [answer["answer"] for answer in made.answers()] == ["done"]
    made.deliver_answer()
    assert made.session.acknowledged == [again]


def test_a_request_that_comes_again_is_known_by_all_that_its_caller_chose(desk: Callable[..., Desk]) -> None:
    made = desk(inflight=10)
    made.ask("hello", correlation=b"1", reply_to="callers/1")
    made.session.lose()
    made.gateway.connect()
    made.session.connect()
    made.ask("other", mid=2, correlation=b"1", reply_to="callers/1")
    made.ask("hello", mid=3, correlation=b"2", reply_to="callers/1")
    made.ask("hello", mid=4, correlation=b"1", reply_to="callers/2")
    assert len(made.work) == 4
    made.ask("hello", mid=5, correlation=b"1", reply_to="callers/1")
    assert len(made.work) == 4


def test_what_comes_over_a_connection_that_was_given_up_is_left_to_the_next(desk: Callable[..., Desk]) -> None:
    made = desk()
    old = made.session
    old.lose()
    made.gateway.connect()
    old.deliver(REQUEST, b'{"inputs": {"x": "late"}}', mid=1)
    assert made.work == []


def is_answered_after_two_looks(made: Desk) -> None:
    """The session comes back and brings nothing."""
    made.gateway.connect()
    made.session.connect()
    made.loop.advance(1.9)
    assert made.answers() == []
    made.loop.advance(0.2)
    assert len(made.answers()) == 1


def test_what_a_session_that_is_back_does_not_bring_again_is_answered_after_two_looks(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.ask("hello")
    made.session.lose()
    made.answer(made.work[0])
    is_answered_after_two_looks(made)
    made.loop.advance(60.0)
    assert len(made.answers()) == 1
    made.deliver_answer()
    assert made.session.acknowledged == []  # it never came over this connection


def test_where_the_broker_is_back_and_the_session_is_not_it_takes_ten_looks(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello")
    made.session.lose()
    made.answer(made.work[0])
    made.loop.advance(9.9)
    assert made.answers() == []
    made.loop.advance(0.2)
    assert len(made.answers()) == 1


def test_looks_while_the_broker_is_away_do_not_count(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello")
    made.agent.connected = False
    made.session.lose()
    made.answer(made.work[0])
    made.loop.advance(30.0)
    made.agent.connected = True
    made.loop.advance(9.0)
    assert made.answers() == []
    made.loop.advance(1.1)
    assert len(made.answers()) == 1


def lost_with_an_answer_in_flight(made: Desk) -> None:
    """The broker has it or not; our connections come back at once, and the answer goes out again."""
    made.ask("hello", mid=1)
    made.answer(made.work[0])
    assert len(made.answers()) == 1
    made.gateway.broker_lost()
    made.session.lose()
    made.gateway.connect()
    made.session.connect()


def test_an_answer_that_was_in_flight_when_the_broker_forgot_all_is_published_once_more_when_callers_are_back(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    lost_with_an_answer_in_flight(made)
    made.deliver_answer()  # what the link sent again
    made.loop.advance(1.9)
    assert len(made.answers()) == 1
    made.loop.advance(0.2)
    assert [answer["answer"] for answer in made.answers()] == ["done", "done"]
    made.deliver_answer()
    made.loop.advance(60.0)
    assert len(made.answers()) == 2
    made.ask("hello", mid=2)  # it is forgotten: this is another request
    assert len(made.work) == 2


@pytest.mark.parametrize("first", ["acknowledged", "brought again"])
def test_an_answer_that_was_in_flight_at_a_broker_that_remembers_is_not_published_twice(
    desk: Callable[..., Desk], first: str
) -> None:
    made = desk()
    lost_with_an_answer_in_flight(made)
    if first == "acknowledged":
        made.deliver_answer()
    again = made.ask("hello", mid=9)
    if first == "brought again":
        assert made.session.acknowledged == []
        made.deliver_answer()
    assert made.session.acknowledged == [again]
    made.loop.advance(60.0)
    assert (len(made.answers()), len(made.work)) == (1, 1)


def test_a_new_loss_while_what_a_former_one_left_is_over_begins_the_looks_anew(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("one", mid=1)
    made.session.lose()
    made.gateway.connect()
    made.session.connect()
    made.ask("one", mid=2)
    made.session.lose()
    made.answer(made.work[0])
    is_answered_after_two_looks(made)


def test_what_is_still_under_way_after_the_looks_is_answered_when_it_is_done(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello")
    made.session.lose()
    made.gateway.connect()
    made.session.connect()
    made.loop.advance(5.0)
    assert made.answers() == []
    made.answer(made.work[0])
    made.loop.advance(1.1)
    assert len(made.answers()) == 1


def test_after_our_node_was_given_up_what_the_lost_session_left_is_dropped(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello")
    made.session.lose()
    made.gateway.give_up()
    made.answer(made.work[0])
    made.loop.advance(60.0)
    assert made.answers() == []
    assert made.dispatcher.under_way == 0


def test_giving_up_drops_nothing_of_the_session_that_is_there(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello")
    made.gateway.give_up()
    made.answer(made.work[0])
    assert len(made.answers()) == 1


def test_a_refusal_ends_the_gateway(desk: Callable[..., Desk]) -> None:
    made = desk()
    refused = UnauthorisedError("another role")
    made.session.lose(refused)
    assert made.gateway.refused is refused
    made.loop.advance(60.0)
    assert made.returns == 0
    made.gateway.connect()
    assert len(made.links.made) == 1


# ---- the gateway is closed -----------------------------------------------------------------------------------------


def test_a_gateway_that_is_closed_leaves_its_session_and_what_it_has_not_answered_to_the_next(
    desk: Callable[..., Desk],
) -> None:
    made = desk(inflight=1)
    for n in range(3):
        made.ask(f"text {n}", mid=n + 1)
    made.gateway.close()
    assert made.session.calls == ["begin", "stop 1"]
    assert made.dispatcher.under_way == 0
    made.answer(made.work[0])
    made.loop.advance(60.0)
    assert made.answers() == []
    assert made.session.acknowledged == []
    made.gateway.connect()
    assert len(made.links.made) == 1


def test_closed_while_it_waits_to_return_it_does_not(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.session.lose()
    made.gateway.close()
    made.loop.advance(60.0)
    assert made.returns == 0


def test_a_loss_after_the_close_means_nothing(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.gateway.close()
    made.session.lose()
    made.loop.advance(60.0)
    assert made.returns == 0


def test_closed_while_the_broker_is_there_it_drops_what_a_lost_session_left(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello")
    made.session.lose()
    made.gateway.close()
    made.answer(made.work[0])
    made.loop.advance(60.0)
    assert made.answers() == []


def test_closed_after_the_broker_was_away_it_still_answers_what_nobody_else_knows_of(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.ask("hello")
    made.session.lose()
    made.gateway.broker_lost()
    made.gateway.close()
    assert "home/route/t" in made.agent.filters
    made.agent.deliver("home/route/t", route(revision=2, node="b").encode())
    made.agent.deliver("home/node/b/state", NodeState(state="ready", boot="1").encode())
    made.agent.deliver("home/node/a/state", b"")
    made.answer(made.work[-1])
    made.loop.advance(11.0)
    (answer,) = made.answers()
    assert (answer["status"], answer["answer"]) == ("ok", "done")
    assert "home/route/t" not in made.agent.filters


def test_a_gateway_that_comes_while_the_last_one_still_answers_keeps_the_route(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("hello")
    made.session.lose()
    made.gateway.broker_lost()
    made.gateway.close()
    made.open()
    made.answer(made.work[0])
    made.loop.advance(11.0)
    assert [answer["status"] for answer in made.answers()] == ["ok"]
    assert "home/route/t" in made.agent.filters


# ---- texts while they are written ----------------------------------------------------------------------------------


def streaming(made: Desk) -> Work:
    made.agent.deliver("home/route/t", route(generates="y").encode())
    made.session.deliver(REQUEST, b'{"inputs": {"x": "a"}, "stream": true, "transaction": 3}', mid=1)
    return made.work[0]


def piece(made: Desk, work: Work, seq: int, at: int, text: str) -> None:
    payload, user = encode_piece(Piece(work.request, "step", work.attempt, seq, at, text))
    made.agent.deliver("home/client/node-a/in", payload, correlation=work.request, user=dict(user))


def test_a_text_is_told_while_it_is_written_and_what_finds_no_room_goes_with_the_next(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    work = streaming(made)
    piece(made, work, 0, 0, "one")
    made.agent.has_room = False
    piece(made, work, 1, 3, " two")
    made.agent.has_room = True
    piece(made, work, 2, 7, " three")
    told = [(a["seq"], a["at"], a["text"], a["transaction"]) for a in made.answers()]
    assert told == [(0, 0, "one", 3), (1, 3, " two three", 3)]
    made.answer(work, "one two three")
    final = made.answers()[-1]
    assert (final["status"], final["seq"], final["final"], final["answer"]) == ("ok", 2, True, "one two three")


def test_37_plain_payloads_that_do_not_fit_the_budget_are_answered_with_busy(desk: Callable[..., Desk]) -> None:
    made = desk(inflight=64)
    for mid in range(1, 8):
        made.session.deliver(f"{REQUEST}/x", b"a" * 8_000_000, mid=mid)
    assert len(made.work) == 4
    assert {answer["error"]["code"] for answer in made.answers()} == {"busy"}
    made.deliver_answer()
    for work in made.work:
        made.answer(work)
        made.deliver_answer()
    made.session.deliver(f"{REQUEST}/x", b"a" * 8_000_000, mid=8)
    assert len(made.work) == 5, "answered requests count no more"
