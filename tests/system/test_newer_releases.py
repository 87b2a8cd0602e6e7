"""Real agents and what a newer release says to them: it excludes only what it is about, and the rest works."""

import json
import queue
from collections.abc import Iterator
from typing import Any

import msgpack
import paho.mqtt.client as paho
import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.request_ids import new_request_id
from s2m3.schemas.wire.codec import CONTENT_TYPE, encode_work
from s2m3.schemas.wire.work import Hop, Work
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller, reply_to

ROOT = "s2m3/v1"
INBOX = f"{ROOT}/client/newer/in"
NOOP = shipped_catalogue().models["noop"]
HOPS = {
    "left": Hop("noop-left", "a", {"data": "input.left"}, ("code",)),
    "right": Hop("noop-right", "b", {"data": "input.right"}, ("code",)),
}


@pytest.fixture(scope="module")
def agents(kind: BrokerKind) -> Iterator[tuple[Cluster, Site]]:
    """Two agents and no planner: the test says what they hold."""
    with (
        Cluster({"a": 150.0, "b": 150.0}, kind=kind, threads=1, planner=False) as running,
        Site(running.settings) as site,
    ):
        assert site.wait(lambda s: s.nodes.ready == {"a", "b"}, WAIT_S), running.log("a")
        yield running, site


def said(*names: str, **more: Any) -> list[dict[str, Any]]:
    modules = shipped_catalogue().modules
    return [{**json.loads(modules[name].model_dump_json(by_alias=True, exclude_none=True)), **more} for name in names]


def hold(site: Site, node: str, modules: list[dict[str, Any]], revision: int = 1) -> None:
    plan = {"epoch": 1, "revision": revision, "modules": modules, "a-newer-key": {"x": 1}}
    site.publish(topics.PLAN, json.dumps(plan).encode(), node=node)


def states(site: Site, node: str) -> dict[str, str]:
    reported = site.reported.get(node)
    return {name: report.state for name, report in reported.modules.items()} if reported else {}


def route(**more: Any) -> dict[str, Any]:
    """The no-op task over both agents: the head is on b, which takes an output from a."""
    at = {"left": "a", "right": "b", "head": "b"}
    steps = {
        name: {
            "module": step.module,
            "inputs": step.inputs,
            "outputs": list(NOOP.wanted_outputs(name)),
            "replicas": [{"node": at[name], "ms": 1, "joules": 3}],
        }
        for name, step in NOOP.steps.items()
    }
    return {
        "epoch": 1, "revision": 1, "model": "noop", "inputs": dict(NOOP.inputs), "answer": list(NOOP.answer),
        "deadline_s": WAIT_S, "steps": steps, **more,
    }  # fmt: skip


def serve(site: Site) -> None:
    hold(site, "a", said("noop-left", weight="light"))
    hold(site, "b", said("noop-right", "noop-head"))
    wanted = {"a": {"noop-left": "ready"}, "b": {"noop-right": "ready", "noop-head": "ready"}}
    assert site.wait(lambda s: all(states(s, node) == held for node, held in wanted.items()), WAIT_S)


def test_a_module_that_an_agent_cannot_read_is_failed_with_a_reason_and_the_others_load(
    agents: tuple[Cluster, Site],
) -> None:
    running, site = agents
    modules = [*said("noop-left", weight="light"), *said("noop-right", role="hologram"), *said("noop-head")]
    hold(site, "a", modules, revision=0)
    wanted = {"noop-left": "ready", "noop-right": "failed", "noop-head": "ready"}
    assert site.wait(lambda s: states(s, "a") == wanted, WAIT_S), running.log("a")
    reason = site.reported["a"].modules["noop-right"].reason
    assert reason is not None
    assert (reason.code, reason.node) == ("bad_input", "a")
    assert "role" in reason.detail
    assert "bad_document" not in running.log("a")
    hold(site, "a", said("noop-left"), revision=1)
    assert site.wait(lambda s: states(s, "a") == {"noop-left": "ready"}, WAIT_S), running.log("a")


def test_an_input_of_a_kind_that_is_not_known_leaves_the_others_working(agents: tuple[Cluster, Site]) -> None:
    running, site = agents
    serve(site)
    doc = route(inputs={"left": "data", "right": "a-newer-kind", "third": "hologram"})
    site.publish(topics.ROUTE, json.dumps(doc).encode(), task="newer")
    with Client(settings=running.settings) as client:
        assert client.ask("newer", left=1, right=2).value == [1, 2]
        with pytest.raises(BadInputError, match="'right' is missing"):
            client.ask("newer", left=1)
        assert client.ask("newer", left=1, right={"base64": "AAE="}).value == [1, b"\x00\x01"]


