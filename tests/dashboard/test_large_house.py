"""A large house on one page: 100 nodes, 300 tasks, 50 requests a second, 10,000 kept answers with pictures.

`python -m pytest -n 0 tests/dashboard/test_large_house.py --long -s` prints the figures, writes bench/results/page.json
and fails beyond the limits of docs/dashboard.md: first paint under 2 s, 5 pictures a second, flat memory over five
minutes, a search in under 300 ms with all processes but the browser on one core.
"""

import contextlib
import io
import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import paho.mqtt.client as paho
import psutil
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from s2m3.bindings.bound_topic import Asked
from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.cluster import Cluster
from s2m3.history.entries import AnswerRecord
from s2m3.history.finder import Finder, packed
from s2m3.history.service import History
from s2m3.history.store import HistoryStore
from s2m3.page_server import PageServer
from s2m3.schemas import bridge as b
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.history import HistoryEntry
from s2m3.schemas.settings import BridgeSettings, BrokerSettings
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.dashboard.conftest import Open
from tests.dashboard.recorded import ROOT, RecordedSite, Teller, told
from tests.dashboard.test_many import COUNT_PICTURES, FLAT, Telling, measure
from tests.system.plain import PlainCaller

RESULTS = Path(__file__).parents[2] / "bench" / "results" / "page.json"
NODES, MODULES, TASKS, ANSWERS = 100, 200, 300, 10_000
SECONDS, WARM_S, SEARCHES = 300, 30, 20
#: The limits of docs/dashboard.md.
FIRST_PAINT_MS, PICTURES_PER_S, SEARCH_MS = 2_000, 5, 300
#: The task whose encoders find pictures, and the one node here that computes.
FINDS, ENCODER = "retrieval", "encoder"
SPACE, DIMENSIONS = "efficientnet-lite0-conse", 384

pytestmark = [pytest.mark.long, pytest.mark.timeout(SECONDS + 600)]


@dataclass
class House:
    """A recorded site, a node that computes, and the bridge's history."""

    url: str
    settings: BrokerSettings
    port_v3: int
    history: History
    loop: Loop
    telling: Telling


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    file = tmp_path / "history.db"
    _fill(file)
    site, loop = RecordedSite(NODES, MODULES, TASKS), Loop("house")
    with Cluster({ENCODER: 900.0}, planner=False, page=True, threads=1) as cluster, Teller(cluster.broker) as teller:
        assert cluster.broker.page is not None
        routes = _serve(cluster, teller)
        teller.tell(*site.retained(), told(topics.BRIDGE_STATE, b.BridgeState(state="online", epoch=1)))
        loop.start()
        settings = BridgeSettings(port=cluster.broker.port, history=file, history_mb=1_000, history_days=3_000)
        link, asking = Link(settings, "house", loop), Link(settings, "house-asks", loop)
        dispatcher = Dispatcher(asking, loop, "bridge")
        history = History(link, loop, settings, Finder(dispatcher))
        history.start()
        dispatcher.start()
        asking.start()
        link.start()
        loop.call(partial(history.look, routes))
        loop.call(history.publish_state)
        telling = Telling(site, teller)
        telling.start()
        with PageServer(cluster.broker.page.url, root=ROOT, door=cluster.broker.page) as server:
            yield House(server.url, cluster.settings, cluster.broker.port_v3, history, loop, telling)
        telling.over.set()
        telling.join(20)
        history.stop()
        asking.stop()
        link.stop()
        loop.stop()


def _serve(cluster: Cluster, teller: Teller) -> dict[str, m.RouteDoc]:
    """Has the node load the encoders that find pictures, as a planner would; returns their route."""
    catalogue, model = shipped_catalogue(), shipped_catalogue().models[FINDS]
    plan = m.Plan(epoch=1, revision=1, modules=list(catalogue.modules_of(FINDS)))
    teller.tell(told(topics.PLANNER_STATE, m.PlannerState(state="online", epoch=1)))
    teller.tell(told(topics.PLAN, plan, node=ENCODER))
    steps = {
        name: m.RouteStep(
            module=step.module,
            inputs=step.inputs,
            outputs=list(model.wanted_outputs(name)),
            replicas=[m.Replica(node=ENCODER, ms=10)],
        )
        for name, step in model.steps.items()
    }
    route = m.RouteDoc(
        epoch=1, revision=1, model=FINDS, inputs=model.inputs, answer=model.answer, deadline_s=30, steps=steps
    )
    with Site(cluster.settings) as seen:

        def is_ready(s: Site) -> bool:
            reported = s.reported.get(ENCODER)
            held = reported.modules if reported else {}
            return all(id_ in held and held[id_].state == "ready" for id_ in model.module_ids)

        assert seen.wait(is_ready, WAIT_S), cluster.log(ENCODER)
    teller.tell(told(topics.TASK, m.TaskSpec(model=FINDS), task=FINDS), told(topics.ROUTE, route, task=FINDS))
    return {FINDS: route}


