"""Plain requests that waited in a session at a broker that died: which are taken from a listener, and each once."""

import json
from collections.abc import Callable

import pytest

from s2m3.agents.gateway import gateway as gateway_module
from s2m3.agents.gateway import lookout as lookout_module
from s2m3.agents.gateway.open_request import id_for, kind_of
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.errors import BusyError
from s2m3.schemas.messages import Claims, NodeState
from s2m3.schemas.wire.plain import encode_plain_error
from tests.agents.test_gateway import REQUEST, RESPONSE, Desk
from tests.recorders import LinkFactory, RecordedLink


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[..., Desk], LinkFactory]:
    sessions, listeners = LinkFactory(), LinkFactory()
    monkeypatch.setattr(gateway_module, "Link", sessions)
    monkeypatch.setattr(lookout_module, "Link", listeners)
    monkeypatch.setenv("S2M3_FALLBACK", "second:1883")
    return lambda **options: Desk(sessions, **options), listeners


CLAIMS = "home/claims/t"


def payload(text: str) -> bytes:
    return b'{"inputs": {"x": "%s"}}' % text.encode()


def bring(link: RecordedLink, text: str) -> None:
    link.deliver(REQUEST, payload(text), mid=9)


def kind(link: RecordedLink, text: str) -> str:
    return kind_of(link.settings, Message(REQUEST, payload(text)))


def claims(link: RecordedLink) -> list[tuple[list[str], list[str]]]:
    said = [Claims.model_validate_json(said) for said in link.at(CLAIMS)]
    return [(one.claimed, one.answered) for one in said]


def say(link: RecordedLink, number: int, *, claimed: tuple[str, ...] = (), answered: tuple[str, ...] = ()) -> None:
    names = {"claimed": [kind(link, text) for text in claimed], "answered": [kind(link, text) for text in answered]}
    link.deliver(CLAIMS, Claims(node="b", sender="other", number=number, **names).encode())


def see_answer(link: RecordedLink, text: str) -> None:
    """Another node's answer comes, over two brokers."""
    request = id_for(link.settings, Message(REQUEST, payload(text)))
    for _ in range(2):
        link.deliver(RESPONSE, encode_plain_error(BusyError("full"), request=request, transaction=None))


def confirm(link: RecordedLink) -> None:
    delivered = link.published[-1].on_delivered
    assert delivered is not None
    delivered()


