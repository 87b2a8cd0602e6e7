"""What a house sees, on both brokers with real processes: true while it lives, gone when gone, back after restarts."""

import json
from collections.abc import Iterator

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.homeassistant.reader import UNAVAILABLE, Reader

PLANNER, NODE, TASK = "s2m3-planner", "s2m3-node-a", "s2m3-task-noop"


@pytest.fixture(scope="module")
def cluster(kind: BrokerKind) -> Iterator[Cluster]:
    with Cluster({"a": 150.0, "b": 150.0}, kind=kind, threads=1, bridge=True) as cluster:
        yield cluster


@pytest.fixture
def house(cluster: Cluster) -> Cluster:
    """Two light nodes, the task `noop`, and a bridge; what the test before ended is started again."""
    start = {"planner": cluster.start_planner, "bridge": cluster.start_bridge}
    with Site(cluster.settings) as site:
        ended = [name for name, process in cluster.processes.items() if process.poll() is not None]
        before = {node: site.nodes.boot(node) for node in ended if node not in start}
        for name in ended:
            start[name]() if name in start else cluster.start_agent(name)
        add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=10))
        # The last will of a process that was killed may come late: until then its node looks ready.
        back = site.wait(lambda s: all(s.nodes.boot(node) != boot for node, boot in before.items()), WAIT_S)
        assert back, [cluster.log(node) for node in before]
        assert site.wait(lambda s: s.answers("noop") and {"a", "b"} <= s.nodes.ready, WAIT_S), cluster.log("planner")
    return cluster


@pytest.fixture
def reader(house: Cluster) -> Iterator[Reader]:
    with Reader(house.broker.port_v3) as reader:
        assert reader.wait(_all_there, WAIT_S), (reader.topics, house.log("bridge"))
        yield reader


def _all_there(reader: Reader) -> bool:
    there = {PLANNER, NODE, "s2m3-node-b", TASK} <= reader.devices.keys()
    return there and _shows(reader, "on") and reader.state(TASK, "problem") == "none"


def _shows(reader: Reader, word: str) -> bool:
    states = {reader.state(PLANNER, "connectivity"), reader.state(NODE, "connectivity")}
    return states == ({"ON"} if word == "on" else {UNAVAILABLE})


@pytest.mark.short_on("mosquitto")
def test_a_node_killed_is_disconnected_and_its_figures_are_unavailable(house: Cluster, reader: Reader) -> None:
    unmeasured = (UNAVAILABLE, "unknown", "0.0")  # a node's first report may come before it has looked
    assert reader.wait(lambda r: r.state(NODE, "memory-free") not in unmeasured, WAIT_S)
    assert reader.wait(lambda r: r.state(NODE, "queue") == "0", WAIT_S)
    house.kill("a")
    assert reader.wait(lambda r: r.state(NODE, "connectivity") == "OFF", WAIT_S)
    assert reader.state(NODE, "memory-free") == UNAVAILABLE
    house.kill("b")
    assert reader.wait(lambda r: r.state(TASK, "answer") == UNAVAILABLE, WAIT_S)
    reasons = ("no node is ready", "no_capacity")
    said = reader.wait(lambda r: any(reason in r.state(TASK, "problem") for reason in reasons), WAIT_S)
    assert said, reader.state(TASK, "problem")
    house.start_agent("a")
    assert reader.wait(lambda r: r.state(TASK, "answer") != UNAVAILABLE, WAIT_S)


@pytest.mark.short_on("embedded")
def test_without_the_bridge_nothing_claims_to_be_available(house: Cluster, reader: Reader) -> None:
    house.kill("bridge")
    assert reader.wait(lambda r: _shows(r, "off"), WAIT_S)
    assert reader.state(TASK, "answer") == UNAVAILABLE
    house.start_bridge()
    assert reader.wait(_all_there, WAIT_S)


@pytest.mark.short_on("mosquitto")
def test_without_a_planner_its_button_is_unavailable_and_tasks_are_not(house: Cluster, reader: Reader) -> None:
    house.kill("planner")
    assert reader.wait(lambda r: r.state(PLANNER, "connectivity") == "OFF", WAIT_S)
    assert reader.state(TASK, "answer") != UNAVAILABLE


@pytest.mark.short_on("embedded")
def test_when_home_assistant_starts_everything_is_told_again(reader: Reader) -> None:
    reader.forget()
    reader.say("homeassistant/status", "online")
    assert reader.wait(_all_there, WAIT_S)


@pytest.mark.short_on("mosquitto")
def test_after_a_broker_restart_everything_is_back(house: Cluster, reader: Reader) -> None:
    reader.forget()
    house.broker.kill()
    house.broker.start()
    assert reader.wait(_all_there, WAIT_S * 2), house.log("bridge")


