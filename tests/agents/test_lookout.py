"""Plain requests that waited in a session at a broker that died: which are taken from a listener, and each once."""

import json
from collections.abc import Callable

import pytest

from s2m3.agents.gateway import gateway as gateway_module
from s2m3.agents.gateway import lookout as lookout_module
from tests.agents.test_gateway import REQUEST, RESPONSE, Desk
from tests.recorders import LinkFactory, RecordedLink


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
