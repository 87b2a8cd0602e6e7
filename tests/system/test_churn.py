"""Nodes and planner come and go while requests run: all are answered, and only what was lost moves."""

import json
import signal
from itertools import takewhile
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.command import s2m3
from tests.conftest import WAIT_S
from tests.frozen import freeze
from tests.system.plain import PlainCaller
from tests.system.rest import planned, settled

_ROLL_CALL = "s2m3/v1/rollcall"
_PLACEMENT = ("s2m3/v1/plan/+", "s2m3/v1/route/+")


def _gateway(site: Site) -> str:
    assert site.wait(lambda s: any("noop" in plan.gateways for plan in s.plans.values()), WAIT_S)
    return next(node for node, plan in site.plans.items() if "noop" in plan.gateways)


def _holder(site: Site) -> str:
    return site.routes["noop"].steps["head"].replicas[0].node


@pytest.mark.short_on("mosquitto")
def test_a_killed_nodes_modules_come_back_elsewhere_and_waiting_requests_are_answered(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    victim = _holder(noop_site)
    noop_cluster.kill(victim)
    replies = [noop_client.submit("noop", left=i, right=i) for i in range(20)]
    assert [reply.result(WAIT_S).value for reply in replies] == [[i, i] for i in range(20)]
    assert victim not in {node for reply in replies for node in reply.result().route.values()}
    assert noop_site.wait(lambda s: s.nodes.state(victim) == "lost", WAIT_S)


@pytest.mark.short_on("embedded")
def test_requests_under_way_when_a_node_dies_are_answered(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    replies = [noop_client.submit("noop", left=i, right=i) for i in range(200)]
    noop_cluster.kill(_holder(noop_site))
    replies += [noop_client.submit("noop", left=i, right=i) for i in range(200, 400)]
    assert [reply.result(WAIT_S).value for reply in replies] == [[i, i] for i in range(400)]


@pytest.mark.short_on("mosquitto")
def test_a_node_that_returns_is_ready_again_and_23_a_second_one_of_its_name_is_refused(
    noop_cluster: Cluster, noop_site: Site
) -> None:
    second = s2m3("agent", "--node", "a", port=noop_cluster.settings.port)
    assert second.returncode == 1
    assert "s2m3: name_taken: another agent runs as node 'a' on this broker" in second.stderr
    assert "agent_died" not in second.stderr  # its supervisor does not start it again
    noop_cluster.check()
    assert noop_site.nodes.state("a") == "ready"
    noop_cluster.kill("a")
    assert noop_site.wait(lambda s: s.nodes.state("a") == "lost", WAIT_S)
    noop_cluster.start_agent("a")
    assert noop_site.wait(lambda s: s.nodes.state("a") == "ready", WAIT_S)


@pytest.mark.short_on("embedded")
def test_requests_go_on_without_a_planner(noop_cluster: Cluster, noop_client: Client, noop_site: Site) -> None:
    noop_cluster.kill("planner")
    assert noop_site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S)
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]


@pytest.mark.short_on("mosquitto")
def test_a_new_planner_takes_over_what_it_finds_and_moves_nothing(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    before = settled(noop_site)
    old = noop_site.planner
    noop_cluster.kill("planner")
    noop_cluster.start_planner()
    assert old is not None
    assert noop_site.wait(
        lambda s: s.planner is not None and s.planner.state == "online" and s.planner.epoch > old.epoch, WAIT_S
    )
    epoch = noop_site.planner.epoch if noop_site.planner else 0
    assert noop_site.wait(lambda s: all(plan.epoch == epoch for plan in s.plans.values()), WAIT_S)
    assert planned(noop_site) == before
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]


@pytest.mark.short_on("embedded")
def test_plain_requests_that_wait_when_the_gateway_dies_are_answered_by_the_next_gateway(
    noop_cluster: Cluster, noop_site: Site
) -> None:
    gateway = _gateway(noop_site)
    with PlainCaller(noop_cluster.broker.port_v3, paho.MQTTv311, ("s2m3/v1/response/noop",)) as caller:
        freeze(noop_cluster.processes[gateway])  # it holds what it was sent, and answers nothing
        for i in range(20):
            document = {"transaction": i, "inputs": {"left": i, "right": i}, "deadline_s": 20}
            caller.send("s2m3/v1/request/noop", json.dumps(document).encode())
        noop_cluster.kill(gateway)
        answered: dict[int, Any] = {}
        while len(answered) < 20:
            answer = caller.answer()
            assert answer["status"] == "ok", answer
            answered[answer["transaction"]] = answer["answer"]
    assert answered == {i: [i, i] for i in range(20)}
    assert noop_site.wait(lambda s: s.gateway("noop") not in (None, gateway), WAIT_S), noop_site.plans


