"""A gateway on a real broker of each kind: what devices send, and what they hear."""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import paho.mqtt.client as paho
import pytest
from prometheus_client import REGISTRY

from s2m3.broker.event_loop import Loop
from s2m3.broker.servers.launch import Broker
from s2m3.schemas.settings import AgentSettings, BrokerSettings
from tests.agents.door import Door, question
from tests.conftest import WAIT_S
from tests.others import others_answered
from tests.system.plain import PlainCaller, properties_of, reply_to

#: Largest message of the gateway's agent, bytes; the brokers take larger ones.
LIMIT = 200_000
Ask = Callable[..., PlainCaller]


@pytest.fixture
def door(settings: BrokerSettings, loop: Loop) -> Iterator[Door]:
    made = Door(AgentSettings(port=settings.port, root=settings.root, node="n", max_message_mb=LIMIT / 1e6), loop)
    yield made
    made.stop()


@pytest.fixture
def caller(door: Door, shared_broker: Broker) -> Ask:
    """Makes callers that listen on topics under the root."""

    def make(*topics: str, protocol: int = paho.MQTTv311) -> PlainCaller:
        port = shared_broker.port if protocol == paho.MQTTv5 else shared_broker.port_v3
        return PlainCaller(port, protocol, tuple(f"{door.settings.root}/{topic}" for topic in topics))

    return make


@pytest.fixture
def others(door: Door, shared_broker: Broker) -> Callable[[], AbstractContextManager[None]]:
    """Others ask the same task meanwhile, and hear their answers on a topic of their own."""
    mine = f"others/{door.settings.root}"

    @contextmanager
    def asking() -> Iterator[None]:
        with PlainCaller(shared_broker.port, paho.MQTTv5, (mine,)) as other:

            def ask() -> None:
                other.send(f"{door.settings.root}/request/t", question("other"), reply_to(mine, b"o"))
                assert other.answer()["answer"] == "other"

            with others_answered(ask):
                yield

    return asking


def _passed(why: str) -> float:
    return REGISTRY.get_sample_value("s2m3_plain_passed_total", {"why": why}) or 0.0


def test_6_an_empty_message_is_nobodys_request(door: Door, caller: Ask) -> None:
    request, before = f"{door.settings.root}/request/t", _passed("empty")
    door.open()
    with caller("response/t") as device:
        for topic in (request, f"{request}/x", f"{request}/x/cam"):
            device.client.publish(topic, b"", qos=1, retain=True).wait_for_publish(WAIT_S)
        device.send(request, question("a", 1))
        assert device.answer()["transaction"] == 1
    assert _passed("empty") == before + 3
    assert door.events == []


def test_7_a_request_that_is_published_retained_is_answered_once_and_not_by_the_next_gateway(
    door: Door, caller: Ask
) -> None:
    request = f"{door.settings.root}/request/t"
    with caller("response/t") as device:
        device.client.publish(request, question("before", 1), qos=1, retain=True).wait_for_publish(WAIT_S)
        door.open()
        assert device.answer()["transaction"] == 1
        device.client.publish(f"{request}/x/cam", b"live", qos=1, retain=True).wait_for_publish(WAIT_S)
        assert device.answer()["transaction"] == "cam"
        door.settle()
        door.close()
        door.open()
        device.send(request, question("after", 2))
        assert device.answer()["transaction"] == 2
        assert device.answers.empty()
        for topic in (request, f"{request}/x/cam"):
            device.client.publish(topic, b"", qos=1, retain=True).wait_for_publish(WAIT_S)


def test_8_raw_bytes_carry_their_transaction_in_the_topic(door: Door, caller: Ask) -> None:
    request = f"{door.settings.root}/request/t/x"
    door.open()
    with caller("response/t") as device:
        for name in ("cam-1", "Cam 2", "7"):
            device.send(f"{request}/{name}", f"seen by {name}".encode())
        answers = [device.answer() for _ in range(3)]
        assert {a["transaction"]: a["answer"] for a in answers} == {n: f"seen by {n}" for n in ("cam-1", "Cam 2", "7")}
        device.send(f"{request}/cam-1", b"\xff\xfe")
        refused = device.answer()
        assert (refused["error"]["code"], refused["transaction"]) == ("bad_input", "cam-1")
        device.send(f"{request}/{'n' * 257}", b"a")
        assert device.answer()["error"]["code"] == "bad_input"
        device.send(f"{request}/", b"none")
        assert (answer := device.answer())["transaction"] is None
        assert answer["answer"] == "none"


