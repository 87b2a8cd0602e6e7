"""A request flows over the board to every node that took part, whatever has moved by the time that the page is told."""

import pytest
from playwright.sync_api import expect

from s2m3.broker.servers.launch import Broker, BrokerKind
from s2m3.page_server import PageServer
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller, told
from tests.dashboard.site import COUNT_DOTS


@pytest.mark.short_on("mosquitto")
def test_a_branch_whose_copy_has_gone_since_flows_to_the_node_that_ran_it(kind: BrokerKind, open_page: Open) -> None:
    """A node tells of its requests once a second; the planner may have moved a module meanwhile."""
    site = RecordedSite(nodes=4, modules=6, tasks=1)
    ((task, steps),) = site.steps.items()
    ran = {step: site.holders[module][0] for step, module in steps.items()}
    ran["left"] = next(node for node in site.names if node not in site.holders[steps["left"]])
    latest = {step: m.StepTiming(node=node, queued_ms=0.4, run_ms=7, batch=1) for step, node in ran.items()}
    with Broker(kind, ws_port=0) as broker, Teller(broker) as teller:
        assert broker.page is not None
        teller.tell(*site.retained())
        with PageServer(broker.page.url, root=ROOT, door=broker.page) as server:
            page = open_page(server.url)
            expect(page.locator(f"[data-task={task}][data-ready=true]")).to_be_visible()
            page.evaluate(COUNT_DOTS)
            load = m.NodeLoad(queues={}, finished={task: 1}, latest={task: latest})
            teller.tell(told(topics.NODE_LOAD, load, node=ran["head"]))
            row = page.locator(".requests li", has_text="answered to its caller alone")
            row.locator("button").click()
            expect(row.locator("[data-step=left]")).to_contain_text(f"on {ran['left']}")
            assert page.evaluate("window.dots") == 2, "one for each branch"