def _fill(file: Path) -> None:
    """Keeps answers of the last days, each with a picture of its own and an embedding."""
    rng, now_ms = np.random.default_rng(1), int(time.time() * 1000)
    with HistoryStore(file, 1_000_000_000, 1e9) as store:
        store._db.execute("BEGIN")  # noqa: SLF001  # ten thousand commits would take minutes
        for number in range(ANSWERS):
            at_ms = now_ms - 60_000 * (ANSWERS - number)
            at = datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()
            answer = b.BridgeAnswer(
                event_type="answered",
                state=("a cat", "a parcel", "nobody")[number % 3],
                score=0.5,
                at=at,
                source="binding:porch",
                topic=f"cam/{number % 9}",
            )
            entry = HistoryEntry(
                id=at_ms, task=f"task-{number % TASKS:02}", at_ms=at_ms, answer=answer, model="m", picture=True
            )
            store.add(entry, _picture(number))
            vector = rng.normal(size=DIMENSIONS).astype(np.float32)
            store.embed(entry.id, SPACE, packed(vector / np.linalg.norm(vector)))
        store._db.execute("COMMIT")  # noqa: SLF001


def _picture(number: int) -> bytes:
    file = io.BytesIO()
    image = Image.linear_gradient("L").resize((320, 240)).convert("RGB")
    image.paste((number % 256, number * 7 % 256, number * 13 % 256), (40, 40, 200, 160))
    image.save(file, "JPEG")
    return file.getvalue()


def test_a_large_house_is_usable(house: House, open_page: Open) -> None:
    figures: dict[str, Any] = {"nodes": NODES, "tasks": TASKS, "answers_kept": ANSWERS}
    figures |= _search_on_one_core(house)
    began = time.monotonic()
    page = open_page(house.url, view="home", viewport={"width": 1360, "height": 900})
    expect(page.locator("[data-entry] img").first).to_be_visible()
    figures["first_answers_ms"] = round(1000 * (time.monotonic() - began))
    figures["first_paint_ms"] = round(
        page.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime")
    )
    figures["search_in_page_ms"] = _search_in_page(page)
    page.evaluate("location.hash = 'home'")
    page.evaluate(COUNT_PICTURES)
    house.loop.every(0.5, partial(_record, house))
    figures |= measure(page, house.telling, SECONDS, warm_s=WARM_S)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures))  # noqa: T201  # its figures are what it is for
    assert figures["first_paint_ms"] < FIRST_PAINT_MS
    assert figures["search_ms"] < SEARCH_MS
    assert figures["pictures_per_s"] >= PICTURES_PER_S
    assert figures["heap_growth"] < FLAT


def _record(house: House) -> None:
    """A camera's answer comes twice a second."""
    at = datetime.now(UTC).isoformat(timespec="milliseconds")
    answer = b.BridgeAnswer(event_type="answered", state="a cat", at=at, source="binding:porch", topic="cam/porch")
    asked = Asked("task-00", answer.source, topic=answer.topic, picture=_picture(int(time.time())))
    house.history.record(AnswerRecord(asked, answer))


def _search_on_one_core(house: House) -> dict[str, float]:
    """Searches by words, from the query to the end of what it found: encoder, bridge and broker share one core."""
    cores, took = os.sched_getaffinity(0), []
    _run_on({min(cores)})
    try:
        with PlainCaller(house.port_v3, paho.MQTTv311, (f"{ROOT}/history/done/bench",)) as caller:
            for number in range(SEARCHES + 1):
                began = time.perf_counter()
                wanted = {"text": f"a cat on wall {number}", "limit": 24}
                caller.send(f"{ROOT}/history/wanted/bench", json.dumps(wanted).encode())
                done = json.loads(caller.message().payload)
                took.append(1000 * (time.perf_counter() - began))
                assert "error" not in done, done
    finally:
        _run_on(cores)
    return {"search_ms": round(statistics.median(took[1:])), "slowest_search_ms": round(max(took[1:]))}


def _run_on(cores: set[int]) -> None:
    """Moves all threads of this process and of those that it started to some cores."""
    for process in (me := psutil.Process(), *me.children(recursive=True)):
        for thread in process.threads():
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.sched_setaffinity(thread.id, cores)


def _search_in_page(page: Page) -> int:
    page.get_by_role("link", name="Find").click()
    page.locator("input[name=words]").fill("a parcel at the door")
    began = time.monotonic()
    page.get_by_role("button", name="Find", exact=True).click()
    expect(page.locator("[data-entry]").first).to_be_visible()
    return round(1000 * (time.monotonic() - began))
