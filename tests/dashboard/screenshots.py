"""Takes the pictures of the page that docs/ shows, of `s2m3 up` at work. Run: python -m tests.dashboard.screenshots"""

import io
import json
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, expect, sync_playwright

from s2m3.broker.servers.launch import default_kind
from s2m3.demo import TASKS
from s2m3.schemas.bridge import Binding
from tests.dashboard.conftest import FLAGS
from tests.dashboard.recorded import Teller
from tests.dashboard.site import READY_S, SAMPLES, Up

DOCS = Path(__file__).parents[2] / "docs"
DESKTOP = {"width": 1280, "height": 860}
PHONE = {"width": 390, "height": 844}
#: Colours of a picture: a page needs few, and a repository is for ever.
COLOURS = 256
#: Cameras' pictures that Home shows.
PICTURES = 4


def main() -> None:
    """A house by day, on a desk and on a phone, and by night a device that was lost."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Up(default_kind(), Path(folder)) as up,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(FLAGS))
        pages = {
            (size, scheme): _open(browser, up, scheme, {"desktop": DESKTOP, "phone": PHONE}[size])
            for size in ("desktop", "phone")
            for scheme in ("light", "dark")
        }
        day = pages["desktop", "light"]
        _live(up, day)
        for page in pages.values():
            _view(page, "home")
            expect(page.locator("[data-entry] img")).to_have_count(PICTURES)
        _save_all(pages, "home")
        for page in pages.values():
            _view(page, "find")
            page.locator("input[name=words]").fill("a cup of coffee")
            page.get_by_role("button", name="Find", exact=True).click()
            expect(page.locator("[data-entry] img").first).to_be_visible()
        _save_all(pages, "find")
        for page in pages.values():
            _view(page, "do")
            page.get_by_role("button", name="Add a rule").click()
            page.get_by_label("Ask something new").check()
            page.locator("textarea[name=texts]").fill("a parcel\nan empty doorstep")
            page.locator("input[name=name]").fill("parcel")
            expect(page.locator(".cost")).to_contain_text("Costs no more memory")
        _save_all(pages, "do")
        phone = pages["phone", "light"]
        _view(phone, "ask")
        _ask(phone, "classification", image="coffee.jpg")
        _save(phone, "ask-phone-light")
        for page in pages.values():
            _view(page, "understand")
        _ask(day, "transcription", audio="rocket-launch.flac")
        day.locator("[data-task=retrieval]").click()
        up.kill_node("pi")
        for page in pages.values():
            expect(page.locator("[data-node=pi]")).to_contain_text("All of it runs elsewhere", timeout=READY_S * 1000)
            expect(page.locator("[data-chip][data-state=loading]")).to_have_count(0, timeout=READY_S * 1000)
        _save_all(pages, "understand")
        browser.close()


def _live(up: Up, page: Page) -> None:
    """Rules for three cameras, and what these see."""
    which = {"text": ["a cat", "a cup of coffee", "a rocket"]}
    rules = {
        "garden": Binding(source="cam/garden", task="retrieval", input="image", inputs=which, publish="home/garden"),
        "kitchen": Binding(source="cam/kitchen", task="classification", input="image", publish="home/kitchen"),
        "porch": Binding(source="cam/porch", task="doorbell", input="image", publish="home/porch", every_s=0),
    }
    with Teller(up.port_v3) as teller:
        for name, rule in rules.items():
            teller.say(f"bind/{name}", json.loads(rule.encode()))
        _view(page, "do")
        for name in rules:
            expect(page.locator(f"[data-rule={name}]")).to_have_attribute("data-state", "active")
        _view(page, "home")
        shown = (
            ("kitchen", "coffee.jpg"),
            ("garden", "rocket.jpg"),
            ("porch", "astronaut.jpg"),
            ("garden", "chelsea.jpg"),
        )
        for number, (camera, sample) in enumerate(shown):
            teller.tell((f"cam/{camera}", (SAMPLES / sample).read_bytes(), False))
            expect(page.locator("[data-entry]")).to_have_count(number + 1, timeout=READY_S * 1000)


def _view(page: Page, view: str) -> None:
    page.evaluate(f"location.hash = '{view}'")
    expect(page.locator("nav [aria-current=page]")).to_have_attribute("href", f"#{view}")


def _save_all(pages: dict[tuple[str, str], Page], view: str) -> None:
    for (size, scheme), page in pages.items():
        page.evaluate("scrollTo(0, 0)")
        _save(page, f"{view}-{size}-{scheme}")


def _open(browser: Browser, up: Up, scheme: str, size: dict[str, int]) -> Page:
    context = browser.new_context(color_scheme=scheme, viewport=size, device_scale_factor=1)  # type: ignore[arg-type]
    page = context.new_page()
    page.goto(f"{up.url}#understand")
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
