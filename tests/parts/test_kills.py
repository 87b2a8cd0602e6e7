"""Sender, receiver and broker killed in the middle of a part of 350 MB, under load: resumed, right, no request lost."""

import runpy
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import ModuleSpec
from s2m3.snapshot import Site
from tests.conftest import WAIT_S

#: The benchmark's checkpoint and load.
BENCH = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "parts.py"))
pytestmark = [pytest.mark.long, pytest.mark.usefixtures("_own_cache")]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> ModuleSpec:
    folder = tmp_path_factory.mktemp("shelf") / "vit"
    made: ModuleSpec = BENCH["checkpoint"](folder, 350.0)
    return made.model_copy(update={"source": str(folder)})


@pytest.fixture
def site(spec: ModuleSpec) -> Iterator[Cluster]:
    nodes = {"laptop": 1500.0, "pi": 1500.0, "hub": 250.0}
    shelf = {"laptop": Path(spec.source).parent}
    with Cluster(
        nodes, kind="mosquitto", threads=1, planner=False, checkpoints=shelf, verbose=True, persistence=True
    ) as c:
        yield c


def _restart_broker(site: Cluster) -> None:
    site.broker.kill()
    site.broker.start()


def _restart(node: str) -> Callable[[Cluster], None]:
    def restart(site: Cluster) -> None:
        site.kill(node)
        site.start_agent(node)

    return restart


KILLS = {"broker": _restart_broker, "sender": _restart("laptop"), "receiver": _restart("pi")}


@pytest.mark.parametrize("who", KILLS)
def test_a_kill_in_the_middle_loses_no_piece_that_was_there_and_no_request(
    site: Cluster, spec: ModuleSpec, who: str
) -> None:
    wanted = spec.model_copy(update={"source": "vit"})
    with Site(site.settings) as seen, Client(settings=site.settings) as client:
        held = BENCH["place_noop"](seen, {"left": "hub", "right": "hub", "head": "hub"})
        load = BENCH["Load"](client, 20.0)
        plan = m.Plan(epoch=1, revision=2, modules=[*held.get("pi", []), wanted])
        seen.publish(topics.PLAN, plan.encode(), node="pi")
        partial = _wait_for_bytes(site, 120e6)
        KILLS[who](site)
        assert seen.wait(lambda s: _state(s, spec.id) == "ready", 2 * WAIT_S), site.log("pi")[-3000:]
        load.stop()
    assert load.sent - len(load.took) == 0
    assert not partial.exists()
    found = fingerprint(open_part(spec, CheckpointSources()))
    assert seen.reported["pi"].modules[spec.id].fingerprint == found
    if who == "receiver":
        begun = [line for line in site.log("pi").splitlines() if "event=part_fetched" in line]
        assert float(begun[-1].rpartition("here_mb=")[2]) >= 100.0


def _state(site: Site, module: str) -> str | None:
    reported = site.reported.get("pi")
    return reported.modules[module].state if reported is not None and module in reported.modules else None


def _wait_for_bytes(site: Cluster, nbytes: float) -> Path:
    """Returns the folder of the part once so much of it is on the receiver's disk."""
    deadline, pause = time.monotonic() + WAIT_S, threading.Event()
    while time.monotonic() < deadline:
        for path in site.parts_of("pi").glob("*.partial"):
            weights = path / "files" / "model.safetensors"
            if weights.exists() and weights.stat().st_blocks * 512 >= nbytes:
                return path
        pause.wait(0.005)
    raise AssertionError(site.log("pi")[-3000:])
