"""The page asks who is there: when it starts, and again while something that others speak of is missing."""

import json
import queue
from typing import Any

import pytest
from playwright.sync_api import expect

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.servers.launch import Broker, BrokerKind
from s2m3.page_server import PageServer
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.document import Document
from s2m3.schemas.settings import BrokerSettings
from tests.conftest import WAIT_S
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT


@pytest.mark.short_on("embedded")
def test_a_node_that_the_broker_never_told_of_is_asked_for_and_shown(
    kind: BrokerKind, open_page: Open, loop: Loop
) -> None:
    asked: queue.Queue[dict[str, Any]] = queue.Queue()
    with Broker(kind, ws_port=0) as broker:
        assert broker.page is not None
        link = Link(BrokerSettings(port=broker.port, root=ROOT), "owner", loop)
        link.start()
        link.subscribe(topics.ROLLCALL.all(ROOT), lambda message: asked.put(json.loads(message.payload)))

        def tell(path: topics.Topic[Any], document: Document, **ids: str) -> None:
            link.publish(Outgoing(path.at(ROOT, **ids), document.encode(), retain=path.retain))

        tell(topics.PLANNER_STATE, m.PlannerState(state="online", epoch=1))
        replica = m.Replica(node="attic", ms=1)
        step = m.RouteStep(module="x", inputs={"x": "input.x"}, outputs=["y"], replicas=[replica])
        route = m.RouteDoc(epoch=1, revision=1, model="x", answer=["y"], deadline_s=1, steps={"s": step})
        tell(topics.ROUTE, route, task="porch")
        tell(topics.TASK, m.TaskSpec(model="x"), task="porch")
        with PageServer(broker.page.url, root=ROOT, door=broker.page) as server:
            page = open_page(server.url)
            for _ in ("at the start", "because attic is missing"):
                assert asked.get(timeout=WAIT_S)["asker"] == "page"
            profile = m.NodeProfile(
                boot="b", version="1", memory_mb=9, runtime_mb=1, gflops=2, latency_ms=1, mbps=10, protocol=1
            )
            tell(topics.NODE_PROFILE, profile, node="attic")
            tell(topics.NODE_STATE, m.NodeState(state="ready", boot="b", protocol=1), node="attic")
            expect(page.locator("[data-node=attic]")).to_be_visible()
        link.stop()
