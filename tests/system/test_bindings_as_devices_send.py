"""Bindings on both brokers, fed as buttons, doorbells and attackers really do."""

import json
import queue
from collections.abc import Iterator
from typing import Any

import pytest

from s2m3.bindings.gate import MOST_WAITING
from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding, BindingReport
from s2m3.snapshot import Site
from tests.bindings import payloads
from tests.conftest import WAIT_S
from tests.others import others_answered
from tests.system.plain import PlainCaller
from tests.system.test_bindings import EVENT, _bridge_is, _listener


@pytest.fixture(scope="module")
def house(kind: BrokerKind) -> Iterator[Cluster]:
    """One light node, the task `noop`, and the bridge."""
    with Cluster({"a": 150.0}, kind=kind, threads=1, bridge=True) as cluster:
        with Site(cluster.settings) as site:
            add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=10))
            assert site.wait(lambda s: s.answers("noop") and _bridge_is(s, "online"), 3 * WAIT_S), cluster.log("bridge")
        yield cluster


@pytest.fixture
def client(house: Cluster) -> Iterator[Client]:
    with Client(settings=house.settings) as client:
        yield client


@pytest.fixture
def site(house: Cluster) -> Iterator[Site]:
    with Site(house.settings) as site:
        yield site
        for name in list(site.bindings):
            site.publish(topics.BIND, b"", binding=name)
        assert site.wait(lambda s: not s.bindings and not s.reports, WAIT_S)


def _bind(site: Site, name: str, source: str, publish: str, **fields: Any) -> None:
    fields = {"inputs": {"right": "r"}, **fields}
    binding = Binding(source=source, task="noop", publish=publish, **fields)
    site.publish(topics.BIND, binding.encode(), binding=name)
    assert site.wait(lambda s: name in s.reports and s.reports[name].state == "active", WAIT_S)


def _is_accounted(report: BindingReport) -> bool:
    """Whether no request of a binding is under way but one."""
    return report.received <= report.answered + report.failed + report.passed + report.dropped + 1


def _settled(site: Site, name: str, **counts: int) -> BindingReport:
    """Waits until the report of a binding has these counts."""
    there = site.wait(lambda s: all(getattr(s.reports[name], key) == n for key, n in counts.items()), 2 * WAIT_S)
    assert there, site.reports[name]
    return site.reports[name]


def _asked(caller: PlainCaller) -> Any:
    """What the left input of the next answer was."""
    return caller.answer()["answer"][0]


def _bell(event: str, number: int) -> bytes:
    return json.dumps({"event": event, "image": f"{event}-{number}"}).encode()


def test_1_a_ring_between_two_motions_is_answered(house: Cluster, site: Site) -> None:
    _bind(site, "bell", "bell/+", "bell-said/{1}", paths={"left": "image"}, where="event == 'ring'")
    with _listener(house, "bell-said/+") as caller:
        for i in range(6):
            for event in ("motion", "ring", "motion"):
                caller.send(f"bell/{i}", _bell(event, i))
        assert sorted(_asked(caller) for _ in range(6)) == [f"ring-{i}" for i in range(6)]
        report = _settled(site, "bell", received=18, answered=6)
        assert caller.answers.empty()
    assert (report.passed, report.dropped, report.failed) == (12, 0, 0)


def test_1_what_a_condition_passes_over_starts_no_clock(house: Cluster, site: Site) -> None:
    """With an hour between requests, the one that is wanted is asked at once, however many came before it."""
    _bind(site, "rare", "rare/in", "rare/out", paths={"left": "image"}, where="event == 'ring'", every_s=3600)
    with _listener(house, "rare/out") as caller:
        for i in range(20):
            caller.send("rare/in", _bell("motion", i))
        caller.send("rare/in", b"not JSON")
        assert caller.answer()["error"]["code"] == "bad_input"
        caller.send("rare/in", _bell("ring", 1))
        assert _asked(caller) == "ring-1"


