"""Set up: rules, tasks and devices are changed from the page, on a real site; and who may only look is told so."""

import json
from collections.abc import Iterator

import paho.mqtt.client as paho
import pytest
from playwright.sync_api import Page, expect

from s2m3.broker.servers.launch import Broker, BrokerKind, default_kind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.page_server import PageServer
from s2m3.schemas import bridge as b
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.wire.plain import plain_inputs
from s2m3.snapshot import Site
from tests.command import s2m3_here
from tests.conftest import WAIT_S, has_mosquitto
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller, told
from tests.dashboard.site import SAMPLES
from tests.dashboard.test_access import PHONE
from tests.system.plain import PlainCaller

pytestmark = pytest.mark.short_on("mosquitto")


#: A model of one module that needs neither weights nor torch; two of them, of which one fits on no device here.
MODEL = """
id = "{name}"
description = "Writes words back, {mb} MB"
inputs = {{ text = "text" }}
answer = ["text"]

[modules.{name}-writer]
role = "decoder"
class = "noop-writer"
source = "none"
prefix = "{name}"
inputs = {{ text = "text" }}
outputs = {{ text = "text" }}
generates = "text"
memory_mb = {mb}

[steps.writer]
module = "{name}-writer"
inputs = {{ text = "input.text" }}
"""


#: A model that hands the picture back, as its answer.
MIRROR = """
id = "mirror"
description = "Hands a picture back"
inputs = { image = "image" }
answer = ["code"]

[modules.mirror]
role = "head"
class = "noop-encoder"
source = "none"
prefix = "mirror"
inputs = { data = "image" }
outputs = { code = "image" }
memory_mb = 0.1

[steps.mirror]
module = "mirror"
inputs = { data = "input.image" }
"""


