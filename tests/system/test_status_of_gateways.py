"""What `s2m3 status` says of a ready task whose plain requests nobody takes, by the documents of a site."""

import json
import os
import subprocess
import sys
import threading

import pytest

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.document import Document
from s2m3.schemas.settings import BrokerSettings
from tests.broker.test_link import linked
from tests.conftest import WAIT_S

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
