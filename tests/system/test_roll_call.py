"""Roll call: what a broker lost, or never gave, is said again by its owner, to whoever misses it."""

import json
import threading

import paho.mqtt.client as paho
import pytest

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.command import s2m3
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller
from tests.system.rest import planned, settled


@pytest.mark.short_on("mosquitto")
def test_status_shows_what_the_broker_has_lost(noop_cluster: Cluster, noop_site: Site) -> None:
    noop_site.publish(topics.PLANNER_STATE, b"")
    noop_site.publish(topics.ROUTE, b"", task="noop")
    assert noop_site.wait(lambda s: s.planner is None and not s.ready("noop"), WAIT_S)
    shown = s2m3("status", "--json", port=noop_cluster.settings.port)
    document = json.loads(shown.stdout)
    assert document["planner"]["state"] == "online", shown.stderr
    assert document["tasks"]["noop"]["ready"]
    assert noop_site.wait(lambda s: s.ready("noop"), WAIT_S), "whoever else had lost it has it again"


@pytest.mark.short_on("embedded")
def test_a_planner_asks_for_a_node_that_it_no_longer_knows(noop_cluster: Cluster, noop_site: Site) -> None:
    for _ in ("may be mended by the roll call of the planner's start", "is mended by one that the planner needs"):
        with PlainCaller(noop_cluster.broker.port, paho.MQTTv5, (topics.NODE_STATE.at(noop_site.root, node="b"),)) as b:
            for path in (topics.NODE_STATE, topics.NODE_PROFILE):
                noop_site.publish(path, b"", node="b")
            while b.message().payload:  # what is retained comes first
                pass
            assert b.answer()["state"] == "ready"
        back = noop_site.wait(lambda s: s.nodes.state("b") == "ready" and "b" in s.profiles and s.ready("noop"), WAIT_S)
        assert back, noop_cluster.log("planner")
    assert "documents_missing" in noop_cluster.log("planner")


@pytest.mark.short_on("mosquitto")
def test_a_planner_that_starts_without_the_nodes_waits_for_them_and_moves_nothing(
    noop_cluster: Cluster, noop_site: Site, noop_client: Client
) -> None:
    before = settled(noop_site)
    noop_cluster.kill("planner")
    # its last will; and with it the nodes' own words are gone: a broker without a memory would have lost all of that
    assert noop_site.wait(lambda s: s.planner is not None and s.planner.state == "offline", 2 * WAIT_S)
    epoch = noop_site.planner.epoch if noop_site.planner else 0
    for node in "abc":
        noop_site.publish(topics.NODE_STATE, b"", node=node)
        noop_site.publish(topics.NODE_PROFILE, b"", node=node)
    noop_cluster.start_planner()
    assert noop_site.wait(lambda s: len(s.plans) == 3 and all(p.epoch > epoch for p in s.plans.values()), 2 * WAIT_S)
    assert planned(noop_site) == before
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]


@pytest.mark.short_on("embedded")
def test_each_owner_answers_and_whatever_is_in_the_message(noop_cluster: Cluster, noop_site: Site, loop: Loop) -> None:
    """An empty message, as a person sends it, and one of a release to come."""
    heard: set[str] = set()
    whole = threading.Event()
    wanted = {"node/a/state", "node/b/profile", "node/c/reported", "planner/state", "task/noop", "route/noop", "plan/a"}

    def note(name: str) -> None:
        heard.add(name)
        if wanted <= heard:
            whole.set()

    def take(message: Message) -> None:
        if not message.retain:  # what was retained before is no answer
            note(message.topic.removeprefix(f"{noop_site.root}/"))

    link = Link(noop_cluster.settings, "roll-call-test", loop)
    link.start()
    ready = threading.Event()
    link.subscribe(f"{noop_site.root}/#", take, on_subscribed=ready.set)
    assert ready.wait(WAIT_S)
    for payload in (b"", b'{"asker": {"a newer": "shape"}, "since": 4}'):
        heard.clear()
        whole.clear()
        noop_site.publish(topics.ROLLCALL, payload)
        assert whole.wait(WAIT_S), wanted - heard
    link.stop()
    assert noop_site.nodes.ready == {"a", "b", "c"}