def test_a_gateway_answers_what_waited_in_a_session_that_was_lost_with_its_broker(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk, listeners = made[0](), made[1].made
    assert [(link.settings.host, link.settings.fallback) for link in listeners] == [("127.0.0.1", ""), ("second", "")]
    listeners[1].connect()
    for link in listeners:
        bring(link, "came")
    bring(listeners[1], "waited")
    desk.ask("came")
    desk.session.lose()
    desk.loop.advance(5.0)
    assert len(desk.work) == 1
    desk.gateway.connect()
    desk.session.connect()
    desk.loop.advance(1.0)
    assert [work.inputs for work in desk.work] == [{"x": "came"}, {"x": "waited"}]
    desk.answer(desk.work[1])
    assert [json.loads(answer)["answer"] for answer in listeners[1].at(RESPONSE)] == ["done"]  # its caller is there
    assert listeners[0].at(RESPONSE) == []
    assert desk.agent.at(RESPONSE) == []
    assert desk.session.acknowledged == []  # it came without a packet id
    confirm(listeners[1])
    desk.ask("waited", mid=4)
    assert len(desk.work) == 2
    assert [message.mid for message in desk.session.acknowledged] == [4]


def test_what_the_session_is_slow_to_bring_is_left_to_it_while_as_much_as_may_be_is_under_way(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk, listeners = made[0](), made[1].made
    for n in range(2):
        desk.ask(f"slow {n}", mid=n + 1)
    bring(listeners[1], "waits")
    desk.loop.advance(10.0)
    assert len(desk.work) == 2
    desk.answer(desk.work[0])
    desk.deliver_answer()
    desk.loop.advance(1.0)
    assert len(desk.work) == 3


def test_without_further_brokers_nobody_listens_beside_the_session(
    made: tuple[Callable[..., Desk], LinkFactory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("S2M3_FALLBACK")
    made[0]()
    assert made[1].made == []


def test_a_gateway_claims_at_every_broker_what_it_has_and_what_it_will_take_and_says_what_it_answered(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk, listeners = made[0](), made[1].made
    for link in listeners:
        link.connect()
        bring(link, "came")
        bring(link, "waits")
    desk.ask("came")
    desk.loop.advance(0.5)
    names = [kind(listeners[0], "came"), kind(listeners[0], "waits")]
    for link in listeners:
        assert claims(link) == [(names, [])]
    desk.session.lose()
    desk.loop.advance(0.5)
    assert claims(listeners[1])[1:] == [(names[:1], [])]  # it is not certain to take what waits
    desk.gateway.connect()
    desk.session.connect()
    desk.ask("came")
    desk.answer(desk.work[0])
    desk.deliver_answer()
    desk.loop.advance(0.5)
    assert claims(listeners[1])[2:] == [(names[1:], names[:1])]


def test_a_deputy_takes_what_nobody_claims_at_its_own_broker_and_answers_it_there(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk, (first, second) = made[0](inflight=9), list(made[1].made)
    session = desk.session
    desk.ask("of the session")
    desk.gateway.stand_by("b")
    assert [link.calls[-1] for link in (session, first, second)] == ["stop 1", "stop 0", "stop 0"]
    own = made[1].made[2]
    assert own.settings.fallback == "second:1883"
    assert own.filters.keys() >= {REQUEST, CLAIMS, "home/node/b/state"}
    own.connect()
    own.deliver("home/node/b/state", NodeState(state="ready", boot="1").encode())
    for text in ("claimed", "answered", "answered", "nobody's", "told but not seen"):
        bring(own, text)
    own.deliver(REQUEST, payload("private"), reply_to="home/client/c/in", correlation=b"1")
    private = Message(REQUEST, payload("private"), reply_to="home/client/c/in", correlation=b"1")
    desk.loop.advance(3.9)
    assert len(desk.work) == 1
    say(own, 1, claimed=("claimed",), answered=("told but not seen",))
    names = [kind_of(own.settings, private)]
    own.deliver(CLAIMS, Claims(node="b", sender="other", number=2, answered=names).encode())
    see_answer(own, "answered")
    desk.loop.advance(2.6)
    assert [work.inputs["x"] for work in desk.work[1:]] == ["answered", "nobody's", "told but not seen"]
    desk.answer(desk.work[1])
    confirm(own)
    desk.answer(desk.work[3])
    confirm(own)
    desk.loop.advance(0.5)
    for answer in own.at(RESPONSE):
        own.deliver(RESPONSE, answer)  # it sees its own answers too
    done = [kind(own, "answered"), kind(own, "told but not seen")]
    assert claims(own)[-1] == ([kind(own, "nobody's")], done)
    desk.answer(desk.work[2])
    assert [json.loads(answer)["answer"] for answer in own.at(RESPONSE)] == ["done"] * 3
    confirm(own)
    said = len(claims(own))
    desk.loop.advance(4.4)  # the claims have ended
    assert [work.inputs for work in desk.work[4:]] == [{"x": "claimed"}]
    assert claims(own)[said] == ([], [kind(own, "nobody's")])
    bring(own, "nobody's")  # the next one
    desk.loop.advance(7.0)
    assert [work.inputs["x"] for work in desk.work[4:]] == ["claimed", "nobody's"]


def test_a_claim_counts_once_whichever_brokers_carry_it(made: tuple[Callable[..., Desk], LinkFactory]) -> None:
    desk, listeners = made[0](), made[1].made
    for _ in range(2):
        bring(listeners[0], "same")
    for link in listeners:
        say(link, 1, answered=("same",))
    desk.loop.advance(3.0)
    assert [work.inputs for work in desk.work] == [{"x": "same"}]


def test_a_deputy_leaves_all_to_the_next_gateway_while_its_gateway_is_known_to_be_lost(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk = made[0]()
    desk.gateway.stand_by("b")
    own = made[1].made[-1]
    own.connect()
    own.deliver("home/node/b/state", NodeState(state="ready", boot="1").encode())
    own.deliver("home/node/b/state", NodeState(state="lost", boot="of before").encode())  # a late will
    bring(own, "one")
    desk.loop.advance(7.0)
    assert len(desk.work) == 1
    own.deliver("home/node/b/state", NodeState(state="lost", boot="1").encode())
    bring(own, "two")
    desk.loop.advance(7.0)
    assert len(desk.work) == 1
    desk.gateway.stand_by("c")
    assert own.calls[-1] == "stop 0"
    made[1].made[-1].connect()
    desk.loop.advance(0.5)
    assert [work.inputs for work in desk.work] == [{"x": "one"}, {"x": "two"}]


def test_a_deputy_that_becomes_the_gateway_answers_nothing_again_and_goes_on_with_what_it_took(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk = made[0]()
    desk.gateway.stand_by("b")
    own = made[1].made[-1]
    own.connect()
    bring(own, "taken")
    bring(own, "answered")
    see_answer(own, "answered")
    desk.loop.advance(7.0)
    desk.gateway.connect()
    desk.session.connect()
    assert len(made[1].made) == 5
    desk.ask("taken", mid=1)
    desk.ask("answered", mid=2)
    desk.ask("new", mid=3)
    assert [work.inputs for work in desk.work] == [{"x": "taken"}, {"x": "new"}]
    assert [message.mid for message in desk.session.acknowledged] == [1, 2]
    desk.answer(desk.work[0])
    assert [json.loads(answer)["answer"] for answer in desk.agent.at(RESPONSE)] == ["done"]  # its listener has left


def test_what_a_listener_took_is_neither_dropped_nor_held_back_when_the_session_is_lost(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk, listeners = made[0](), made[1].made
    listeners[1].connect()
    bring(listeners[1], "waited")
    desk.loop.advance(2.5)
    assert len(desk.work) == 1
    desk.session.lose()
    desk.gateway.give_up()
    desk.answer(desk.work[0])
    assert [json.loads(answer)["answer"] for answer in listeners[1].at(RESPONSE)] == ["done"]


def test_a_request_of_qos_0_that_the_session_brought_is_not_taken_from_a_listener_too(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk, listeners = made[0](), made[1].made
    listeners[0].deliver(REQUEST, payload("unconfirmed"), mid=0)
    desk.session.deliver(REQUEST, payload("unconfirmed"), mid=0)
    desk.loop.advance(10.0)
    assert len(desk.work) == 1


def test_an_answer_that_nobody_hears_at_our_broker_is_published_at_the_others(
    made: tuple[Callable[..., Desk], LinkFactory],
) -> None:
    desk, listeners = made[0](), made[1].made
    for link in listeners:
        link.connect()
    bring(listeners[1], "elsewhere")
    desk.ask("elsewhere", mid=1)
    desk.answer(desk.work[0])
    assert len(listeners[1].at(RESPONSE)) == 1  # where alone it was heard
    bring(listeners[0], "here")
    bring(listeners[1], "here")
    desk.ask("here", mid=2)
    desk.answer(desk.work[1])
    assert [len(link.at(RESPONSE)) for link in (desk.agent, *listeners)] == [1, 0, 1]
    for link in (desk.agent, listeners[0]):
        published = link.published[-1]
        assert published.on_no_subscribers is not None
        published.on_no_subscribers()
    assert [len(link.at(RESPONSE)) for link in (desk.agent, *listeners)] == [1, 1, 2]
    assert listeners[1].published[-1].on_no_subscribers is None
    assert [message.mid for message in desk.session.acknowledged] == []
    confirm(listeners[1])
    assert [message.mid for message in desk.session.acknowledged] == [2]
    listeners[0].error = BusyError("full")
    desk.ask("unheard", mid=3)
    desk.answer(desk.work[2])
    nobody = desk.last().on_no_subscribers
    assert nobody is not None
    nobody()
    assert [message.mid for message in desk.session.acknowledged] == [2, 3]
