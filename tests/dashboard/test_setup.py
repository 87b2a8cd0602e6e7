"""Set up: rules, tasks and devices are changed from the page, on a real site; and who may only look is told so."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from s2m3.broker.servers.launch import Broker, BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.page_server import PageServer
from s2m3.schemas import bridge as b
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.conftest import WAIT_S, has_mosquitto
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller, told
from tests.dashboard.test_access import PHONE

pytestmark = pytest.mark.short_on("mosquitto")


@pytest.fixture(scope="module")
def site(kind: BrokerKind) -> Iterator[Cluster]:
    """A broker, a planner, a bridge and one light node that serves `echo`."""
    with Cluster({"a": 150.0}, kind=kind, threads=1, page=True, bridge=True) as cluster:
        with Site(cluster.settings) as running:
            add_task(running, "echo", m.TaskSpec(model="noop-text"))
            assert running.wait(lambda s: s.ready("echo") and s.bridge is not None, WAIT_S), cluster.log("planner")
        yield cluster


@pytest.fixture
def page(site: Cluster, open_page: Open) -> Iterator[Page]:
    door = site.broker.page
    assert door is not None
    with PageServer(door.url, root=ROOT, door=door) as server:
        opened = open_page(server.url, view="do", viewport=PHONE)
        expect(opened.locator("[data-phase=online]")).to_be_visible()
        yield opened


def test_a_rule_is_added_in_three_screens_works_is_paused_changed_and_removed(site: Cluster, page: Page) -> None:
    page.get_by_role("button", name="Add a rule").click()
    expect(page.locator("select[name=rule-task]")).to_have_value("echo")
    page.get_by_role("button", name="Next").click()
    page.locator("input[name=topic]").fill("bell/+/said")
    page.locator("input[name=every]").fill("0")
    page.get_by_role("button", name="Next").click()
    page.locator("input[name=publish]").fill("home/{1}")
    page.get_by_role("button", name="Start").click()
    rule = page.locator("[data-rule=echo-bell-said]")
    expect(rule).to_have_attribute("data-state", "active")
    with Teller(site.broker) as teller:
        teller.tell(("bell/front/said", b"somebody is here", False))
        expect(rule).to_contain_text("1 received, 1 answered")
        page.evaluate("location.hash = 'home'")
        expect(page.locator("[data-entry=echo]")).to_contain_text("somebody is here")
        expect(page.locator("[data-entry=echo]")).to_contain_text("bell/front/said")
        page.evaluate("location.hash = 'do'")
        rule.get_by_role("button", name="Pause").click()
        expect(rule).to_have_attribute("data-state", "paused")
        rule.get_by_role("button", name="Go on").click()
        expect(rule).to_have_attribute("data-state", "active")
        rule.get_by_role("button", name="Change").click()
        page.get_by_role("button", name="Next").click()
        page.locator("input[name=topic]").fill("bell/+/heard")
        page.get_by_role("button", name="Next").click()
        page.get_by_role("button", name="Start").click()
        expect(rule).to_contain_text("bell/+/heard")
        expect(rule).to_have_attribute("data-state", "active")
    rule.get_by_role("button", name="Remove").click()
    rule.get_by_role("button", name="Yes, remove").click()
    expect(rule).to_have_count(0)


def test_a_wrong_value_is_told_where_it_was_given(page: Page) -> None:
    page.get_by_role("button", name="Add a rule").click()
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Next").click()
    expect(page.get_by_role("alert").locator("visible=true").last).to_contain_text("is missing")
    page.locator("input[name=topic]").fill(f"{ROOT}/plan/+")
    page.get_by_role("button", name="Next").click()
    page.get_by_role("button", name="Start").click()
    expect(page.locator(".wizard .error")).to_contain_text("The input cannot be used")


def test_an_order_to_the_planner_says_that_it_was_carried_out(page: Page) -> None:
    page.get_by_role("button", name="Plan again").click()
    expect(page.locator(".said", has_text="Done.")).to_be_visible()


def test_who_may_only_look_is_told_so_and_nothing_changes(open_page: Open) -> None:
    if not has_mosquitto():
        pytest.skip("mosquitto is not installed: the embedded broker has no access lists")
    with Broker("mosquitto", ws_port=0) as broker, Teller(broker) as teller:
        assert broker.page is not None
        binding = b.Binding(source="cam/+", task="task-00", input="text", publish="home/{1}")
        teller.tell(*RecordedSite(nodes=2, modules=6, tasks=2).retained(), told(topics.BIND, binding, binding="cam"))
        with PageServer(broker.page.url, root=ROOT, door=broker.page) as server:
            page = open_page(server.url, view="do")
            rule = page.locator("[data-rule=cam]")
            rule.get_by_role("button", name="Remove").click()
            rule.get_by_role("button", name="Yes, remove").click()
            expect(page.locator(".said").first).to_contain_text("this login may look, but not change anything")
            expect(rule).to_be_visible()
            page.get_by_role("button", name="Plan again").click()
            expect(page.locator(".said").last).to_contain_text("role viewer")
