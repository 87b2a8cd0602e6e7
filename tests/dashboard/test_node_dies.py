"""A node that holds the only copies is killed: on the picture they fly to the nodes that are left, on both brokers.

Modules without weights fit everywhere, so here they have to move: nothing on the page may excuse them.
"""

import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.page_server import PageServer
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.dashboard.conftest import Open
from tests.dashboard.site import READY_S, assert_lost_in_time, watch_for_loss
from tests.system.rest import settled

NODES = {"attic": 200.0, "cellar": 200.0, "hall": 200.0}
TASK = "echo"
MODULES = ("noop-head", "noop-left", "noop-right")


@pytest.fixture
def cluster(kind: BrokerKind) -> Iterator[Cluster]:
    with Cluster(NODES, kind=kind, page=True, threads=1, spare=False) as running:
        with Site(running.settings) as site:
            assert site.wait(lambda s: s.nodes.ready == set(NODES), WAIT_S), running.log("planner")
            add_task(site, TASK, m.TaskSpec(model="noop"))
            settled(site, TASK, copies=1)  # nothing moves by itself while one looks
        yield running


@pytest.fixture
def page(cluster: Cluster, open_page: Open) -> Iterator[Page]:
    """The page on three nodes that are ready, with the task ready too."""
    door = cluster.broker.page
    assert door is not None
    with PageServer(door.url, root=door.root, door=door) as server:
        opened = open_page(server.url)
        expect(opened.locator("[data-node][data-state=ready]")).to_have_count(len(NODES), timeout=READY_S * 1000)
        expect(opened.locator(f"[data-task={TASK}][data-ready=true]")).to_be_visible(timeout=READY_S * 1000)
        expect(opened.locator("[data-chip][data-state=ready]")).to_have_count(len(MODULES), timeout=READY_S * 1000)
        yield opened


@pytest.mark.short_on("mosquitto")
def test_a_killed_node_turns_lost_and_its_modules_move_to_the_others(cluster: Cluster, page: Page) -> None:
    held = dict(chip.split("@") for chip in page.evaluate(_CHIPS))
    assert sorted(held) == sorted(MODULES), "one copy of each"
    victim = held["noop-head"]
    moving = [module for module, node in held.items() if node == victim]
    watch_for_loss(page, victim)
    killed = time.time() * 1000
    cluster.kill(victim)
    assert_lost_in_time(page, victim, killed)
    for module in moving:
        elsewhere = f"[data-chip^='{module}@']:not([data-chip='{module}@{victim}'])"
        expect(page.locator(f"{elsewhere}[data-state=ready]")).to_have_count(1)
    assert page.evaluate(_FLOWN, [len(moving), WAIT_S]), "modules jumped instead of flying"
    expect(page.locator(f"[data-node={victim}] [data-chip]")).to_have_count(0)
    expect(page.locator(f"[data-node={victim}]")).to_contain_text("All of it runs elsewhere now")
    expect(page.locator("[data-problem=lost]")).to_contain_text(victim)
    expect(page.locator(f"[data-task={TASK}]")).to_have_attribute("data-ready", "true")
    with Client(settings=cluster.settings) as client:
        answer = client.ask(TASK, left=b"l", right=b"r")
    assert victim not in answer.route.values()


@pytest.mark.long
def test_modules_fly_also_where_no_copy_was_shown_for_a_moment(cluster: Cluster, page: Page) -> None:
    """The last copies go before the next ones come: these do not jump to their places."""
    watch_for_loss(page, "attic")  # it counts flights, too
    for node in NODES:
        cluster.kill(node)
    expect(page.locator("[data-chip]")).to_have_count(0)
    before = page.evaluate("window.flights")
    cluster.start_agent("hall")
    expect(page.locator("[data-chip$='@hall'][data-state=ready]")).to_have_count(len(MODULES))
    assert page.evaluate(_FLOWN, [before + len(MODULES), WAIT_S]), "modules jumped instead of flying"


#: Waits in the page: wait_for_function polls by `eval`, which the page's policy forbids.
_FLOWN = """([count, seconds]) => new Promise((done) => {
    const ends = Date.now() + 1000 * seconds;
    const look = () =>
        window.flights >= count || Date.now() > ends ? done(window.flights >= count) : setTimeout(look, 50);
    look();
})"""
_CHIPS = "[...document.querySelectorAll('[data-chip]')].map(chip => chip.dataset.chip)"
