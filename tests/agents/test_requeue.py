"""When a plain request is requeued, what its copy is, and which messages are acknowledged. The test is the clock."""

import dataclasses
from collections.abc import Callable

import pytest

from s2m3.agents.gateway import gateway as gateway_module
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.errors import BusyError, UnauthorisedError, UndeliverableError
from tests.agents.test_gateway import REQUEST, Desk
from tests.recorders import LinkFactory, Published


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Desk]:
    links = LinkFactory()
    monkeypatch.setattr(gateway_module, "Link", links)
    return lambda **options: Desk(links, **{"inflight": 64, **options})


def copies(desk: Desk) -> list[Published]:
    return [sent for sent in desk.agent.published if sent.message.topic == REQUEST]


def confirm(sent: Published) -> None:
    assert sent.on_delivered is not None
    sent.on_delivered()


def bring(desk: Desk, sent: Published, mid: int) -> Message:
    """The broker delivers a copy."""
    copy = sent.message
    return desk.session.deliver(
        copy.topic,
        copy.payload,
        mid=mid,
        reply_to=copy.reply_to,
        correlation=copy.correlation,
        user=dict(copy.user),
        user_properties=copy.user,
    )


def answered_behind(desk: Desk, many: int) -> None:
    """So many requests come after the first, and are answered."""
    for n in range(many):
        desk.ask(f"fast {n}", mid=100 + n)
        desk.answer(desk.work[-1])
        desk.deliver_answer()


def acknowledged(desk: Desk) -> list[int]:
    return [message.mid for message in desk.session.acknowledged]


def test_32_the_ninth_is_not_waited_for_and_the_copy_is_what_the_caller_sent(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1, reply_to="callers/1", correlation=b"7", user_properties=(("traceparent", "t"),))
    answered_behind(made, 7)
    assert copies(made) == []
    answered_behind(made, 1)
    (sent,) = copies(made)
    assert (sent.message.reply_to, sent.message.correlation, sent.message.retain) == ("callers/1", b"7", False)
    assert sent.message.payload == b'{"inputs": {"x": "slow"}}'
    assert [name for name, _ in sent.message.user] == ["traceparent", "requeued"]
    assert 1 not in acknowledged(made)
    confirm(sent)
    assert acknowledged(made)[-1] == 1


def test_32_fewer_are_held_up_for_a_second_then_for_twice_as_long(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    made.loop.advance(60.0)
    assert copies(made) == []  # nobody is held up
    answered_behind(made, 1)
    made.loop.advance(0.9)
    assert copies(made) == []
    made.loop.advance(0.1)
    (sent,) = copies(made)
    confirm(sent)
    bring(made, sent, 2)
    answered_behind(made, 1)
    made.loop.advance(1.9)
    assert len(copies(made)) == 1
    made.loop.advance(0.1)
    assert len(copies(made)) == 2


@pytest.mark.parametrize("comes_first", [True, False], ids=["before its PUBACK", "after its PUBACK"])
def test_32_a_copy_continues_the_request_and_is_acknowledged_with_its_answer(
    desk: Callable[..., Desk],
    comes_first: bool,  # noqa: FBT001  # a parameter
) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[0]
    answered_behind(made, 8)
    (sent,) = copies(made)
    if comes_first:
        bring(made, sent, 2)
        confirm(sent)
    else:
        confirm(sent)
        bring(made, sent, 2)
    assert len(made.work) == 9  # not run again
    assert acknowledged(made)[-1] == 1
    made.answer(slow)
    made.deliver_answer()
    assert acknowledged(made)[-1] == 2
    assert len(made.answers()) == 9


def test_a_copy_that_comes_after_the_answer_is_acknowledged_and_nothing_more(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[0]
    answered_behind(made, 8)
    (sent,) = copies(made)
    made.answer(slow)
    made.deliver_answer()
    assert acknowledged(made).count(1) == 1
    confirm(sent)
    assert acknowledged(made).count(1) == 1  # packet ids are used again: twice would acknowledge another message
    bring(made, sent, 2)
    assert acknowledged(made)[-1] == 2
    assert len(made.work) == 9


def test_a_copy_of_a_gateway_before_is_a_request_like_any_other(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1, user={"requeued": "0123"}, user_properties=(("requeued", "0123"),))
    assert len(made.work) == 1
    answered_behind(made, 8)
    (sent,) = copies(made)
    assert [name for name, _ in sent.message.user] == ["requeued"]
    assert sent.message.user[0][1] != "0123"


def test_a_lost_session_brings_the_copy_back_to_the_request_that_goes_on(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[0]
    answered_behind(made, 8)
    (sent,) = copies(made)
    confirm(sent)
    made.session.lose()
    made.gateway.connect()
    made.session.connect()
    bring(made, sent, 5)
    assert len(made.work) == 9
    made.answer(slow)
    made.deliver_answer()
    assert acknowledged(made) == [5]


def test_after_the_session_was_left_to_the_next_gateway_its_copy_is_nobodys_here(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 8)
    (sent,) = copies(made)
    made.session.lose()
    made.gateway.give_up()
    confirm(sent)
    made.gateway.connect()
    made.session.connect()
    bring(made, sent, 5)
    assert len(made.work) == 10  # it is answered again: nobody else has it


def test_an_access_list_that_forbids_it_costs_nothing_but_the_requeueing(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 8)
    (sent,) = copies(made)
    assert sent.on_refused is not None
    sent.on_refused(UnauthorisedError("not an agent's"))
    answered_behind(made, 8)
    made.loop.advance(60.0)
    assert len(copies(made)) == 1
    made.answer(made.work[0])
    made.deliver_answer()
    assert acknowledged(made)[-1] == 1


def test_a_request_of_qos_0_holds_nobody_up(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=0)
    answered_behind(made, 20)
    made.loop.advance(60.0)
    assert copies(made) == []


def test_a_full_outgoing_queue_is_tried_again(desk: Callable[..., Desk]) -> None:
    made = desk()
    made.ask("slow", mid=1)
    answered_behind(made, 1)
    made.agent.error = BusyError("full")
    made.loop.advance(1.0)
    assert copies(made) == []
    made.loop.advance(2.0)
    assert len(copies(made)) == 1


def test_the_messages_of_a_connection_that_is_gone_are_forgotten(desk: Callable[..., Desk]) -> None:
    made = desk()
    first = made.ask("slow", mid=1)
    answered_behind(made, 8)
    (sent,) = copies(made)
    made.session.lose()
    made.gateway.connect()
    made.session.connect()
    again = dataclasses.replace(first, mid=1, generation=2)
    made.session.deliver(again.topic, again.payload, mid=again.mid)
    confirm(sent)  # of the connection before: it acknowledges nothing on this one
    assert acknowledged(made) == []


def test_29_a_copy_over_which_every_connection_is_lost_is_forgotten_and_others_are_requeued(
    desk: Callable[..., Desk],
) -> None:
    made = desk()
    made.ask("slow", mid=1)
    slow = made.work[-1]
    answered_behind(made, 8)
    (sent,) = copies(made)
    assert sent.on_dropped is not None
    sent.on_dropped(UndeliverableError("cut"))
    made.loop.advance(60.0)
    assert len(copies(made)) == 1
    made.answer(slow)
    made.deliver_answer()
    assert 1 in acknowledged(made)
    made.ask("slow too", mid=2)
    answered_behind(made, 8)
    assert len(copies(made)) == 2
