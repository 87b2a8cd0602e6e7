"""A real browser on the built page. Every page is closed with the question: was anything said on its console?"""

import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from s2m3.page_server import page_is_built
from tests.conftest import WAIT_S

#: The container of a test has no sandbox to give, no graphics card and no way out.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-precise-memory-info",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)
Open = Callable[..., Page]
expect.set_options(timeout=WAIT_S * 1000)


@pytest.fixture(scope="session", autouse=True)
def built_page() -> None:
    """Nothing here can run without the page."""
    if not page_is_built():
        pytest.skip("the page is not built: make dashboard")


@pytest.fixture(scope="module")  # while it lives, playwright's event loop counts as running in this thread
def browser() -> Iterator[Browser]:
    path = shutil.which("chromium")
    if path is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a view of the page in a context of its own. At the end no page may have had an error, or said one."""
    opened = []
    complaints: list[str] = []

    def said(message: ConsoleMessage) -> None:
        # while a broker goes or is away, the browser itself notes each failed try ("WebSocket connection to ...") and
        # each write to a socket that is closing ("WebSocket is already in CLOSING ..."); no page can keep it from that
        if message.type in ("error", "warning") and not message.text.startswith("WebSocket "):
            complaints.append(message.text)

    def open_(url: str, view: str = "understand", **context: object) -> Page:
        own = browser.new_context(**context)  # type: ignore[arg-type]  # playwright's own words
        opened.append(own)
        page = own.new_page()
        page.set_default_timeout(WAIT_S * 1000)
        page.on("console", said)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(f"{url}#{view}")
        return page

    yield open_
    for context in opened:
        context.close()
    assert complaints == []
