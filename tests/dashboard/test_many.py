"""A large site, told at speed: the picture keeps moving and the browser's memory stays where it is.

In `make test` for seconds, without a word about speed. `pytest tests/dashboard/test_many.py --long -s` takes five
minutes, holds the page to its figures (5 pictures a second, flat memory), and writes bench/results/dashboard.json.
"""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import CDPSession, Page, expect

from s2m3.broker.servers.launch import Broker, default_kind
from s2m3.page_server import PageServer
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "dashboard.json"
NODES, MODULES, TASKS, RATE = 100, 200, 300, 50
SHORT_S, LONG_S, WARM_S = 6, 300, 30
#: Of the JavaScript heap, from the first half of the measurement to the second.
FLAT = 1.1


class Telling(threading.Thread):
    """The site's life: answers at the rate, loads each second, reports, a node that dies and comes back."""

    def __init__(self, site: RecordedSite, teller: Teller) -> None:
        super().__init__(daemon=True)
        self._site, self._teller = site, teller
        self.over = threading.Event()
        self.answers = 0

    def run(self) -> None:
        began = time.monotonic()
        second = 0
        while not self.over.wait(max(0.0, began + self.answers / RATE - time.monotonic())):
            self._teller.tell(self._site.answer())
            self.answers += 1
            if self.answers // RATE > second:
                second += 1
                self._each(second)

    def _each(self, second: int) -> None:
        site = self._site
        self._teller.tell(*(site.load(node) for node in site.names[::2]))
        self._teller.tell(*(site.reported(node) for node in site.random.sample(site.names, k=5)))
        node = site.names[second // 20 % NODES]
        if second % 20 == 5:
            self._teller.tell(*site.lost(node))
        if second % 20 == 15:
            self._teller.tell(*site.back(node))


@pytest.fixture
def telling(open_page: Open) -> Iterator[tuple[Page, Telling]]:
    site = RecordedSite(NODES, MODULES, TASKS)
    with Broker(default_kind(), ws_port=0) as broker, Teller(broker) as teller:
        assert broker.page is not None
        teller.tell(*site.retained())
        with PageServer(broker.page.url, root=ROOT, door=broker.page) as server:
            page = open_page(server.url, viewport={"width": 1360, "height": 900})
            thread = Telling(site, teller)
            thread.start()
            yield page, thread
            thread.over.set()
            thread.join(20)


#: Counts the frames in which the picture (or what is beside it) changed.
COUNT_PICTURES = """() => {
  window.pictures = 0;
  let changed = false;
  const what = { subtree: true, childList: true, attributes: true, characterData: true };
  new MutationObserver(() => { changed = true; }).observe(document.getElementById("page"), what);
  const look = () => {
    if (changed) window.pictures += 1;
    changed = false;
    requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
}"""


@pytest.mark.timeout(LONG_S + 300)
def test_a_hundred_nodes_at_fifty_requests_a_second_stay_usable(
    telling: tuple[Page, Telling], request: pytest.FixtureRequest
) -> None:
    page, thread = telling
    long = bool(request.config.getoption("--long"))
    expect(page.locator("[data-node]")).to_have_count(NODES)
    page.evaluate(COUNT_PICTURES)
    expect(page.locator(".requests li")).to_have_count(8)
    measured = measure(page, thread, LONG_S if long else SHORT_S, warm_s=WARM_S if long else 1)
    assert measured["pictures"] > 0
    assert measured["elements"] < 10_000, "the page grows with what happened"
    page.locator("[data-task=task-07]").click()  # it still listens
    expect(page.locator(".caption")).to_contain_text("task-07: left is")
    expect(page.locator("[data-phase=online]")).to_be_visible()
    if long:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(measured, indent=1))
        print(json.dumps(measured))  # noqa: T201  # its figures are what the long form is for
        assert measured["pictures_per_s"] >= 5
        assert measured["heap_growth"] < FLAT


def measure(page: Page, thread: Telling, seconds: float, warm_s: float) -> dict[str, Any]:
    """Returns what the page does with the site's life: pictures a second (COUNT_PICTURES), MB of its heap, elements."""
    cdp = page.context.new_cdp_session(page)
    page.wait_for_timeout(warm_s * 1000)
    heaps: list[float] = []
    began, answers, pictures = time.monotonic(), thread.answers, page.evaluate("window.pictures")
    while (passed := time.monotonic() - began) < seconds or len(heaps) < 2:
        heaps.append(_heap_mb(cdp))
        page.wait_for_timeout(1000 * min(10, seconds / 6))
    half = len(heaps) // 2
    return {
        "nodes": NODES,
        "modules": MODULES,
        "seconds": round(passed),
        "answers_per_s": round((thread.answers - answers) / passed, 1),
        "pictures": (seen := page.evaluate("window.pictures") - pictures),
        "pictures_per_s": round(seen / passed, 1),
        "heap_mb": [round(heap, 1) for heap in heaps],
        "heap_growth": round(sum(heaps[half:]) / len(heaps[half:]) / (sum(heaps[:half]) / half), 3),
        "elements": page.evaluate("document.querySelectorAll('*').length"),
    }


def _heap_mb(cdp: CDPSession) -> float:
    """Of JavaScript, after a collection."""
    cdp.send("HeapProfiler.collectGarbage")
    used: float = cdp.send("Runtime.getHeapUsage")["usedSize"]
    return used / 1e6