def test_2_the_release_after_a_press_and_a_battery_report_are_nobody_s_question(house: Cluster, site: Site) -> None:
    _bind(site, "button", "zigbee2mqtt/button", "button/said", paths={"left": "action"})
    with _listener(house, "button/said", EVENT) as caller:
        for action in ("single", "double"):
            caller.send("zigbee2mqtt/button", payloads.zigbee_button(action))
            caller.send("zigbee2mqtt/button", payloads.zigbee_button(""))
            caller.send("zigbee2mqtt/button", payloads.zigbee_button(None))
            caller.send("zigbee2mqtt/button", payloads.ZIGBEE_BATTERY)
        assert [_asked(caller) for _ in range(2)] == ["single", "double"]
        report = _settled(site, "button", received=8, answered=2)
        assert caller.answers.empty()
    assert (report.passed, report.dropped, report.failed) == (6, 0, 0)
    assert report.last_passed == "nothing at 'action'"


def test_2_with_each_every_press_is_asked_in_order(house: Cluster, site: Site) -> None:
    _bind(site, "presses", "presses/in", "presses/out", paths={"left": "action"}, each=True)
    with _listener(house, "presses/out") as caller:
        for i in range(40):
            caller.send("presses/in", payloads.zigbee_button(f"press-{i}"))
            caller.send("presses/in", payloads.zigbee_button(""))
        assert [_asked(caller) for _ in range(40)] == [f"press-{i}" for i in range(40)]
    assert _settled(site, "presses", answered=40).dropped == 0


def test_2_what_is_over_the_bound_of_each_is_counted_and_said(house: Cluster, site: Site) -> None:
    _bind(site, "many", "many/in", "many/out", input="left", each=True, every_s=3600)
    with _listener(house, "many/out", EVENT) as caller:
        for i in range(1 + MOST_WAITING + 3):  # one is asked, the others wait for an hour
            caller.send("many/in", b"%d" % i)
        found = [caller.message() for _ in range(7)]
    texts = [message.payload.decode() for message in found]
    assert sum('"request_failed"' in text and "busy" in text for text in texts) == 3
    assert sum('"status": "error"' in text and "busy" in text for text in texts) == 3
    assert _settled(site, "many", received=MOST_WAITING + 4).dropped == 3


def test_6_a_retained_topic_that_is_cleared_asks_nothing(house: Cluster, site: Site) -> None:
    _bind(site, "whole", "whole/in", "whole/out", input="left", every_s=0.0)
    _bind(site, "trigger", "whole/in", "trigger/out", inputs={"left": "l", "right": "r"}, every_s=0.0)
    with _listener(house, "whole/out", "trigger/out", EVENT) as caller:
        for payload in (b"", b"said", b""):
            caller.client.publish("whole/in", payload, qos=1, retain=True).wait_for_publish(WAIT_S)
        assert {caller.message().topic for _ in range(2)} == {"whole/out", "trigger/out"}
        for name in ("whole", "trigger"):
            assert _settled(site, name, received=3, answered=1).passed == 2
        assert caller.answers.empty()


def test_6_an_empty_question_is_none(house: Cluster) -> None:
    with _listener(house, "s2m3/v1/bridge/answered/noop") as caller:
        for question in (b"", b" \n", b"what?"):
            caller.send("s2m3/v1/bridge/ask/noop", question)
        assert caller.answer()["question"] == "what?"
        assert caller.answers.empty()


@pytest.mark.parametrize("form", ["json", "value"])
def test_11_a_message_that_no_request_can_be_made_of_is_told(house: Cluster, site: Site, form: str) -> None:
    _bind(site, "told", "told/in", "told/out", paths={"left": "a"}, form=form)
    with _listener(house, EVENT, "s2m3/v1/bridge/answered/noop") as caller:
        caller.send("told/in", b"\xff\xd8 no JSON")
        documents = [caller.answer() for _ in range(2)]
    (event,) = [document for document in documents if "event" in document]
    (shown,) = [document for document in documents if "event_type" in document]
    assert (event["event"], event["task"]) == ("request_failed", "noop")
    assert event["detail"].startswith("bad_input: the payload is not JSON")
    assert len(event["request"]) == 32
    assert (shown["event_type"], shown["source"]) == ("failed", "binding:told")
    assert site.wait(lambda s: s.reports["told"].failed == 1, WAIT_S)