@pytest.mark.short_on("mosquitto")
def test_plain_requests_sent_before_any_node_is_there_wait_for_one(noop_cluster: Cluster, noop_site: Site) -> None:
    for node in ("a", "b", "c"):
        noop_cluster.kill(node)
    assert noop_site.wait(lambda s: s.nodes.lost == {"a", "b", "c"}, WAIT_S)
    with PlainCaller(noop_cluster.broker.port_v3, paho.MQTTv311, ("s2m3/v1/response/noop",)) as caller:
        caller.send("s2m3/v1/request/noop", b'{"transaction": "early", "inputs": {"left": 1, "right": 2}}')
        noop_cluster.start_agent("b")
        answer = caller.answer()
    assert answer["answer"] == [1, 2]


@pytest.mark.short_on("embedded")
def test_a_drained_node_gives_its_modules_away_without_failing_a_request(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    node = _holder(noop_site)
    replies = [noop_client.submit("noop", left=i, right=i) for i in range(100)]
    noop_cluster.processes[node].send_signal(signal.SIGTERM)
    replies += [noop_client.submit("noop", left=i, right=i) for i in range(100, 200)]
    assert [reply.result(WAIT_S).value for reply in replies] == [[i, i] for i in range(200)]
    assert noop_cluster.processes[node].wait(WAIT_S) == 0
    with Client(settings=noop_cluster.settings) as late:  # it has the newest route, and the other perhaps not yet
        assert late.ask("noop", left=1, right=2).attempts == 1


@pytest.mark.short_on("mosquitto")
def test_a_removed_task_leaves_nothing_behind(noop_cluster: Cluster, noop_site: Site) -> None:
    noop_site.publish(topics.TASK, b"", task="noop")
    assert noop_site.wait(lambda s: "noop" not in s.routes, WAIT_S)
    assert noop_site.wait(lambda s: not any(plan.modules or plan.gateways for plan in s.plans.values()), WAIT_S)
    assert noop_site.wait(lambda s: not any(reported.modules for reported in s.reported.values()), WAIT_S)
    assert all(process.poll() is None for process in noop_cluster.processes.values())


def _until(listener: PlainCaller, marker: str) -> list[paho.MQTTMessage]:
    """What came before the marker's message."""
    return list(takewhile(lambda message: message.topic != marker, iter(listener.message, None)))


def _content(message: paho.MQTTMessage) -> dict[str, Any]:
    """A plan or a route without what tells it from the one before."""
    document: dict[str, Any] = json.loads(message.payload or b"{}")
    return {key: value for key, value in document.items() if key not in ("epoch", "revision")}


@pytest.mark.short_on("embedded")
def test_a_change_is_told_in_the_documents_concerned_and_no_other(noop_cluster: Cluster, noop_site: Site) -> None:
    """Under load, a lost node and a new one: whoever is not concerned hears nothing, nobody hears the same twice."""
    marker = "marker/after-what-is-retained"
    with (
        PlainCaller(noop_cluster.broker.port, paho.MQTTv5, (*_PLACEMENT, _ROLL_CALL, marker)) as listener,
        Client(settings=noop_cluster.settings) as client,
    ):
        listener.send(marker, b"")
        before = _until(listener, marker)
        victim = _holder(noop_site)
        replies = [client.submit("noop", left=i, right=i) for i in range(300)]
        noop_cluster.kill(victim)
        assert [reply.result(WAIT_S).value for reply in replies] == [[i, i] for i in range(300)]
        noop_cluster.start_agent(victim)
        assert noop_site.wait(lambda s: s.nodes.state(victim) == "ready" and s.ready("noop"), WAIT_S)
        assert noop_site.wait(lambda s: victim in s.plans, WAIT_S)
        listener.send(marker, b"")
        told = _until(listener, marker)
    last = {message.topic: _content(message) for message in before}
    for message in told:
        if message.topic == _ROLL_CALL:  # all documents come again: a node that starts slowly is missed for a while
            last.clear()
            continue
        content = _content(message)
        is_new = message.retain or last.get(message.topic) != content  # retained: the listener had to connect again
        assert is_new, f"{message.topic} was told the same twice: {[(m.topic, m.payload) for m in told]}"
        last[message.topic] = content
    assert sum("/plan/" in message.topic for message in told) < 20  # routes follow measured times too