@pytest.fixture(scope="module")
def site(kind: BrokerKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A broker, a planner with two models of its own, a bridge and one light node that serves `echo`."""
    models = tmp_path_factory.mktemp("models")
    for name, mb in (("small", 5), ("huge", 5000)):
        (models / f"{name}.toml").write_text(MODEL.format(name=name, mb=mb))
    (models / "mirror.toml").write_text(MIRROR)
    cluster = Cluster({"a": 150.0}, kind=kind, threads=1, page=True, bridge=True)
    cluster.environment["S2M3_MODELS"] = str(models)
    with cluster:
        with Site(cluster.settings) as running:
            add_task(running, "echo", m.TaskSpec(model="noop-text"))
            add_task(running, "mirror", m.TaskSpec(model="mirror"))
            assert running.wait(lambda s: s.ready("echo") and s.ready("mirror") and s.bridge is not None, WAIT_S), (
                cluster.log("planner")
            )
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


def test_a_task_is_added_with_its_cost_said_first_then_changed_and_removed(site: Cluster, page: Page) -> None:
    page.get_by_role("button", name="Add a task").click()
    form = page.locator("form.wizard")
    form.locator("select[name=model]").select_option("small")
    expect(form.locator(".cost")).to_contain_text("about 5 MB more, on a.")
    form.locator("input[name=task-name]").fill("words")
    form.get_by_role("button", name="Yes, add it").click()
    row = page.locator("[data-task-row=words]")
    expect(row).to_contain_text("✓ ready")
    expect(form).to_have_count(0)
    row.get_by_role("button", name="Change").click()
    expect(page.locator(".cost")).to_contain_text("Costs no more memory: its parts run already, on a.")
    page.locator("textarea[name=usual-text]").fill("one two")
    page.locator("input[name=deadline]").fill("7")
    page.get_by_role("button", name="Change it").click()
    with Site(site.settings) as running:
        assert running.wait(lambda s: "words" in s.tasks and s.tasks["words"].deadline_s == 7, WAIT_S)
        assert running.tasks["words"].inputs == {"text": "one two"}
        row.get_by_role("button", name="Remove").click()
        row.get_by_role("button", name="Yes, remove").click()
        expect(row).to_have_count(0)
        assert running.wait(lambda s: "words" not in s.tasks, WAIT_S)


def test_what_does_not_fit_is_refused_with_the_reason_before_it_is_added(page: Page) -> None:
    page.get_by_role("button", name="Add a task").click()
    page.locator("select[name=model]").select_option("huge")
    page.locator("input[name=task-name]").fill("huge")
    expect(page.locator(".cost")).to_contain_text("do not fit on the devices there are")
    page.get_by_role("button", name="Yes, add it").click()
    expect(page.locator(".wizard [role=alert]")).to_contain_text("do not fit")
    expect(page.locator("[data-task-row=huge]")).to_have_count(0)


def test_a_dry_run_of_the_command_says_the_same_and_adds_nothing(site: Cluster) -> None:
    said = s2m3_here("task", "add", "words", "--model", "small", "--dry-run", port=site.settings.port)
    assert said.stdout.startswith("words would be answered by small; 5 MB more memory:"), said.stderr
    assert "small-writer on a: 5 MB" in said.stdout
    refused = s2m3_here("task", "add", "words", "--model", "huge", "--dry-run", port=site.settings.port)
    assert (refused.returncode, "no_capacity" in refused.stderr) == (3, True)
    with Site(site.settings) as running:
        assert "words" not in running.tasks


def test_the_picture_of_a_plain_request_is_with_its_answer(site: Cluster, page: Page) -> None:
    page.evaluate("location.hash = 'home'")
    with Teller(site.broker) as device:
        picture = (SAMPLES / "blue-circle.png").read_bytes()
        for topic in ("request/mirror/image", "request/mirror/image/shot-7"):
            device.say(topic, picture, retain=False)
            expect(page.locator("[data-entry=mirror] .card img").first).to_be_visible()
        device.say("request/mirror", {"inputs": plain_inputs({"image": picture})}, retain=False)
        expect(page.locator("[data-entry=mirror] .card img")).to_have_count(3)


def test_a_sleeping_device_is_woken_one_with_a_command_put_to_sleep_a_drained_one_brought_back(open_page: Open) -> None:
    with Broker(default_kind(), ws_port=0, page_role="operator") as broker, Teller(broker) as teller:
        assert broker.page is not None
        teller.tell(*RecordedSite(nodes=3, modules=6, tasks=2).retained())
        speeds = {"memory_mb": 1000, "runtime_mb": 400, "gflops": 50, "latency_ms": 1, "mbps": 100}
        teller.say("node/node-00/profile", {"boot": "b", "version": "0", "sleeps": True, **speeds})
        teller.say("node/node-01/state", {"state": "lost", "boot": "b", "left": True, "asleep": True})
        teller.say("node/node-02/state", {"state": "draining", "boot": "b"})
        teller.say("planner/state", {"state": "online", "epoch": 1, "asleep": {"node-01": "asleep; can be woken"}})
        with (
            PlainCaller(broker.port_v3, paho.MQTTv311, (f"{ROOT}/control/+",)) as planner,
            PageServer(broker.page.url, root=ROOT, door=broker.page) as server,
        ):
            page = open_page(server.url, view="do")
            orders = (
                ("Wake", "wake", "node-01"),
                ("Put to sleep", "sleep", "node-00"),
                ("Bring back", "undrain", "node-02"),
            )
            for button, verb, node in orders:
                page.get_by_role("button", name=f"{button}: {node}").click()
                while (message := planner.message()).topic != f"{ROOT}/control/{verb}":
                    pass
                order = json.loads(message.payload)
                assert order["node"] == node
                response = {"status": "ok", "transaction": order["transaction"]}
                teller.say(f"control/{verb}/response", response, retain=False)
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
            page.get_by_role("button", name="Plan again").click()
            expect(page.locator(".said").first).to_contain_text("this login may look, but not change anything")
            expect(rule).to_be_visible()
            expect(page.locator(".said").last).to_contain_text("role viewer")
