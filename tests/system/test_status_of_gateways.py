"""What `s2m3 status` says of a ready task whose plain requests nobody takes, by the documents of a site."""

import json
import os
import subprocess
import sys
import threading

import paho.mqtt.client as paho
import pytest

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.document import Document
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from tests import command
from tests.broker.test_link import linked
from tests.conftest import WAIT_S
from tests.others import others_answered
from tests.system.plain import PlainCaller

TASKS = 70
_STATUS, _TASKS = ("status", "--json"), ("task", "ls", "--json")


def _tell(link: Link, topic: topics.Topic[Document], document: Document, **ids: str) -> None:
    told = threading.Event()
    link.publish(Outgoing(topic.at(link.root, **ids), document.encode(), retain=True), on_delivered=told.set)
    assert told.wait(WAIT_S)


def _site(link: Link) -> None:
    """One node whose open files allow one gateway, and two tasks, both ready."""
    profile = m.NodeProfile(
        boot="b", version="1", memory_mb=9, runtime_mb=1, gflops=2, latency_ms=1, mbps=10, most_gateways=1
    )
    step = m.RouteStep(module="x", inputs={"x": "input.x"}, outputs=["y"], replicas=[m.Replica(node="a", ms=1)])
    route = m.RouteDoc(
        epoch=1, revision=1, model="noop", inputs={"x": "text"}, answer=["y"], deadline_s=30, steps={"step": step}
    )
    _tell(link, topics.NODE_PROFILE, profile, node="a")  # type: ignore[arg-type]  # a topic of one kind of document
    _tell(link, topics.NODE_STATE, m.NodeState(state="ready", boot="b"), node="a")  # type: ignore[arg-type]
    _tell(link, topics.PLAN, m.Plan(epoch=1, revision=1, gateways=["first"]), node="a")  # type: ignore[arg-type]
    for task in ("first", "second"):
        _tell(link, topics.TASK, m.TaskSpec(model="noop"), task=task)  # type: ignore[arg-type]
        _tell(link, topics.ROUTE, route, task=task)  # type: ignore[arg-type]


def _asked(settings: BrokerSettings, *words: str) -> subprocess.CompletedProcess[str]:
    asked = [sys.executable, "-m", "s2m3", *words, "--port", str(settings.port), "--root", settings.root]
    environment = {**os.environ, "COLUMNS": "300"}
    return subprocess.run(asked, capture_output=True, text=True, timeout=60, check=False, env=environment)


@pytest.mark.short_on("mosquitto")
def test_40_a_task_without_a_gateway_is_shown_with_the_reason(settings: BrokerSettings, loop: Loop) -> None:
    with linked(settings, loop, "tells-a-site") as link:
        _site(link)
        shown = _asked(settings, "status")
        document, listed = (json.loads(_asked(settings, *words).stdout) for words in (_STATUS, _TASKS))
    assert shown.returncode == 0, shown.stderr
    (first,) = [line for line in shown.stdout.splitlines() if line.split()[:1] == ["first"]]
    (second,) = [line for line in shown.stdout.splitlines() if line.split()[:1] == ["second"]]
    assert "no gateway" not in first
    assert "ready, no gateway" in second
    (why,) = [line for line in shown.stdout.splitlines() if line.startswith("second: ")]
    assert "plain requests wait" in why
    assert "a (1)" in why
    assert {name: task["ready"] for name, task in document["tasks"].items()} == {"first": True, "second": False}
    assert {row["task"]: row["state"] for row in listed} == {"first": "ready", "second": "ready, no gateway"}


class _FewFiles(Cluster):
    """Its agent may have 64 files open."""

    def start_agent(self, node: str) -> None:
        words = [sys.executable, "-m", "s2m3", "agent", "--port", str(self.settings.port), "--node", node]
        with (self.folder / f"{node}.log").open("ab") as log:
            self.processes[node] = subprocess.Popen(
                ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *words, "--memory-mb", "150", "--parts-mb", "0"],
                stdout=log,
                stderr=log,
            )


@pytest.mark.short_on("mosquitto")
def test_40_an_agent_of_64_open_files_takes_what_it_can_of_70_tasks_and_the_rest_is_said(kind: BrokerKind) -> None:
    with (
        _FewFiles({"a": 150.0}, kind=kind) as cluster,
        Site(cluster.settings) as site,
        Client(settings=cluster.settings) as client,
    ):
        for number in range(TASKS):
            site.publish(topics.TASK, m.TaskSpec(model="noop").encode(), task=f"t{number}")
        assert site.wait(lambda s: s.ready("t0"), WAIT_S), cluster.log("a")
        with others_answered(lambda: client.ask("t0", left=1, right=2, deadline_s=WAIT_S)):
            assert site.wait(lambda s: all(s.ready(f"t{n}") for n in range(TASKS)), WAIT_S)
            most = site.profiles["a"].most_gateways
            assert most is not None
            assert 0 < most < TASKS
            assert site.wait(lambda s: len(s.plans["a"].gateways) == most, WAIT_S), site.plans["a"].gateways
            gateways = site.plans["a"].gateways
            answers = tuple(f"s2m3/v1/response/{task}" for task in gateways)
            with PlainCaller(cluster.broker.port_v3, paho.MQTTv311, answers) as caller:
                for task in gateways:
                    caller.send(f"s2m3/v1/request/{task}", b'{"inputs": {"left": 1, "right": 2}}')
                assert [caller.answer()["status"] for _ in gateways] == ["ok"] * most
        shown = command.s2m3_here("status", port=cluster.settings.port)
        assert shown.stdout.count("no gateway") >= TASKS - most
        assert "disconnected" not in cluster.log("a")
