"""Whoever may publish may lie: nothing from the bus is rendered as HTML or run, and the policy would stop it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from s2m3.broker.servers.launch import Broker, BrokerKind
from s2m3.page_server import PageServer
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller

HTML = '<img src=x onerror="window.pwned=1"><script>window.pwned=1</script>'
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" onload="window.pwned=1"><script>window.pwned=1</script></svg>'


@pytest.fixture
def site(kind: BrokerKind) -> Iterator[tuple[Teller, str]]:
    """A small site, told on a broker of its own, and the page's address."""
    with Broker(kind, ws_port=0) as broker, Teller(broker) as teller:
        assert broker.page is not None
        teller.tell(*RecordedSite(nodes=3, modules=8, tasks=3).retained())
        with PageServer(broker.page.url, root=ROOT, door=broker.page) as server:
            yield teller, server.url


def _everything_hostile(teller: Teller) -> None:
    error = {"code": HTML, "detail": HTML}
    teller.say("node/evil/state", {"state": "ready", "boot": HTML})
    teller.say(
        "node/evil/profile", {"version": HTML, "memory_mb": 1, "runtime_mb": 1, "gflops": 1, "latency_ms": 1, "mbps": 1}
    )
    teller.say("node/evil/reported", {"modules": {"bad": {"state": "failed", "reason": error}}, "free_mb": 1})
    teller.say("plan/evil", {"modules": [{"id": "bad", "role": HTML}], "fronts": []})
    teller.say("task/evil", {"model": "x"})
    route = {"model": "x", "deadline_s": 1, "inputs": {HTML: "text", "text": "texts"}, "defaults": {"text": [HTML]}}
    teller.say(
        "route/evil",
        {**route, "steps": {"one": {"module": "bad", "inputs": {HTML: HTML}, "replicas": []}}, "error": error},
    )
    teller.say("event", {"event": "node_lost", "node": HTML, "detail": HTML}, retain=False)
    outputs = {HTML: HTML, "picture": {"base64": "PHN2Zy8+"}, "link": "javascript:window.pwned=1"}
    answer = {"status": "ok", "answer": HTML, "outputs": outputs, "latency_ms": 1, "steps": {}}
    teller.say("response/evil", answer, retain=False)
    teller.say("response/evil", {"status": "error", "error": error}, retain=False)


#: Each is dropped, and counted: a wrong name, no JSON, the wrong document, half a character, numbers that are none.
UNREADABLE: list[tuple[str, object]] = [
    (f"task/{HTML.replace('/', '')}", {"model": "x"}),
    ("node/x/state", b"\xff\xfe not json"),
    ("node/x/state", {"state": "ready", "boot": 7}),
    ("node/x/state", [[[[]]]]),
    ("node/x/load", b'{"queues": {"m": 1e999}}'),
    ("route/x", b"[" * 100_000),
    ("response/x", {"status": "ok", "steps": {"s": {"node": '"]', "queued_ms": 0, "run_ms": 0, "batch": 1}}}),
    ("plan/x", {"modules": [{"id": "../x"}]}),
]
#: Not looked at. (Mosquitto 2.0.11 sends a websocket no message over 64 kB in one go: this one would take a minute.)
HUGE = ("task/x", b"x" * 1_500_000)
PROTO = {"status": "ok", "steps": {"__proto__": {"node": "x", "queued_ms": 0, "run_ms": 0, "batch": 1}}}


def test_hostile_texts_are_shown_as_texts(site: tuple[Teller, str], open_page: Open) -> None:
    teller, url = site
    page = open_page(url)
    expect(page.locator("[data-node=node-00]")).to_be_visible()
    tags = page.evaluate("document.querySelectorAll('script, img, iframe, a[href^=javascript]').length")
    _everything_hostile(teller)
    for place in ("[data-problem='module bad evil']", "[data-problem='task evil']", ".log", ".requests"):
        expect(page.locator(place)).to_contain_text(HTML)
    page.get_by_label("Task", exact=True).select_option("evil")
    expect(page.locator("form")).to_contain_text(HTML)
    for button in page.locator(".requests button").all():
        button.click()
    assert page.evaluate("document.querySelectorAll('script, img, iframe, a[href^=javascript]').length") == tags
    assert page.evaluate("window.pwned") is None


def test_boxes_are_told_by_their_labels_and_a_file_is_no_text(site: tuple[Teller, str], open_page: Open) -> None:
    teller, url = site
    page = open_page(url)
    expect(page.locator("[data-node=node-00]")).to_be_visible()
    boxes = [{"label": label, "score": score, "box": [1.5, 2, 30, 40]} for label, score in (("cat", 0.93), (HTML, 0.5))]
    for task, answer in (("porch", boxes), ("map", {"base64": "iVBORw0KGgo="})):
        said = {"status": "ok", "answer": answer, "outputs": {"answer": answer}, "latency_ms": 1, "steps": {}}
        teller.say(f"response/{task}", said, retain=False)
    expect(page.locator(".requests")).to_contain_text(f"cat 0.93, {HTML} 0.50")
    expect(page.locator(".requests")).to_contain_text("a file")
    expect(page.locator(".requests")).not_to_contain_text("iVBORw0KGgo")
    assert page.evaluate("window.pwned") is None


