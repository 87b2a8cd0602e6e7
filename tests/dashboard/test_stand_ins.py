"""The page says which stand-in answers a task, as present nodes have it: also while there is no planner."""

import pytest
from playwright.sync_api import Page, expect

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.page_server import PageServer
from s2m3.snapshot import Site
from tests.dashboard.conftest import Open
from tests.system.ranked import MODELS, kill_the_best, ranked_site


@pytest.mark.long
def test_the_page_says_that_a_stand_in_answers_until_the_best_is_back(kind: BrokerKind, open_page: Open) -> None:
    with ranked_site(kind, page=True) as house, Site(house.settings) as site:
        door = house.broker.page
        assert door is not None
        with PageServer(door.url, root=house.settings.root, door=door) as server:
            _see(open_page(server.url), house, site)


def _see(page: Page, house: Cluster, site: Site) -> None:
    word = page.locator("[data-task=porch] .word")
    expect(word).to_have_text("ready")
    house.kill("planner")
    _, rank = kill_the_best(house, site)
    expect(word).to_have_text(f"a stand-in answers: {MODELS[rank]}")
    house.start_planner()
    expect(word).to_have_text("ready")