@pytest.mark.short_on("embedded")
def test_what_is_removed_leaves_nothing_over(house: Cluster, reader: Reader) -> None:
    with Site(house.settings) as site:
        binding = Binding(source="x", task="noop", input="left", inputs={"right": "r"}, publish="y")
        site.publish(topics.BIND, binding.encode(), binding="x")
        assert site.wait(lambda s: "x" in s.reports, WAIT_S)
        reader.say("x", "hello")
        assert reader.wait(lambda r: any("bridge/answer/" in topic for topic in r.topics), WAIT_S)
        site.publish(topics.BIND, b"", binding="x")
        site.publish(topics.TASK, b"", task="noop")
        house.kill("a")
        assert site.wait(lambda s: s.nodes.state("a") == "lost", WAIT_S)
        for path in (topics.NODE_PROFILE, topics.NODE_REPORTED, topics.NODE_STATE):
            site.publish(path, b"", node="a")
    assert reader.wait(lambda r: not {TASK, NODE} & r.devices.keys(), WAIT_S)
    gone = ("noop", "node/a", "node-a", "binding/x")
    assert reader.wait(lambda r: not [t for t in r.topics if t.endswith(gone) and "answered" not in t], WAIT_S)


@pytest.mark.short_on("mosquitto")
def test_what_was_removed_while_no_bridge_ran_is_cleared_by_the_next(house: Cluster, reader: Reader) -> None:
    house.kill("bridge")
    assert reader.wait(lambda r: _shows(r, "off"), WAIT_S)
    with Site(house.settings) as site:
        site.publish(topics.TASK, b"", task="noop")
    assert TASK in reader.devices
    house.start_bridge("--forget-s", "1")
    assert reader.wait(lambda r: TASK not in r.devices, WAIT_S)
    assert reader.wait(lambda r: _shows(r, "on"), WAIT_S)


@pytest.mark.short_on("embedded")
def test_what_went_while_both_were_down_is_announced_once_more_and_removed_when_home_assistant_is_back(
    house: Cluster, reader: Reader
) -> None:
    """Home Assistant has it in its registry, and removes only what it has been told of since it started."""
    house.kill("bridge")
    house.kill("b")
    with Site(house.settings) as site:
        assert site.wait(lambda s: s.nodes.state("b") == "lost", WAIT_S)
        site.publish(topics.TASK, b"", task="noop")
        for path in (topics.NODE_PROFILE, topics.NODE_REPORTED, topics.NODE_STATE):
            site.publish(path, b"", node="b")
    house.start_bridge("--forget-s", "1")
    gone = {TASK, "s2m3-node-b"}
    assert reader.wait(lambda r: not gone & r.devices.keys(), WAIT_S)
    reader.say("homeassistant/status", "online")
    assert reader.wait(lambda r: gone <= r.devices.keys(), WAIT_S), house.log("bridge")
    assert {"answer", "score", "picture", "question"} <= reader.devices[TASK]["cmps"].keys()
    assert reader.state(TASK, "problem") in (UNAVAILABLE, "unknown")
    assert reader.wait(lambda r: not gone & r.devices.keys(), WAIT_S)


@pytest.mark.short_on("mosquitto")
def test_the_buttons_do_what_they_say(house: Cluster, reader: Reader) -> None:
    with Site(house.settings) as site:
        assert site.wait(lambda s: s.ready("noop"), WAIT_S)
        revision = site.routes["noop"].revision
        reader.press(PLANNER, "replan")
        reader.press(NODE, "drain")
        assert site.wait(lambda s: s.nodes.state("a") == "draining", WAIT_S)
        assert site.wait(lambda s: s.routes["noop"].revision >= revision, WAIT_S)
        assert reader.wait(lambda r: "draining" in (r.payload("s2m3/v1/bridge/node/a") or b"").decode(), WAIT_S)
        reader.press(NODE, "undrain")
        assert site.wait(lambda s: s.nodes.state("a") == "ready", WAIT_S)
    assert reader.state(NODE, "connectivity") == "ON"
    house.kill("a")


@pytest.mark.short_on("embedded")
def test_answers_come_from_plain_callers_and_questions_that_make_no_sense_are_told(
    house: Cluster, reader: Reader
) -> None:
    reader.say("s2m3/v1/request/noop", json.dumps({"inputs": {"left": "l", "right": "r"}}))
    answered = "s2m3/v1/bridge/answered/noop"
    assert reader.wait(lambda r: r.payload(answered) is not None, WAIT_S), house.log("bridge")
    assert json.loads(reader.payload(answered) or b"")["source"] == "plain"
    assert reader.wait(lambda r: r.state(TASK, "answer") not in (UNAVAILABLE, "unknown"), WAIT_S)
    assert reader.attributes(TASK, "answer")["route"]
    reader.say("s2m3/v1/bridge/ask/noop", "what?")
    assert reader.wait(lambda r: "takes no question" in (r.payload(answered) or b"").decode(), WAIT_S)
