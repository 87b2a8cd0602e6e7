"""Usable by everyone: axe-core finds nothing serious, the keyboard reaches everything, words say what colours do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from s2m3.broker.servers.launch import Broker, default_kind
from s2m3.page_server import PageServer
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller

AXE = Path(__file__).parents[2] / "dashboard" / "node_modules" / "axe-core" / "axe.min.js"
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1360, "height": 900}


FEW, MANY = 4, 14


@pytest.fixture
def busy(open_page: Open, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A site in which a node was lost, a module failed and requests were answered; and the page's address."""
    site = RecordedSite(nodes=getattr(request, "param", FEW), modules=10, tasks=4)
    with Broker(default_kind(), ws_port=0) as broker, Teller(broker) as teller:
        assert broker.page is not None
        teller.tell(*site.retained(), *site.lost("node-02"))
        teller.say(
            "node/node-03/reported",
            {"modules": {"bad": {"state": "failed", "reason": {"code": "busy", "detail": "x"}}}},
        )
        with PageServer(broker.page.url, root=ROOT, door=broker.page) as server:
            yield {"url": server.url, "teller": teller, "site": site, "open": open_page}


def _opened(busy: dict[str, Any], **context: object) -> Page:
    page: Page = busy["open"](busy["url"], **context)
    expect(page.locator("[data-node]")).to_have_count(len(busy["site"].names))
    busy["teller"].tell(*(busy["site"].answer() for _ in range(3)))
    expect(page.locator(".requests li")).to_have_count(3)
    page.locator(".requests button").first.click()
    page.locator("[data-chip]").first.click()
    return page


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("busy", "size"), [(FEW, DESKTOP), (FEW, PHONE), (MANY, PHONE)], indirect=["busy"])
def test_axe_finds_nothing_serious(busy: dict[str, Any], scheme: str, size: dict[str, int]) -> None:
    page = _opened(busy, color_scheme=scheme, viewport=size, reduced_motion="reduce")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    serious = [
        f"{rule['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
        for rule in found["violations"]
        if rule["impact"] in ("serious", "critical")
        for node in rule["nodes"]
    ]
    assert serious == []
    assert len(found["passes"]) > 20, "axe looked at next to nothing"


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_nothing_is_wider_than_the_screen(busy: dict[str, Any], size: dict[str, int]) -> None:
    page = _opened(busy, viewport=size)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]


def test_the_keyboard_reaches_and_works_everything(busy: dict[str, Any]) -> None:
    page = _opened(busy)
    kinds = "a[href], button:not(:disabled), input, select, textarea, summary, [tabindex='0']"
    wanted = page.evaluate(f"document.querySelectorAll(`{kinds}`).length")
    page.evaluate("document.activeElement.blur(); window.reached = new Set()")
    for _ in range(wanted + 3):
        page.keyboard.press("Tab")
        page.evaluate("window.reached.add(document.activeElement)")
    missing = "e => e.checkVisibility() && !reached.has(e)"
    missed = page.evaluate(f"[...document.querySelectorAll(`{kinds}`)].filter({missing}).map(e => e.outerHTML)")
    assert missed == []
    page.locator("[data-task=task-01]").focus()
    page.keyboard.press("Enter")
    expect(page.locator("[data-task=task-01]")).to_have_attribute("aria-pressed", "true")
    expect(page.locator(".caption")).to_contain_text("task-01: left is")


def test_every_state_is_said_in_words_and_not_by_colour_alone(busy: dict[str, Any]) -> None:
    page = _opened(busy)
    expect(page.locator("[data-node=node-02]")).to_contain_text("lost")
    expect(page.locator("[data-node=node-00]")).to_contain_text("ready")
    expect(page.locator("[data-chip='bad@node-03']")).to_contain_text("failed")
    expect(page.locator("[data-phase]")).to_have_text("✓ connected")
    for task in page.locator("[data-task]").all():
        assert "ready" in task.inner_text()
    expect(page.locator(".legend .role")).to_have_count(5)
    expect(page.locator(".legend")).to_contain_text("memory of runtime and modules")


def test_who_asks_for_less_motion_gets_none(busy: dict[str, Any]) -> None:
    page = _opened(busy, reduced_motion="reduce")
    page.evaluate("() => { Element.prototype.animate = () => { window.moved = true; return {} } }")
    answers = page.locator(".requests li").count()
    busy["teller"].tell(busy["site"].answer(), *busy["site"].lost("node-00"))
    expect(page.locator(".requests li")).to_have_count(answers + 1)
    expect(page.locator("[data-node=node-00]")).to_contain_text("lost")
    assert page.evaluate("window.moved") is None