def test_9_a_small_device_hears_the_answer_alone_and_of_a_failure_nothing(door: Door, caller: Ask) -> None:
    request = f"{door.settings.root}/request/t"
    door.open()
    with caller("response/t/value") as small, caller("response/t") as other:
        other.send(request, b"no JSON")
        assert other.answer()["status"] == "error"
        other.send(request, question("Grüße"))
        other.answer()
        value = small.message()
        assert (value.payload.decode(), value.retain) == ("Grüße", False)
        other.send(request, question("long" * 2_000))
        assert len(other.answer()["answer"]) == 8_000
        other.send(request, question("short again"))
        other.answer()
        assert small.message().payload == b"short again"  # what is long for a small device was not sent to it


def test_9_a_v5_caller_has_the_answer_alone_by_its_response_topic_and_a_failure_in_full(
    door: Door, caller: Ask
) -> None:
    request, value = f"{door.settings.root}/request/t", f"{door.settings.root}/response/t/value"
    door.open()
    with (
        caller("response/t/value") as small,
        caller("response/t") as other,
        caller("none", protocol=paho.MQTTv5) as asker,
    ):
        asker.send(request, question("a"), reply_to(value, b"1"))
        assert small.message().payload == b"a"
        asker.send(request, question("a" * 5_000, 1), reply_to(value, b"1"))
        too_large = other.answer()
        assert (too_large["error"]["code"], too_large["transaction"]) == ("too_large", 1)
        asker.send(request, question("a", 2, deadline_s=-1), reply_to(value, b"1"))
        assert other.answer()["error"]["code"] == "bad_input"
        assert small.answers.empty()


def test_38_a_request_over_the_agents_limit_is_answered_with_a_code(
    door: Door, caller: Ask, others: Callable[[], AbstractContextManager[None]]
) -> None:
    """Mosquitto delivers nothing over a client's own Maximum Packet Size, and tells nobody."""
    request = f"{door.settings.root}/request/t"
    door.open()
    with caller("response/t") as device, caller("mine", protocol=paho.MQTTv5) as newer:
        with others():
            device.send(request, question("a" * LIMIT, 1))
            device.send(f"{request}/x/cam", b"a" * (LIMIT + 1))
            device.send(f"{request}/x", b"a" * 5_000_000)
            answers = [device.answer() for _ in range(3)]
        assert [answer["error"]["code"] for answer in answers] == ["too_large"] * 3
        assert [answer["transaction"] for answer in answers] == [1, "cam", None]
        assert "5000000 bytes" in answers[2]["error"]["detail"]
        mine = f"elsewhere/{door.settings.root}"
        newer.client.subscribe(mine, qos=1)
        newer.send(f"{request}/x", b"a" * 2_000_000, reply_to(mine, b"17"))
        assert json.loads((message := newer.message()).payload)["error"]["code"] == "too_large"
        assert properties_of(message).CorrelationData == b"17"
        device.send(f"{request}/x", b"a" * 50_000)
        assert len(device.answer()["answer"]) == 50_000


def test_38_an_answer_over_the_limit_keeps_the_transaction_in_the_error_that_replaces_it(
    door: Door, caller: Ask
) -> None:
    door.open()
    with caller("response/t") as device:
        for topic, payload in (("request/t", question("slow", 7)), ("request/t/x/cam", b"slow")):
            device.send(f"{door.settings.root}/{topic}", payload)
            door.answer(door.held.get(timeout=WAIT_S), text='"' * (LIMIT - 1_000))  # in JSON twice as long
        answers = [device.answer() for _ in range(2)]
    assert [answer["error"]["code"] for answer in answers] == ["too_large"] * 2
    assert [answer["transaction"] for answer in answers] == [7, "cam"]


def test_32_a_slow_request_stops_nobody_and_is_answered_once(
    door: Door, caller: Ask, others: Callable[[], AbstractContextManager[None]]
) -> None:
    request = f"{door.settings.root}/request/t"
    door.open()
    with caller("response/t") as device, others():
        device.send(request, question("slow", "slow"))
        slow = door.held.get(timeout=WAIT_S)
        for i in range(300):
            device.client.publish(request, question("a", i), qos=1)
        assert sorted(device.answer()["transaction"] for _ in range(300)) == list(range(300))
        door.answer(slow)
        assert device.answer()["transaction"] == "slow"
        device.send(request, question("last", "last"))
        assert device.answer()["transaction"] == "last"
        assert door.held.empty()


def test_32_a_slow_request_is_the_next_gateways_when_the_first_one_ends(door: Door, caller: Ask) -> None:
    request = f"{door.settings.root}/request/t"
    door.open()
    with caller("response/t") as device:
        device.send(request, question("slow", "slow"))
        door.held.get(timeout=WAIT_S)
        for i in range(100):
            device.client.publish(request, question("a", i), qos=1)
        for _ in range(100):
            device.answer()
        door.close()
        door.open()
        door.answer(door.held.get(timeout=WAIT_S))
        # what was answered behind it and not acknowledged yet may come twice
        while (answer := device.answer())["transaction"] != "slow":
            assert answer["transaction"] in range(100)
        assert answer["answer"] == "slow"
