"""Broken messages on every topic that a living agent listens to: it answers afterwards, with the process it had."""

import random

import paho.mqtt.client as paho
import pytest

from s2m3.client import Client
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.wire.codec import CONTENT_TYPE
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Build, Form, Say
from tests.chaos.fuzzing import INBOX, REQUEST, SURFACES, broken
from tests.frozen import agent_of
from tests.system.plain import PlainCaller, reply_to

_ROOT = "s2m3/v1"
#: What an agent reads -> where it reads it. A plan or an order that is still valid is one: those are left out.
_WHERE = {
    "work": ("module/noop-left/a/in", "module/noop-right/a/in", "module/noop-head/a/in"),
    "answer": ("client/node-a/in",),
    "plain request": ("request/noop",),
    "plan/{node}": ("plan/a",),
    "control/{verb}": ("control/profile", "control/drain", "control/undrain"),
    "node/{node}/load": ("node/z/load",),
    "node/{node}/state": ("node/z/state",),
}
_ORDERS = ("plan/{node}", "control/{verb}")


@pytest.mark.short_on("mosquitto")
def test_an_agent_answers_after_thousands_of_broken_messages_on_all_its_topics(
    build: Build, rng: random.Random, form: Form, say: Say
) -> None:
    rig = build(nodes={"a": 150.0})
    count = 1_000 if form == "short" else 10_000
    with Site(rig.settings) as site, Client(settings=rig.settings) as client:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        pid = agent_of(rig.processes["a"]).pid
        with PlainCaller(rig.broker.port, paho.MQTTv5, (INBOX,)) as caller:
            for _ in range(count):
                _send(caller, rng)
        assert client.ask("noop", left=1, right=2, deadline_s=WAIT_S).value == [1, 2]
        assert agent_of(rig.processes["a"]).pid == pid
        assert "handler_failed" not in rig.log("a"), rig.log("a")[-3000:]
        assert site.nodes.state("a") == "ready"
        say(f"{rig.broker.kind}: {count} broken messages at a living agent, 0 crashes, 0 hangs")


def _send(caller: PlainCaller, rng: random.Random) -> None:
    surface = rng.choice([surface for surface in SURFACES if surface.name in _WHERE])
    payload = broken(rng.choice(surface.valid), rng)
    if surface.name in _ORDERS and surface.take(payload):
        return
    topic = f"{_ROOT}/{rng.choice(_WHERE[surface.name])}"
    properties = None
    if surface.name in ("work", "answer"):
        properties = reply_to(INBOX, REQUEST)
        properties.ContentType = CONTENT_TYPE
        properties.UserProperty = [("step", rng.choice(["image", "rank", ""])), ("attempt", rng.choice(["1", "x"]))]
    caller.send(topic, payload, properties)


@pytest.mark.short_on("embedded")
def test_every_document_that_an_agent_reads_is_sent_to_it() -> None:
    assert {path.pattern for path in topics.ALL if isinstance(path, topics.Topic)} >= {
        name for name in _WHERE if "/" in name
    }
    assert set(_WHERE) <= {surface.name for surface in SURFACES}
