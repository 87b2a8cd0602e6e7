"""Bindings on both brokers, with real processes: any message becomes a task's input, and its answer goes on."""

import json
import queue
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from tests import command
from tests.conftest import WAIT_S
from tests.frozen import freeze, thaw
from tests.homeassistant.reader import Reader
from tests.system.plain import PlainCaller

V3 = 4
EVENT = "s2m3/v1/event"


@pytest.fixture(scope="module")
def house(kind: BrokerKind) -> Iterator[Cluster]:
    """One light node, the task `noop`, and the bridge."""
    with Cluster({"a": 150.0}, kind=kind, threads=1, bridge=True) as cluster:
        with Site(cluster.settings) as site:
            add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=10))
            assert site.wait(lambda s: s.answers("noop") and _bridge_is(s, "online"), WAIT_S), cluster.log("bridge")
        yield cluster


@pytest.fixture
def site(house: Cluster) -> Iterator[Site]:
    with Site(house.settings) as site:
        yield site
        for name in list(site.bindings):
            site.publish(topics.BIND, b"", binding=name)
        assert site.wait(lambda s: not s.bindings and not s.reports, WAIT_S)


def _bridge_is(site: Site, state: str) -> bool:
    return site.bridge is not None and site.bridge.state == state


def _epoch(site: Site) -> int:
    return site.bridge.epoch if site.bridge is not None else 0


def _bind(site: Site, name: str, source: str, publish: str, **fields: Any) -> None:
    fields = {"input": "left", "inputs": {"right": "r"}, "every_s": 0.0, **fields}
    binding = Binding(source=source, task="noop", publish=publish, **fields)
    site.publish(topics.BIND, binding.encode(), binding=name)
    assert site.wait(lambda s: name in s.reports, WAIT_S)


def _s2m3(house: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    return command.s2m3(*words, port=house.settings.port)


class _Listener(PlainCaller):
    """Hears of events only those of requests: planner and nodes tell of themselves when they like."""

    def __init__(self, port: int, names: tuple[str, ...]) -> None:
        super().__init__(port, V3, names)
        self.client.on_message = lambda _c, _u, message: self._take(message)

    def _take(self, message: paho.MQTTMessage) -> None:
        if message.topic != EVENT or json.loads(message.payload)["event"] == "request_failed":
            self.answers.put(message)


def _listener(house: Cluster, *names: str) -> PlainCaller:
    return _Listener(house.broker.port_v3, names)


def test_the_command_binds_a_topic_and_a_3_1_1_publisher_gets_its_answer(house: Cluster, site: Site) -> None:
    words = ["bind", "cmd/+/door", "--task", "noop", "--input", "left", "--set", "right=r", "--publish", "cmd/{1}/said"]
    done = _s2m3(house, *words, "--name", "cmd")
    assert done.returncode == 0, done.stderr
    with _listener(house, "cmd/+/said") as caller:
        caller.send("cmd/gateway/door", b"knock")
        message = caller.message()
    assert message.topic == "cmd/gateway/said"
    answer = json.loads(message.payload)
    assert answer["transaction"] == "cmd/gateway/door"
    assert answer["status"] == "ok"
    assert site.wait(lambda s: "cmd" in s.reports and s.reports["cmd"].published == 1, WAIT_S)
    listed = json.loads(_s2m3(house, "bindings", "--json").stdout)
    assert listed["cmd"]["state"] == "active"
    assert _s2m3(house, "unbind", "cmd").returncode == 0
    assert site.wait(lambda s: not s.bindings and not s.reports, WAIT_S)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (["x/+", "--input", "left", "--publish", "x/{1}"], "never end"),
        (["x", "--publish", "s2m3/v1/plan/a"], "under s2m3/v1"),
        (["x", "--publish", "y", "--set", "left=l", "--path", "right=a["], "JMESPath"),
        (["x", "--publish", "y", "--set", "middle=1"], "no input 'middle'"),
        (["x", "--publish", "y", "--input", "left", "--set", "left=1"], "given twice"),
        (["x", "--publish", "y", "--input", "left", "--above", "0.5", "--set", "right=r"], "no score"),
    ],
)
def test_the_command_refuses_what_cannot_work(house: Cluster, words: list[str], why: str) -> None:
    done = _s2m3(house, "bind", "--task", "noop", *words)
    assert done.returncode == 2
    assert why in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_bindings_of_overlapping_topics_answer_each_message_once_each(house: Cluster, site: Site) -> None:
    _bind(site, "one", "over/+/x", "got/one")
    _bind(site, "two", "over/#", "got/two")
    with _listener(house, "got/#") as caller:
        for i in range(5):
            caller.send("over/a/x", b"%d" % i)
            assert {caller.message().topic for _ in range(2)} == {"got/one", "got/two"}
        assert caller.answers.empty()


def test_a_loop_over_two_bindings_is_refused_by_the_bridge_and_broken_by_removing_one(site: Site) -> None:
    _bind(site, "to", "ring/a", "ring/b")
    _bind(site, "back", "ring/b", "ring/a")
    assert site.wait(lambda s: {r.state for r in s.reports.values()} == {"refused"}, WAIT_S)
    assert "to -> back -> to" in str(site.reports["to"].error)
    site.publish(topics.BIND, b"", binding="back")
    assert site.wait(lambda s: s.reports["to"].state == "active", WAIT_S)


