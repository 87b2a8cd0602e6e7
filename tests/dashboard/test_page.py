"""The page on `s2m3 up`, on both brokers: what a person sees when nodes work, when one dies, when the broker goes."""

import os
import re
import time
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.demo import DEMO_NODES, TASKS
from tests.command import s2m3_here
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import Teller
from tests.dashboard.site import COUNT_DOTS, READY_S, SAMPLES, Up, assert_lost_in_time, watch_for_loss

#: Seconds until a rule has its first answer: `FIRST_ANSWER_S=60 pytest -k …` holds the minute, on an idle machine.
FIRST_ANSWER_S = float(os.environ.get("FIRST_ANSWER_S", READY_S))
pytestmark = pytest.mark.short_on("mosquitto")


@pytest.fixture(scope="module")
def up(kind: BrokerKind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    with Up(kind, tmp_path_factory.mktemp("up")) as running:
        yield running


@pytest.fixture
def page(up: Up, open_page: Open) -> Page:
    """The page, with every task ready."""
    opened = open_page(up.url)
    for task in TASKS:
        expect(opened.locator(f"[data-task='{task}'][data-ready=true]")).to_be_visible(timeout=READY_S * 1000)
    return opened


def test_the_page_shows_each_node_with_its_modules_and_memory(page: Page) -> None:
    for node in DEMO_NODES:
        card = page.locator(f"[data-node={node}]")
        expect(card).to_have_attribute("data-state", "ready")
        expect(card).to_contain_text("MB used")
        expect(card.locator("[data-chip][data-state=ready]").first).to_be_visible()


def test_a_module_says_which_tasks_share_it(page: Page) -> None:
    page.locator("[data-chip^='minilm@']").first.click()
    expect(page.locator(".caption")).to_contain_text("shared by 4 tasks: retrieval, spoken-intent")
    expect(page.locator(".task.uses")).to_have_count(4)


def test_an_answer_appears_with_the_time_of_each_step(page: Page) -> None:
    page.get_by_label("Task", exact=True).select_option("retrieval")
    page.locator("input[name=image]").set_input_files(SAMPLES / "chelsea.jpg")
    page.locator("textarea[name=text]").fill("a cat\na cup of coffee")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("[data-answer=retrieval]")).to_have_text("a cat")
    for step in ("vision", "classes", "text", "rank"):
        row = page.locator(f".outcome [data-step={step}]")
        assert re.search(r"on (pi|laptop|desktop)", row.inner_text())
        assert re.search(r"\d m?s", row.inner_text())
    expect(page.locator(".requests li").first).to_contain_text("a cat")


def test_a_sound_is_written_down_while_one_looks(page: Page) -> None:
    page.evaluate(_WATCH_WRITING)
    page.get_by_label("Task", exact=True).select_option("transcription")
    page.locator("input[name=audio]").set_input_files(SAMPLES / "hello-world.flac")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("[data-answer=transcription]")).to_contain_text(re.compile("hello", re.IGNORECASE))
    assert page.evaluate("window.written") > 0, "the text came at once, not while it was written"


def test_a_picture_comes_from_the_camera(page: Page) -> None:
    page.get_by_label("Task", exact=True).select_option("classification")
    page.get_by_role("button", name="Use the camera").click()
    page.get_by_role("button", name="Take the picture").click()
    expect(page.locator(".previews img")).to_be_visible()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("[data-answer=classification]")).not_to_be_empty()


def test_a_sound_comes_from_the_microphone_as_a_format_that_agents_read(page: Page) -> None:
    page.get_by_label("Task", exact=True).select_option("transcription")
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop recording").click(delay=500)
    expect(page.locator(".previews audio")).to_be_visible()
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("[data-answer=transcription]")).to_be_attached()


def test_a_programs_request_is_seen_to_flow_though_its_answer_is_for_it_alone(up: Up, page: Page) -> None:
    page.evaluate(COUNT_DOTS)
    with Client("127.0.0.1", port=up.port) as client:
        answer = client.ask("retrieval", image=SAMPLES / "chelsea.jpg", text=["a cat", "a rocket"])
    row = page.locator(".requests li", has_text="answered to its caller alone").first
    expect(row).to_contain_text("retrieval")
    row.locator("button").click()
    for step, node in answer.route.items():
        expect(row.locator(f"[data-step={step}]")).to_contain_text(f"on {node}")
    assert page.evaluate("window.dots") >= 2, "one for each branch"


