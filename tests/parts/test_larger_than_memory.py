"""Parts larger than the memory of the node that serves them: a real agent with a budget, and ONNX Runtime itself."""

import contextlib
import runpy
from collections.abc import Iterator
from pathlib import Path
from queue import Queue

import numpy as np
import psutil
import pytest

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.loading import Loaded, Loader
from s2m3.agents.memory import rss_mb
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.parts.exporting import export_checkpoint_part
from s2m3.agents.runtimes.exported import ExportedParts
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.agents.serving.module import Module
from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas.errors import S2M3Error
from s2m3.snapshot import Site
from tests import command
from tests.checkpoints.inprocess import run_all
from tests.conftest import WAIT_S
from tests.zoo.samples import sample

BENCH = runpy.run_path(str(Path(__file__).parents[2] / "bench" / "parts.py"))
#: The budget of an agent, which takes about 100 MB, counts torch with 350 and mapped weights with a tenth of them.
_BUDGET_MB = 580.0
#: Larger than the whole budget.
_PART_MB = 620.0
#: Of the part that ONNX Runtime runs, and what the loader has for it.
_EXPORT_MB, _FREE_MB = 120.0, 70.0
pytestmark = pytest.mark.long


def private_mb(pid: int | str) -> float:
    """Returns the memory that is a process's own, 10^6 bytes: what the system cannot drop."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    kilobytes = {name: int(line.split()[1]) for line in lines[1:] for name in [line.split(":")[0]]}
    return max(kilobytes["Anonymous"], kilobytes["Private_Dirty"]) * 1024 / 1e6


@pytest.fixture
def site() -> Iterator[Cluster]:
    with Cluster({"pi": _BUDGET_MB}, threads=1, verbose=True) as cluster:
        yield cluster


def test_an_agent_serves_a_part_larger_than_its_budget_if_the_task_asks_for_it(site: Cluster, tmp_path: Path) -> None:
    folder, picture = tmp_path / "shelf" / "vit", sample("chelsea.jpg")
    BENCH["checkpoint"](folder, _PART_MB)
    add = ("task", "add", "pets", "--model", str(folder), "--deadline", "600")
    with Site(site.settings) as seen, Client(settings=site.settings) as client:
        assert seen.wait(lambda s: "pi" in s.nodes.ready and "pi" in s.profiles, WAIT_S)
        refused = command.s2m3_here(*add, port=site.settings.port)
        assert refused.returncode == 3, refused.stderr
        assert "no_capacity" in refused.stderr
        added = command.s2m3_here(*add, "--map-weights", port=site.settings.port)
        assert added.returncode == 0, added.stderr + site.log("pi")[-3000:]
        answer = client.ask("pets", image=picture, deadline_s=600.0)
        (agent,) = psutil.Process(site.processes["pi"].pid).children()
        assert private_mb(agent.pid) < _BUDGET_MB < _PART_MB
        held = seen.reported["pi"].modules
        (encoder,) = [report for report in held.values() if report.mapped]
        assert encoder.bytes > 0.9e6 * _PART_MB
        assert encoder.memory_mb < _PART_MB / 4
        assert seen.reported["pi"].pressure_mb == 0
        assert "mapped" in command.s2m3_here("status", port=site.settings.port).stdout
        served = seen.tasks["pets"].definition
        assert served is not None
        wanted = run_all(folder.parent, served, {"image": [picture]})
        found = {name.partition(".")[2]: value for name, value in wanted.items()}
        assert {name: found[name] for name in answer.outputs} == answer.outputs


def test_onnx_runtime_runs_mapped_weights_in_little_memory_and_answers_as_it_does_otherwise(tmp_path: Path) -> None:
    spec = BENCH["checkpoint"](tmp_path / "shelf" / "vit", _EXPORT_MB).model_copy(update={"source": "vit"})
    cache = PartCache(tmp_path / "parts", 1_000_000_000)
    export_checkpoint_part(spec, CheckpointSources((tmp_path / "shelf",), runtimes=(TORCH,)), cache)
    light = CheckpointSources(runtimes=(ONNX,), exports=ExportedParts((cache,)))
    wanted = _features(registry.load(spec, light))
    outcomes: Queue[Loaded | S2M3Error] = Queue()
    budget_mb = rss_mb() + 25.0 + _FREE_MB
    loader = Loader("a", budget_mb, 1, light, lambda _, one: outcomes.put(one), watchdog=Watchdog(Blackbox()))
    with contextlib.closing(_Started(loader)):
        loader.load(spec)
        refused = outcomes.get(timeout=WAIT_S)
        assert isinstance(refused, S2M3Error)
        assert refused.code == "no_capacity"
        before = private_mb("self")
        loader.load(spec.model_copy(update={"map_weights": "if-needed"}))
        found = outcomes.get(timeout=WAIT_S)
        assert isinstance(found, Loaded), found
        assert (found.mapped, found.runtime) == (True, ONNX)
        features = _features(found.module)
        assert private_mb("self") - before < _EXPORT_MB / 2
        assert np.abs(features - wanted).max() <= 1e-5 * max(1.0, float(np.abs(wanted).max()))


class _Started:
    """A loader that runs until it is closed."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader
        loader.start()

    def close(self) -> None:
        self.loader.stop()


def _features(module: Module) -> np.ndarray:
    (found,) = module.run([module.prepare({"image": sample("chelsea.jpg")})], frozenset({"features"}))
    features = found["features"]
    assert isinstance(features, np.ndarray)
    return features
