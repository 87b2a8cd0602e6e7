"""The page on a Mosquitto that `s2m3 secure` has set up: over TLS, with a viewer's password, and a viewer's rights."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Page, expect

from s2m3.page_server import PageServer
from s2m3.snapshot import Site
from tests.conftest import has_mosquitto
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT
from tests.dashboard.site import READY_S
from tests.secured.secured import SecuredSite, ended, secure, short_folder


@pytest.fixture(scope="module")
def secured() -> Iterator[SecuredSite]:
    """A planner, a node, the task `noop`; `wall` may ask it, `door` may only look."""
    if not has_mosquitto():
        pytest.skip("mosquitto is not installed")
    with short_folder() as folder:
        site = SecuredSite(folder)
        secure("init", site.folder, "--host", "127.0.0.1", "--add", "agent:a", "--add", "viewer:door")
        secure("add", site.folder, "viewer", "wall", "--task", "noop")
        site.start()
        processes = [site.spawn("planner", "planner"), site.spawn("a", "agent", "--memory-mb", "150")]
        try:
            with Site(site.settings("operator")) as seen:
                assert seen.wait(lambda s: s.nodes.ready == {"a"} and "a" in s.profiles, READY_S), site.told("a")
            added = site.run("operator", "task", "add", "noop", "--model", "noop")
            assert added.returncode == 0, added.stderr
            yield site
        finally:
            for process in processes:
                ended(process)
            site.stop()


@pytest.fixture
def log_in(secured: SecuredSite, open_page: Open) -> Iterator[Callable[[str], Page]]:
    """Opens the page and logs in through its form."""
    with PageServer(f"wss://127.0.0.1:{secured.ports[8885]}/", root=ROOT) as server:

        def logged_in(login: str) -> Page:
            page = open_page(server.url, ignore_https_errors=True)  # a person has imported the site's ca.crt
            password = secured.settings(login).password
            assert password is not None
            page.get_by_label("User").fill(login)
            page.get_by_label("Password").fill(password.get_secret_value())
            page.get_by_role("button", name="Log in").click()
            expect(page.locator("[data-task=noop]")).to_have_attribute("data-ready", "true", timeout=READY_S * 1000)
            return page

        yield logged_in


def test_a_viewer_sees_the_site_and_asks_what_it_may(log_in: Callable[[str], Page]) -> None:
    page = log_in("wall")
    expect(page.locator("[data-chip='noop-head@a']")).to_be_visible()
    page.locator("input[name=left]").fill("hello")
    page.locator("input[name=right]").fill("there")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator("[data-answer=noop]")).to_contain_text("hello")


def test_a_viewer_without_tasks_is_told_that_its_question_went_nowhere(
    secured: SecuredSite, log_in: Callable[[str], Page]
) -> None:
    assert secured.run("operator", "task", "add", "brief", "--model", "noop", "--deadline", "1").returncode == 0
    page = log_in("door")
    page.get_by_label("Task", exact=True).select_option("brief")
    page.locator("input[name=left]").fill("hello")
    page.locator("input[name=right]").fill("there")
    page.get_by_role("button", name="Ask", exact=True).click()
    expect(page.locator(".outcome")).to_contain_text("this login may not ask it")


def test_an_operator_is_told_what_a_task_would_cost(secured: SecuredSite) -> None:
    said = secured.run("operator", "task", "add", "second", "--model", "noop", "--dry-run")
    assert said.stdout.startswith("second would be answered by noop; 0 MB more memory:"), said.stderr