def test_what_cannot_be_read_is_dropped_and_counted(
    site: tuple[Teller, str], open_page: Open, kind: BrokerKind
) -> None:
    teller, url = site
    page = open_page(url)
    expect(page.locator("[data-node=node-00]")).to_be_visible()
    teller.say("response/x", PROTO, retain=False)
    wrong = [*UNREADABLE, HUGE] if kind == "embedded" else UNREADABLE
    for topic, document in wrong:
        teller.say(topic, document, retain=False)
    expect(page.locator("footer")).to_contain_text(f"{len(wrong)} messages could not be read")
    expect(page.locator("[data-node]")).to_have_count(3)
    teller.say("node/late/state", {"state": "ready", "boot": "b"})
    expect(page.locator("[data-node=late]")).to_be_visible()
    assert page.evaluate("({}).node") is None


def test_a_value_that_a_newer_release_added_is_unknown_and_the_rest_is_shown(
    site: tuple[Teller, str], open_page: Open
) -> None:
    teller, url = site
    page = open_page(url)
    teller.say("node/newer/state", {"state": "asleep", "boot": "b"})
    teller.say("node/newer/reported", {"modules": {"dreams": {"state": HTML}}, "free_mb": 1})
    expect(page.locator("[data-node=newer]")).to_contain_text("in a state that this page does not know")
    expect(page.locator("[data-node=newer]")).not_to_contain_text(HTML)
    teller.say("event", {"event": "moon_rose", "node": "newer", "detail": "full"}, retain=False)
    expect(page.locator(".log")).to_contain_text("too old to know happened on newer: full")
    expect(page.locator("footer")).not_to_contain_text("could not be read")


def test_a_hostile_picture_from_the_disk_is_only_a_picture(site: tuple[Teller, str], open_page: Open) -> None:
    teller, url = site
    route = {"model": "x", "deadline_s": 1, "inputs": {"image": "image"}}
    step = {"module": "bad", "inputs": {"image": "input.image"}, "replicas": []}
    teller.say("route/look", {**route, "steps": {"one": step}})
    page = open_page(url)
    page.get_by_label("Task", exact=True).select_option("look")
    picture = {"name": f"{HTML.replace('/', '')}.svg", "mimeType": "image/svg+xml", "buffer": SVG}
    page.locator("input[name=image]").set_input_files(picture)  # type: ignore[arg-type]  # a plain dict is one
    expect(page.locator(".previews img")).to_be_visible()
    assert page.evaluate("window.pwned") is None


#: Ways from a text to HTML or code. Each gives true where the browser let it through.
ATTEMPTS = {
    "innerHTML": "document.body.innerHTML = '<b>x</b>', true",
    "insertAdjacentHTML": "document.body.insertAdjacentHTML('beforeend', '<b>x</b>'), true",
    "document.write": "document.write('<b>x</b>'), true",
    "eval": "eval('1'), true",
    "Function": "new Function('return 1')(), true",
    "script address": "document.createElement('script').src = 'data:text/javascript,1', true",
    "inline script": """(() => {
        const made = document.createElementNS('http://www.w3.org/1999/xhtml', 'script');
        made.append('window.ran = true'); document.body.append(made); return window.ran === true })()""",
    "handler": """(() => {
        const made = document.createElement('b'); made.setAttribute('onclick', 'window.ran2 = true');
        document.body.append(made); made.click(); return window.ran2 === true })()""",
    "elsewhere": "fetch('http://127.0.0.1:9/').then(() => true)",
    "policy": "trustedTypes.createPolicy('mine', {createHTML: x => x}), true",
}


#: What the debugger evaluates may do more than a page: so it is done a moment later, by the page.
_LATER = """() => new Promise(done => setTimeout(async () => {{
    try {{ done(await ({attempt})) }} catch (error) {{ done(error.name) }}
}}))"""


@pytest.mark.parametrize("way", ATTEMPTS)
def test_the_policy_stops_every_way_from_a_text_to_code(way: str, browser: Browser) -> None:
    with PageServer("ws://127.0.0.1:9/", root=ROOT) as server:
        page = _strict(browser, server.url)
        through = page.evaluate(_LATER.format(attempt=ATTEMPTS[way]))
        page.context.close()
    assert through is not True


def _strict(browser: Browser, url: str) -> Page:
    page = browser.new_context().new_page()
    page.goto(url)
    page.locator("h1").wait_for()
    return page


def test_no_source_of_the_page_makes_html_from_text() -> None:
    sources = Path(__file__).parents[2] / "dashboard" / "src"
    text = "\n".join(path.read_text() for path in sources.rglob("*.ts*"))
    for forbidden in ("innerHTML", "dangerouslySetInnerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert forbidden not in text


def test_the_lock_file_names_no_host() -> None:
    assert '"resolved"' not in (Path(__file__).parents[2] / "dashboard" / "package-lock.json").read_text()