def test_what_an_agent_does_not_know_goes_on_to_the_next_step(agents: tuple[Cluster, Site]) -> None:
    """A work message of a newer release, through an agent of this one, as the next step's node gets it."""
    running, site = agents
    serve(site)
    next_in = topics.MODULE_IN.at(ROOT, module="newer", node="z")
    hops = {"left": HOPS["left"], "head": Hop("newer", "z", {"x": "left.code"}, ("y",))}
    work = Work(new_request_id(), "noop", "left", 1, 1, INBOX, {"data": b"7"}, hops, WAIT_S * 1000)
    payload, user = encode_work(work)
    document = msgpack.unpackb(payload)
    document["priority"] = document["route"]["head"]["energy"] = {"joules": [1, 2.5, b"\xff"]}
    properties = reply_to(INBOX, new_request_id())
    properties.ContentType = CONTENT_TYPE
    properties.UserProperty = [*user, ("tracestate", "a=1"), ("tenant", "porch")]
    with PlainCaller(running.broker.port, paho.MQTTv5, (next_in,)) as caller:
        caller.send(topics.MODULE_IN.at(ROOT, module="noop-left", node="a"), msgpack.packb(document), properties)
        message = caller.message()
    found = msgpack.unpackb(message.payload)
    assert (found["priority"], found["route"]) == (document["priority"], document["route"])
    assert message.properties is not None
    pairs = message.properties.UserProperty  # type: ignore[attr-defined]  # paho's attributes come and go
    assert pairs[-2:] == [("tracestate", "a=1"), ("tenant", "porch")]


def test_work_of_another_content_type_is_answered_bad_input(agents: tuple[Cluster, Site]) -> None:
    running, site = agents
    serve(site)
    payload, user = encode_work(
        Work(new_request_id(), "noop", "left", 1, 1, INBOX, {"data": b"7"}, {"left": HOPS["left"]}, WAIT_S * 1000)
    )
    properties = reply_to(INBOX, new_request_id())
    properties.ContentType = "application/json"
    properties.UserProperty = list(user)
    with PlainCaller(running.broker.port, paho.MQTTv5, (INBOX,)) as caller:
        caller.send(topics.MODULE_IN.at(ROOT, module="noop-left", node="a"), payload, properties)
        answer = msgpack.unpackb(caller.message().payload)
    assert answer["error"]["code"] == "bad_input"
    assert "application/json" in answer["error"]["detail"]


@pytest.mark.parametrize("protocol", [4, 5])
def test_a_plain_request_of_a_newer_release_is_answered_and_what_was_passed_over_is_named(
    agents: tuple[Cluster, Site], protocol: int
) -> None:
    running, site = agents
    serve(site)
    site.publish(topics.ROUTE, json.dumps(route()).encode(), task="plain")
    plan = {"epoch": 1, "revision": 2, "modules": said("noop-right", "noop-head"), "fronts": ["plain"]}
    site.publish(topics.PLAN, json.dumps(plan).encode(), node="b")
    port = running.broker.port if protocol == 5 else running.broker.port_v3
    response = topics.RESPONSE.at(ROOT, task="plain")
    body = {"inputs": {"left": 1, "right": 2}, "voice": "soft", "options": {"beams": 4}, "transaction": protocol}
    with PlainCaller(port, protocol, (response,)) as caller:
        answer = _asked_until_taken(caller, body)
    assert answer["answer"] == [1, 2]
    assert answer["ignored"] == ["options.beams", "voice"]


def _asked_until_taken(caller: PlainCaller, body: dict[str, Any]) -> dict[str, Any]:
    """The gateway's session begins when it connects: nobody opened it before, as a planner does."""
    for _ in range(int(WAIT_S)):
        caller.send(f"{ROOT}/request/plain", json.dumps(body).encode())
        try:
            found: dict[str, Any] = json.loads(caller.answers.get(timeout=1.0).payload)
        except queue.Empty:
            continue
        if found["transaction"] == body["transaction"]:
            return found
    raise AssertionError("no gateway took the request")


def test_a_client_s_misspelt_option_is_refused(agents: tuple[Cluster, Site]) -> None:
    """Python and the command line are no bus: a mistake there is named."""
    running, site = agents
    serve(site)
    doc = route()
    doc["steps"]["head"]["generates"] = "echo"
    site.publish(topics.ROUTE, json.dumps({**doc, "options": {"a-newer-option": 1}}).encode(), task="writes")
    with Client(settings=running.settings) as client:
        with pytest.raises(BadInputError, match="max_tokns"):
            client.ask("writes", left=1, right=2, options={"max_tokns": 4})
        assert client.ask("writes", left=1, right=2, options={"max_tokens": 4}).value == [1, 2]


def test_a_state_that_no_release_of_today_has_does_not_hide_the_node(agents: tuple[Cluster, Site]) -> None:
    _, site = agents
    serve(site)
    site.publish(topics.NODE_STATE, b'{"state": "napping", "boot": "z", "since": 4}', node="z")
    assert site.wait(lambda s: s.nodes.state("z") == "unknown", WAIT_S)
    assert "z" in site.nodes.present
    assert "z" not in site.nodes.ready | site.nodes.lost
    site.publish(topics.NODE_STATE, b"", node="z")
    assert site.wait(lambda s: s.nodes.state("z") is None, WAIT_S)
    assert isinstance(site.plans["b"], m.Plan)