def test_11_a_flood_of_bad_messages_is_counted_and_told_a_few_times(house: Cluster, site: Site) -> None:
    _bind(site, "flood", "flood/in", "flood/out", paths={"left": "a"})
    with _listener(house, "flood/out") as caller:
        for _ in range(200):
            caller.client.publish("flood/in", b"no JSON", qos=1)
        caller.send("flood/in", b'{"a": "fine"}')
        _settled(site, "flood", received=201, failed=200, answered=1)
        told: list[dict[str, Any]] = []
        while not (told and told[-1]["status"] == "ok"):
            told.append(caller.answer())
    assert 10 <= len(told) - 1 < 100


def test_29_a_topic_of_201_levels_does_not_deafen_a_binding(house: Cluster, site: Site, client: Client) -> None:
    """Mosquitto takes the message, and cuts the connection that publishes the answer on two levels more."""
    _bind(site, "deep", "deep/#", "deeper/still/{1}", input="left", every_s=0.0)
    others = others_answered(lambda: client.ask("noop", left=1, right=2, deadline_s=WAIT_S))
    with _listener(house, "deeper/#", EVENT) as caller, others:
        caller.send("deep/" + "/".join("a" * 199), b"attack")
        event = caller.answer()
        assert event["event"] == "request_failed"
        assert "levels" in event["detail"]
        caller.send("deep/short", b"knock")
        message = caller.message()
    assert message.topic == "deeper/still/short"
    assert _settled(site, "deep", received=2).failed == 1
    assert "disconnected" not in house.log("bridge")


def test_29_a_topic_too_long_to_answer_on_does_not_either(house: Cluster, site: Site) -> None:
    _bind(site, "long", "long/#", "longer/{1}", input="left", every_s=0.0)
    with _listener(house, "longer/#", EVENT) as caller:
        caller.send("long/" + "x" * 3_000, b"attack")
        assert "bytes" in caller.answer()["detail"]
        caller.send("long/short", b"knock")
        assert caller.message().topic == "longer/short"


ATTACKS = (
    b'{"action":' * 600 + b'"x"' + b"}" * 600,
    b"[" * 5_000 + b"]" * 5_000,
    b'{"action": 1e999}',
    b'{"action": "\\ud800"}',
    b'{"action": ' + b"9" * 5_000 + b"}",
    b'{"action": NaN}',
    b'{"action": [' + b"[]," * 50_000 + b"[]]}",
    b'{"action": [' + b"0," * 120_000 + b"0]}",
)


@pytest.mark.parametrize("path", ["action", "ceil(action)", "action|" + "|".join(["[@,@]"] * 40) + "|to_string(@)"])
def test_33_ten_topics_of_attacks_leave_a_binding_at_work(
    house: Cluster, site: Site, client: Client, path: str
) -> None:
    _bind(site, "nested", "nested/+", "nested-said/{1}", paths={"left": path}, form="value", every_s=0.0)
    _bind(site, "beside", "beside/in", "beside/out", paths={"left": "action"}, every_s=0.0)
    others = others_answered(lambda: client.ask("noop", left=1, right=2, deadline_s=WAIT_S))
    with _listener(house, "nested-said/+", "beside/out") as caller, others:
        for topic in range(10):
            for attack in ATTACKS:
                caller.send(f"nested/{topic}", attack)
        caller.send("beside/in", b'{"action": "fine"}')
        _settled(site, "nested", received=10 * len(ATTACKS))
        caller.send("nested/0", b'{"action": 2}')
        found = {caller.message().topic}
        if "to_string" not in path:
            while "nested-said/0" not in found or "beside/out" not in found:
                found.add(caller.message().topic)
    assert site.wait(lambda s: s.reports["beside"].answered == 1, WAIT_S)
    assert site.wait(lambda s: _is_accounted(s.reports["nested"]), WAIT_S), site.reports["nested"]
    assert site.reports["nested"].failed >= 10 * 5
    log = house.log("bridge")
    assert "handler_failed" not in log, log[log.find("handler_failed") - 100 :][:3000]


def test_a_message_that_asks_nothing_is_not_told(house: Cluster, site: Site) -> None:
    _bind(site, "quiet", "quiet/in", "quiet/out", paths={"left": "action"}, every_s=0.0)
    with _listener(house, "quiet/out", EVENT) as caller:
        for payload in (b"null", b"[]", b'{"action": {}}', b'{"other": 1}'):
            caller.send("quiet/in", payload)
        assert _settled(site, "quiet", received=4).passed == 4
        with pytest.raises(queue.Empty):
            caller.answers.get_nowait()
