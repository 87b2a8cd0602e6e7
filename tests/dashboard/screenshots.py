"""Takes the pictures of the page that docs/ shows, of `s2m3 up` at work. Run: python -m tests.dashboard.screenshots"""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from s2m3.broker.servers.launch import default_kind
from s2m3.demo import TASKS
from tests.dashboard.conftest import FLAGS
from tests.dashboard.site import READY_S, SAMPLES, Up

DOCS = Path(__file__).parents[2] / "docs"
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
#: Colours of a picture: a page needs few, and a repository is for ever.
COLOURS = 256


def main() -> None:
    """A working site by day, a phone that asks, and by night a node that was lost."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Up(default_kind(), Path(folder)) as up,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        day = _open(browser, up, "light", DESKTOP)
        phone = _open(browser, up, "light", PHONE)
        night = _open(browser, up, "dark", DESKTOP)
        night_phone = _open(browser, up, "dark", PHONE)
        _ask(day, "transcription", audio="rocket-launch.flac")
        _ask(day, "vqa", image="blue-circle.png", text="what colour is the shape?")
        for _ in range(3):
            _ask(day, "retrieval", image="chelsea.jpg", text="a cat\na cup of coffee\na rocket")
        day.locator("[data-task=retrieval]").click()
        _save(day, "desktop-light")
        _ask(phone, "classification", image="coffee.jpg")
        phone.locator("#try").scroll_into_view_if_needed()
        phone.evaluate("document.querySelector('#try').scrollIntoView()")
        _save(phone, "phone-light")
        up.kill_node("pi")
        for page in (night, night_phone):
            expect(page.locator("[data-node=pi]")).to_contain_text("All of it runs elsewhere", timeout=READY_S * 1000)
            expect(page.locator("[data-chip][data-state=loading]")).to_have_count(0, timeout=READY_S * 1000)
        _ask(night, "spoken-intent", audio="kitchen-light.flac", text="switch on a lamp\nplay music\ntell the weather")
        night.locator("[data-chip^='minilm@']").first.click()
        _save(night, "desktop-dark")
        _save(night_phone, "phone-dark")
        browser.close()


def _open(browser: Browser, up: Up, scheme: str, size: dict[str, int]) -> Page:
    context = browser.new_context(color_scheme=scheme, viewport=size, device_scale_factor=1)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(up.url)
    for task in TASKS:
        expect(page.locator(f"[data-task='{task}'][data-ready=true]")).to_be_visible(timeout=READY_S * 1000)
    return page


def _ask(page: Page, task: str, **inputs: str) -> None:
    page.get_by_label("Task", exact=True).select_option(task)
    for name, given in inputs.items():
        if name == "text":
            page.locator("[name=text]").fill(given)
        else:
            page.locator(f"input[name={name}]").set_input_files(SAMPLES / given)
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(f"[data-answer={task}]")).to_be_visible(timeout=READY_S * 1000)


def _save(page: Page, name: str) -> None:
    page.wait_for_timeout(1500)  # what flies lands
    picture = Image.open(io.BytesIO(page.screenshot()))
    few = picture.convert("RGB").quantize(
        COLOURS, method=Image.Quantize.MAXCOVERAGE, kmeans=2, dither=Image.Dither.NONE
    )
    few.save(DOCS / f"dashboard-{name}.png", optimize=True)


if __name__ == "__main__":
    main()
