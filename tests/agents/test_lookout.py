"""Plain requests that waited in a session at a broker that died: which are taken from a listener, and each once."""

import json
from collections.abc import Callable

import pytest

from s2m3.agents.gateway import gateway as gateway_module
from s2m3.agents.gateway import lookout as lookout_module
from s2m3.agents.gateway.heard_requests import HeardRequests
from s2m3.broker.mqtt.message import Message
from tests.agents.test_gateway import REQUEST, RESPONSE, Desk
from tests.recorders import LinkFactory, RecordedLink


def request(text: str, correlation: bytes | None = None) -> Message:
    return Message("request/t", text.encode(), correlation=correlation)


def test_what_listeners_heard_and_the_session_did_not_bring_is_missing_once() -> None:
    heard = HeardRequests()
    for listener in (0, 1):
        heard.heard(listener, request("came"), 0.0)
        heard.heard(listener, request("waited"), 0.0)
    assert not heard.came(request("came"), 0.0)
    assert heard.take_missing(-0.1) == []  # the session may bring it yet
    assert [(number, message.payload) for number, message in heard.take_missing(0.0)] == [(0, b"waited")]
    assert heard.take_missing(0.0) == []
    assert heard.came(request("waited"), 1.0)  # the session brings it after all: it was answered
    assert not heard.came(request("waited"), 2.0)  # another caller asks the same


def test_equal_requests_count_each_and_one_that_a_broker_that_died_did_not_show_counts_too() -> None:
    heard = HeardRequests()
    heard.heard(0, request("same"), 0.0)
    for _ in range(3):
        heard.heard(1, request("same"), 0.0)
    heard.heard(1, request("same", b"another's"), 0.0)
    assert not heard.came(request("same"), 0.0)
    missing = heard.take_missing(0.0)
    assert [(number, message.correlation) for number, message in missing] == [(1, None), (1, None), (1, b"another's")]


def test_requests_are_remembered_for_half_a_minute_and_within_a_bound() -> None:
    heard = HeardRequests()
    heard.heard(0, request("old"), 0.0)
    heard.heard(0, request("new"), 31.0)
    assert [message.payload for _, message in heard.take_missing(31.0)] == [b"new"]
    for n in range(4):
        heard.heard(0, Message("request/t", bytes([n]) * 6_000_000), 40.0)
    assert len(heard.take_missing(40.0)) == 3  # of 6 MB each: the oldest beyond 16 MB were forgotten


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> tuple[Callable[[], Desk], LinkFactory]:
    sessions, listeners = LinkFactory(), LinkFactory()
    monkeypatch.setattr(gateway_module, "Link", sessions)
    monkeypatch.setattr(lookout_module, "Link", listeners)
    monkeypatch.setenv("S2M3_FALLBACK", "second:1883")
    return lambda: Desk(sessions), listeners


def bring(link: RecordedLink, text: str) -> None:
    link.deliver(REQUEST, b'{"inputs": {"x": "%s"}}' % text.encode(), mid=9)


def test_a_gateway_answers_what_waited_in_a_session_that_was_lost_with_its_broker(
    made: tuple[Callable[[], Desk], LinkFactory],
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
    assert desk.agent.at(RESPONSE) == []
    assert desk.session.acknowledged == []  # it came without a packet id
    confirm = listeners[1].published[-1].on_delivered
    assert confirm is not None
    confirm()
    desk.ask("waited", mid=4)
    assert len(desk.work) == 2
    assert [message.mid for message in desk.session.acknowledged] == [4]


def test_what_the_session_is_slow_to_bring_is_left_to_it_while_as_much_as_may_be_is_under_way(
    made: tuple[Callable[[], Desk], LinkFactory],
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
    made: tuple[Callable[[], Desk], LinkFactory], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("S2M3_FALLBACK")
    made[0]()
    assert made[1].made == []
