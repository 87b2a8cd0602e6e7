"""Home: what the house's cameras and buttons were answered, live, kept over a reload, in two languages."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from s2m3.bindings.bound_topic import Asked
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.broker.servers.launch import Broker, BrokerKind
from s2m3.history.entries import AnswerRecord
from s2m3.history.finder import Finder
from s2m3.history.service import History
from s2m3.page_server import PageServer
from s2m3.schemas import bridge as b
from s2m3.schemas import topics
from s2m3.schemas.messages import ErrorBody, StepTiming
from s2m3.schemas.settings import BridgeSettings
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller, told
from tests.dashboard.site import SAMPLES
from tests.dashboard.test_access import AXE, DESKTOP, PHONE
from tests.dashboard.test_hostile import HTML

pytestmark = pytest.mark.short_on("mosquitto")
PICTURE = (SAMPLES / "chelsea.jpg").read_bytes()
AT = "2026-01-02T03:04:{:02}.000+00:00"


@dataclass
class House:
    """A recorded site with a history as the bridge runs it."""

    url: str
    history: History
    loop: Loop
    teller: Teller
    number: int = 0

    def say(self, state: str = "a cat", task: str = "task-00", topic: str | None = "cam/porch", **more: Any) -> None:
        """The bridge is told an answer, a second after the one before."""
        self.number += 1
        answer = b.BridgeAnswer(
            event_type="failed" if "error" in more else "answered",
            state=state,
            score=0.91,
            latency_ms=120,
            at=AT.format(self.number),
            source="binding:porch" if topic else "plain",
            topic=topic,
            error=more.pop("error", None),
        )
        asked = Asked(task, answer.source, topic=topic, picture=more.pop("picture", PICTURE))
        steps = {"left": StepTiming(node="node-01", queued_ms=1, run_ms=80, batch=1)}
        told_ = replace(
            AnswerRecord(asked, answer, {"text": ["a cat", "a dog"]}, steps=steps, model="recorded"), **more
        )
        self.loop.call(partial(self.history.record, told_))


@pytest.fixture(scope="module")
def house(kind: BrokerKind) -> Iterator[House]:
    loop = Loop("house")
    with Broker(kind, ws_port=0, page_role="operator") as broker, Teller(broker) as teller:
        assert broker.page is not None
        loop.start()
        settings = BridgeSettings(port=broker.port)
        link = Link(settings, "house", loop)
        history = History(link, loop, settings, Finder(Dispatcher(link, loop, "bridge")))
        history.start()
        link.start()
        teller.tell(
            *RecordedSite(nodes=3, modules=8, tasks=3).retained(),
            told(topics.BRIDGE_STATE, b.BridgeState(state="online", epoch=1)),
        )
        with PageServer(broker.page.url, root=ROOT, door=broker.page) as server:
            yield House(server.url, history, loop, teller)
        history.stop()
        link.stop()
        loop.stop()


@pytest.fixture
def page(house: House, open_page: Open) -> Page:
    opened = open_page(house.url, view="home")
    expect(opened.locator("[data-phase=online]")).to_be_visible()
    return opened


def _card(page: Page, text: str) -> Any:
    return page.locator("[data-entry]", has_text=text)


def test_an_answer_appears_with_its_picture_and_stays_over_a_reload(house: House, page: Page) -> None:
    box = {"label": "cat", "score": 0.9, "box": [0, 0, 225, 150]}
    house.say("an older one")
    house.say("seen first", boxes=[box])
    for _ in range(2):
        card = _card(page, "seen first")
        expect(card.locator("img")).to_be_visible()
        expect(card.locator("[data-box=cat]")).to_be_visible()
        expect(card).to_contain_text("score 0.91")
        expect(card).to_contain_text("cam/porch")
        expect(page.locator("[data-entry]").first).to_contain_text("seen first")
        expect(_card(page, "an older one")).to_be_visible()
        page.reload()


def test_an_opened_answer_says_what_was_asked_and_the_time_of_each_step(house: House, page: Page) -> None:
    house.say("opened")
    _card(page, "opened").locator("button").first.click()
    details = _card(page, "opened").locator(".details")
    expect(details).to_contain_text("a cat, a dog")
    expect(details.locator("[data-step=left]")).to_contain_text("on node-01")
    expect(details).to_contain_text("recorded")
    expect(details).to_contain_text("rule porch")


def test_a_failure_says_its_whole_reason_and_what_to_do(house: House, page: Page) -> None:
    why = "the picture cannot be decoded: " + "it is truncated, " * 20
    house.say("", error=ErrorBody(code="bad_input", detail=why, step="left", node="node-01"))
    card = page.locator("[data-entry].failed").first
    card.locator("button").first.click()
    expect(card.locator(".details")).to_contain_text(why.strip())
    expect(card.locator(".details")).to_contain_text("In step left on node-01.")
    expect(card.locator(".details")).to_contain_text("Look at what was sent")


def test_answers_are_found_by_task_words_and_source(house: House, page: Page) -> None:
    for state, task, topic in (("a red bird", "task-01", "cam/garden"), ("a blue bird", "task-02", "cam/hall")):
        house.say(state, task, topic)
    expect(_card(page, "a blue bird")).to_be_visible()
    page.locator("summary", has_text="Filter").click()
    page.locator("input[name=filter-words]").fill("bird")
    expect(page.locator("[data-entry]")).to_have_count(2)
    page.locator("select[name=filter-task]").select_option("task-01")
    expect(page.locator("[data-entry]")).to_have_count(1)
    house.say("a green bird", "task-01")
    house.say("a green bird", "task-02")
    expect(page.locator("[data-entry]")).to_have_count(2)
    page.locator("input[name=filter-source]").fill("garden")
    expect(page.locator("[data-entry]")).to_have_count(1)
    expect(page.locator("[data-entry]")).to_contain_text("a red bird")
    page.get_by_role("button", name="Show everything").click()
    expect(_card(page, "a blue bird")).to_be_visible()


def test_nothing_of_an_answer_is_html(house: House, page: Page) -> None:
    house.say(HTML, topic=f"cam/{HTML}", inputs={HTML: HTML}, boxes=[{"label": HTML, "score": 1, "box": [0, 0, 9, 9]}])
    card = page.locator("[data-entry]").first
    expect(card).to_contain_text(HTML)
    expect(card.locator("img")).to_have_count(1)
    card.locator("button").first.click()
    expect(card.locator(".details")).to_contain_text(HTML)
    assert page.evaluate("window.pwned") is None
    assert page.locator("[data-entry] img[src^='blob:']").count() == page.locator("[data-entry] img").count()


@pytest.mark.parametrize(
    ("size", "scheme"),
    [
        pytest.param(DESKTOP, "light", id="desktop-light"),
        pytest.param(PHONE, "dark", id="phone-dark"),
        pytest.param(DESKTOP, "dark", id="desktop-dark", marks=pytest.mark.long),
        pytest.param(PHONE, "light", id="phone-light", marks=pytest.mark.long),
    ],
)
def test_axe_finds_nothing_serious_in_any_view(
    house: House, open_page: Open, scheme: str, size: dict[str, int]
) -> None:
    binding = b.Binding(source="cam/+", task="task-00", input="text", publish="home/{1}")
    house.teller.tell(told(topics.BIND, binding, binding="cam"))
    house.say("axe")
    page = open_page(house.url, view="home", color_scheme=scheme, viewport=size)
    expect(_card(page, "axe").first).to_be_visible()
    _card(page, "axe").first.locator("button").first.click()
    page.evaluate(AXE.read_text())
    for view in ("home", "ask", "find", "do", "understand"):
        page.evaluate(f"location.hash = '{view}'")
        expect(page.locator("nav [aria-current=page]")).to_have_attribute("href", f"#{view}")
        if view == "do":
            page.get_by_role("button", name="Add a rule").click()
            page.get_by_role("button", name="Add a task").click()
        assert page.evaluate("document.documentElement.scrollWidth") <= size["width"], view
        violations = page.evaluate("axe.run().then(found => found.violations)")
        assert [
            f"{view}: {rule['id']}: {node['html'][:200]}"
            for rule in violations
            if rule["impact"] in ("serious", "critical")
            for node in rule["nodes"]
        ] == []


@pytest.mark.parametrize("width", [320, 3840])
def test_every_view_fits_the_narrowest_phone_and_the_widest_screen(house: House, open_page: Open, width: int) -> None:
    page = open_page(house.url, view="home", viewport={"width": width, "height": 800})
    for view in ("home", "ask", "find", "do", "understand"):
        page.evaluate(f"location.hash = '{view}'")
        expect(page.locator("nav [aria-current=page]")).to_have_attribute("href", f"#{view}")
        assert page.evaluate("document.documentElement.scrollWidth") <= width, view


def test_on_a_phone_the_form_is_near_the_top_one_tap_away(house: House, open_page: Open) -> None:
    page = open_page(house.url, view="home", viewport=PHONE)
    page.get_by_role("link", name="Ask").click()
    box = page.locator("#try select").bounding_box()
    assert box is not None
    assert box["y"] < 300
    expect(page.locator(".home")).to_be_hidden()


def test_the_page_speaks_german_where_the_browser_does_and_remembers_a_change(house: House, open_page: Open) -> None:
    page = open_page(house.url, view="home", locale="de-DE")
    expect(page.get_by_role("heading", name="Was gesehen und gehört wurde")).to_be_visible()
    expect(page.locator("html")).to_have_attribute("lang", "de")
    page.get_by_role("button", name="English").click()
    expect(page.get_by_role("heading", name="What was seen and heard")).to_be_visible()
    page.reload()
    expect(page.get_by_role("heading", name="What was seen and heard")).to_be_visible()


def test_the_page_can_be_installed(house: House, page: Page) -> None:
    address = page.locator("link[rel=manifest]").get_attribute("href")
    manifest = json.loads(page.request.get(f"{house.url}{address}").text())
    assert manifest["display"] == "standalone"
    assert page.request.get(f"{house.url}{manifest['icons'][0]['src']}").ok


def test_everything_is_deleted_after_a_second_question(house: House, page: Page) -> None:
    house.say("to be deleted")
    expect(_card(page, "to be deleted")).to_be_visible()
    house.loop.call(house.history.publish_state)
    page.get_by_role("button", name="Delete all of them").click()
    page.get_by_role("button", name="Yes, remove").click()
    expect(page.locator(".kept")).to_contain_text("Deleted:")
    expect(page.locator("[data-entry]")).to_have_count(0)
    page.reload()
    expect(page.locator("[data-phase=online]")).to_be_visible()
    expect(page.locator(".empty")).to_be_visible()


def test_every_text_of_one_language_is_in_the_other() -> None:
    """That keys are the same is what tsc checks; here that no German text was left in English."""
    texts = Path(__file__).parents[2] / "dashboard" / "src" / "texts"
    german, english = ((texts / f"{name}.ts").read_text() for name in ("de", "en"))
    sentences = {
        line.split('"')[1] for line in english.splitlines() if line.count('"') == 2 and " " in line.split('"')[1]
    }
    assert len(sentences) > 50
    assert sorted(text for text in sentences if text[0].isupper() and f'"{text}"' in german) == []