def test_what_cannot_be_used_is_said_in_plain_words(page: Page) -> None:
    page.get_by_label("Task", exact=True).select_option("classification")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".outcome")).to_contain_text("image is missing")
    broken = {"name": "broken.jpg", "mimeType": "image/jpeg", "buffer": b"\xff\xd8 not a picture"}
    page.locator("input[name=image]").set_input_files(broken)  # type: ignore[arg-type]  # a plain dict is one
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".outcome")).to_contain_text("The input cannot be used")


def test_a_person_has_a_camera_watched_for_something_new_and_finds_its_pictures(
    up: Up, page: Page, open_page: Open
) -> None:
    """Three screens, with the first answer within a minute."""
    cleared = s2m3_here("history", "clear", port=up.port)  # of the questions of other tests
    assert cleared.returncode == 0, cleared.stderr
    page.close()  # it has waited until all tasks are ready
    page = open_page(up.url, view="home", viewport={"width": 390, "height": 844})
    began = time.monotonic()
    page.get_by_role("button", name="Connect a camera").click()
    page.get_by_label("Ask something new").check()
    page.locator("textarea[name=texts]").fill("a cat\na cup of coffee")
    page.locator("input[name=name]").fill("visitor")
    expect(page.locator(".wizard")).to_contain_text("Costs no more memory")
    page.get_by_role("button", name="Next").click()
    page.locator("input[name=topic]").fill("cam/porch")
    page.locator("input[name=every]").fill("0")
    page.get_by_role("button", name="Next").click()
    page.locator("select[name=label]").select_option("a cat")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("[data-rule=visitor]")).to_have_attribute("data-state", "active")
    with Teller(up.port_v3) as camera:
        for sample in ("chelsea.jpg", "coffee.jpg"):
            camera.tell(("cam/porch", (SAMPLES / sample).read_bytes(), False))
        page.get_by_role("link", name="Home").click()
        expect(page.locator("[data-entry=visitor]", has_text="a cat").locator("img")).to_be_visible()
        assert time.monotonic() - began < FIRST_ANSWER_S
        expect(page.locator("[data-entry=visitor]")).to_have_count(2)
    page.get_by_role("link", name="Find").click()
    page.locator("input[name=words]").fill("espresso")
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("[data-entry]").first).to_contain_text("a cup of coffee")
    page.locator("[data-entry]").first.locator("button").first.click()
    page.get_by_role("button", name="More like this one").click()
    expect(page.get_by_role("heading", name="Pictures like this one")).to_be_visible()
    expect(page.locator("[data-entry]").first).to_contain_text("fits 1.00")


def test_a_broker_restart_is_shown_and_recovered_from_without_a_reload(up: Up, page: Page) -> None:
    page.evaluate("document.mark = 'the same page'")
    broker = up.kill_broker()
    expect(page.locator("[data-problem=offline]")).to_contain_text("Disconnected since")
    expect(page.locator("[data-problem=offline]")).to_contain_text("may be out of date")
    expect(page.get_by_role("button", name="Ask", exact=True)).to_be_disabled()
    up.start_broker(*broker)
    expect(page.locator("[data-phase=online]")).to_be_visible(timeout=READY_S * 1000)
    for node in DEMO_NODES:
        expect(page.locator(f"[data-node={node}]:not(.old)")).to_have_attribute(
            "data-state", "ready", timeout=READY_S * 1000
        )
    expect(page.locator("[data-task=vqa]")).to_have_attribute("data-ready", "true", timeout=READY_S * 1000)
    expect(page.locator("[data-problem]")).to_have_count(0)
    assert page.evaluate("document.mark") == "the same page"


def test_a_killed_node_turns_lost_and_says_what_it_held(up: Up, page: Page) -> None:
    """That modules move is seen where it is certain: test_node_dies.py. The demo's nodes are tight."""
    node = str(page.evaluate("document.querySelector('[data-chip]').dataset.chip")).split("@")[1]
    watch_for_loss(page, node)
    killed = up.kill_node(node)
    assert_lost_in_time(page, node, killed)
    expect(page.locator("[data-problem=lost]")).to_contain_text(node)
    expect(page.locator(f"[data-node={node}]")).to_contain_text("Held ")
    expect(page.locator(f"[data-node={node}] [data-chip]")).to_have_count(0)


#: Counts the texts that are shown before the answer is there.
_WATCH_WRITING = """() => {
  window.written = 0;
  const look = () => {
    if (document.querySelector(".outcome .answer:not([data-answer])")?.textContent) window.written += 1;
  };
  new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