def test_a_message_that_is_no_request_is_answered_with_its_error_and_counted(house: Cluster, site: Site) -> None:
    _bind(site, "json", "bad/in", "bad/out", input=None, paths={"left": "image"})
    with _listener(house, "bad/out", EVENT) as caller:
        caller.send("bad/in", b"no JSON")
        documents = [caller.answer() for _ in range(2)]  # where the answer would come, and as an event
        (error,) = [document["error"] for document in documents if "error" in document]
        assert error["code"] == "bad_input"
        assert "not JSON" in error["detail"]
        caller.send("bad/in", b'{"image": "fine"}')
        assert caller.answer()["status"] == "ok"
    assert site.wait(lambda s: s.reports["json"].failed == 1 and s.reports["json"].answered == 1, WAIT_S)


def test_what_was_retained_before_anybody_listened_is_passed_over(house: Cluster, site: Site) -> None:
    with _listener(house, "old/out") as caller:
        caller.client.publish("old/in", b"stale", qos=1, retain=True).wait_for_publish(WAIT_S)
        _bind(site, "old", "old/in", "old/out")
        caller.client.publish("old/in", b"new", qos=1, retain=True).wait_for_publish(WAIT_S)
        assert caller.answer()["status"] == "ok"
        assert site.wait(lambda s: s.reports["old"].published == 1, WAIT_S)
        assert site.reports["old"].received == 1


def test_a_retained_answer_stays_for_those_who_come_later(house: Cluster, site: Site) -> None:
    _bind(site, "keep", "keep/in", "keep/out", retain=True)
    with _listener(house, "keep/out") as caller:
        caller.send("keep/in", b"x")
        caller.message()
    with _listener(house, "keep/out") as later:
        assert later.message().retain
        later.client.publish("keep/out", b"", qos=1, retain=True).wait_for_publish(WAIT_S)


@pytest.mark.short_on("mosquitto")
def test_a_bridge_killed_and_started_again_takes_its_bindings_up(house: Cluster, site: Site) -> None:
    _bind(site, "again", "again/in", "again/out")
    house.kill("bridge")
    assert site.wait(lambda s: _bridge_is(s, "offline"), WAIT_S)
    house.start_bridge()
    assert site.wait(lambda s: _bridge_is(s, "online"), WAIT_S)
    with _listener(house, "again/out") as caller:
        answered = False
        while not answered:  # until the new bridge's own connection has subscribed
            caller.send("again/in", b"x")
            with suppress(queue.Empty):
                answered = json.loads(caller.answers.get(timeout=0.5).payload)["status"] == "ok"


@pytest.mark.short_on("embedded")
def test_a_second_bridge_stands_by_and_takes_over_when_the_first_hangs_or_dies(house: Cluster, site: Site) -> None:
    first, before = house.processes["bridge"], _epoch(site)
    house._spawn("second", "bridge")  # noqa: SLF001  # a cluster has one bridge
    assert site.wait(lambda _: "standing_by" in house.log("second"), WAIT_S)
    assert _epoch(site) == before
    add_task(site, "brief", m.TaskSpec(model="noop"))
    assert site.wait(lambda s: s.ready("brief"), WAIT_S)
    freeze(first)
    assert site.wait(lambda s: _bridge_is(s, "online") and _epoch(s) > before, 2 * WAIT_S), house.log("second")
    site.publish(topics.TASK, b"", task="brief")
    assert site.wait(lambda s: "brief" not in s.routes, WAIT_S)
    thaw(first)
    assert site.wait(lambda _: "superseded" in house.log("bridge"), WAIT_S)
    assert site.wait(lambda _: "standing_by" in house.log("bridge"), WAIT_S)
    with Reader(house.broker.port_v3) as reader:  # one that slept does not tell what it remembers
        assert reader.wait(lambda r: "s2m3-task-noop" in r.devices, WAIT_S)  # it listens
        reader.say("homeassistant/marker", "behind all that is retained")
        assert reader.wait(lambda r: "homeassistant/marker" in r.topics, WAIT_S)
        forgotten_s = 30 + WAIT_S  # where the second had not heard of it before it went
        assert reader.wait(lambda r: "s2m3-task-brief" not in r.devices, forgotten_s), house.log("bridge")
        assert reader.wait(lambda r: "s2m3/v1/bridge/task/brief" not in r.topics, WAIT_S)
    assert _bridge_is(site, "online")
    taken = _epoch(site)
    _bind(site, "after", "after/in", "after/out")
    house.kill("second")
    assert site.wait(lambda s: _bridge_is(s, "online") and _epoch(s) > taken, WAIT_S), house.log("bridge")
    assert site.wait(lambda _: house.log("bridge").count("binding_active binding=after") == 1, WAIT_S)
    assert first.poll() is None


@pytest.mark.short_on("mosquitto")
def test_a_bridge_that_is_told_to_end_says_so_before_it_goes(house: Cluster, site: Site) -> None:
    house.processes["bridge"].send_signal(signal.SIGTERM)
    assert house.processes["bridge"].wait(WAIT_S) == 0
    assert site.wait(lambda s: _bridge_is(s, "offline"), WAIT_S)
    house.start_bridge()
    assert site.wait(lambda s: _bridge_is(s, "online"), WAIT_S)
