"""A device without torch that never saw a checkpoint serves it: a node with torch exports the parts, they travel."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.runtimes.exported import ExportedParts
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task, checkpoint_definition
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import Definition, ModuleSpec, shipped_catalogue
from s2m3.schemas.parts import part_key
from s2m3.snapshot import Site
from tests import command
from tests.checkpoints.inprocess import run_all
from tests.runtimes.hiding import hide_torch
from tests.zoo.inprocess import run_model
from tests.zoo.samples import sample

#: An export is made at the lowest priority: while others compute on all cores it takes minutes.
WAIT_S = 600.0
TEXTS = ["a photo of the cat", "two dogs on a mat", "who sits there"]


@pytest.fixture
def site(tiny: Path, tmp_path: Path) -> Iterator[Cluster]:
    """A laptop with a CLIP checkpoint, and a Pi without torch, in whose process torch cannot be imported."""
    cluster = Cluster({"laptop": 1500.0, "pi": 400.0}, threads=1, checkpoints={"laptop": tiny}, verbose=True)
    cluster.environment["PYTHONPATH"] = hide_torch(tmp_path, ["pi"])
    with cluster:
        yield cluster


def _networks(served: Definition) -> list[ModuleSpec]:
    return [spec for spec in served.modules if spec.class_ != "similarity-head"]


def _on_both(site: Site, served: Definition) -> bool:
    nodes = [site.reported[node].modules for node in ("laptop", "pi") if node in site.reported]
    ready = [spec.id in held and held[spec.id].state == "ready" for held in nodes for spec in _networks(served)]
    return len(nodes) == 2 and all(ready)


def _offered(site: Site, spec: ModuleSpec) -> bool:
    """Whether the Pi says that it has the export: others without torch may get it there, too."""
    stock = site.profiles["pi"].parts
    return stock is not None and part_key(spec, ONNX) in stock.keys


def _is_lost(node: str) -> Callable[[Site], bool]:
    return lambda site: node in site.nodes.lost


@pytest.mark.long
def test_task_add_of_a_checkpoint_makes_a_device_without_torch_serve_it(site: Cluster, tiny: Path) -> None:
    model, picture = str(tiny / "tiny-clip"), sample("chelsea.jpg")
    with Site(site.settings) as seen, Client(settings=site.settings) as client:
        assert seen.wait(lambda s: s.nodes.ready == {"laptop", "pi"} and len(s.profiles) == 2, WAIT_S)
        assert "image-encoder" in set(seen.profiles["pi"].exported) - set(seen.profiles["pi"].classes)
        words = ("task", "add", "pets", "--model", model, *(word for text in TEXTS for word in ("--text", text)))
        added = command.s2m3_here(*words, port=site.settings.port)
        assert added.returncode == 0, added.stderr
        served = seen.tasks["pets"].definition
        assert served is not None
        wanted = run_all(tiny, served, {"image": [picture], "text": TEXTS})["match.ranking"]
        assert seen.wait(lambda s: _on_both(s, served), WAIT_S), site.log("pi")[-3000:] + site.log("laptop")[-3000:]
        laptop, pi = (seen.reported[node].modules for node in ("laptop", "pi"))
        for spec in _networks(served):
            assert (laptop[spec.id].runtime, pi[spec.id].runtime) == (TORCH, ONNX)
            assert laptop[spec.id].fingerprint == pi[spec.id].fingerprint
            assert seen.wait(partial(_offered, spec=spec), WAIT_S)
        assert "onnx" in command.s2m3_here("status", port=site.settings.port).stdout
        for gone, other in (("pi", "laptop"), ("laptop", "pi")):
            site.kill(gone)
            assert seen.wait(_is_lost(gone), WAIT_S)
            answer = client.ask("pets", image=picture, deadline_s=WAIT_S)
            assert set(answer.route.values()) == {other}
            _equal(answer.outputs["ranking"], wanted)
            if gone == "pi":
                site.start_agent("pi")
                assert seen.wait(lambda s: _on_both(s, served), WAIT_S), site.log("pi")[-3000:]


def _equal(found: list[dict[str, object]], wanted: list[dict[str, object]]) -> None:
    assert [row["label"] for row in found] == [row["label"] for row in wanted]
    assert [row["score"] for row in found] == pytest.approx([row["score"] for row in wanted], abs=1e-5)


def _ready(site: Site, module: str, node: str = "pi") -> bool:
    held = site.reported[node].modules if node in site.reported else {}
    return module in held and held[module].state == "ready"


def _hold(seen: Site, node: str, specs: list[ModuleSpec]) -> None:
    """Has a node load modules, without a planner."""
    seen.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=specs).encode(), node=node)


@pytest.mark.long
def test_of_two_laptops_with_the_checkpoint_one_exports_each_part(tiny: Path, tmp_path: Path) -> None:
    laptops = {"laptop", "tower"}
    shelves = dict.fromkeys(laptops, tiny)
    nodes = {**dict.fromkeys(laptops, 1500.0), "pi": 400.0}
    cluster = Cluster(nodes, threads=1, planner=False, checkpoints=shelves, verbose=True)
    cluster.environment["PYTHONPATH"] = hide_torch(tmp_path, ["pi"])
    definition = checkpoint_definition(str(tiny / "tiny-clip"), "clip")
    assert definition is not None
    specs = [spec.model_copy(update={"source": "tiny-clip"}) for spec in _networks(definition)]
    with cluster, Site(cluster.settings) as seen:
        assert seen.wait(lambda s: s.nodes.ready == nodes.keys() == s.profiles.keys(), WAIT_S)
        _hold(seen, "pi", specs)
        assert seen.wait(lambda s: all(_ready(s, spec.id) for spec in specs), WAIT_S), cluster.log("pi")[-3000:]
        assert {seen.reported["pi"].modules[spec.id].runtime for spec in specs} == {ONNX}
        made = [line for node in laptops for line in cluster.log(node).splitlines() if "part_is_exported" in line]
        assert len(made) == len(specs) == len({line.rpartition(" part=")[2] for line in made})


@pytest.mark.long
def test_a_shipped_modules_export_travels_to_a_device_that_was_given_none(tmp_path: Path) -> None:
    """The laptop has the weight wheels and torch; neither has a folder of exports."""
    cluster = Cluster({"laptop": 1500.0, "pi": 400.0}, threads=1, verbose=True)
    cluster.environment["PYTHONPATH"] = hide_torch(tmp_path, ["pi"])
    model, picture = shipped_catalogue().models["classification"], sample("chelsea.jpg")
    wanted = run_model("classification", {"image": [picture]})
    with cluster, Site(cluster.settings) as seen, Client(settings=cluster.settings) as client:
        assert seen.wait(lambda s: s.nodes.ready == {"laptop", "pi"} == s.profiles.keys(), WAIT_S)
        assert "efficientnet-lite" in set(seen.profiles["pi"].exported) - set(seen.profiles["pi"].classes)
        add_task(seen, "classification", m.TaskSpec(model="classification", deadline_s=60))
        assert seen.wait(lambda s: all(_ready(s, name) for name in model.module_ids), WAIT_S), cluster.log("pi")[-3000:]
        assert {seen.reported["pi"].modules[name].runtime for name in model.module_ids} == {ONNX}
        cluster.kill("laptop")
        assert seen.wait(_is_lost("laptop"), WAIT_S)
        answer = client.ask("classification", image=picture, deadline_s=WAIT_S)
        assert set(answer.route.values()) == {"pi"}
        _equal(answer.outputs["ranking"], wanted["ranking"])


def _asks_for_float16(site: Site) -> bool:
    profile = site.profiles.get("pi")
    is_current = profile is not None and profile.boot == site.nodes.boot("pi") and profile.dtype == "float16"
    return is_current and site.nodes.ready == {"laptop", "pi"} == site.profiles.keys()


@pytest.mark.long
def test_a_device_that_asks_for_float16_gets_the_export_in_float16(tmp_path: Path) -> None:
    cluster = Cluster({"laptop": 1500.0, "pi": 400.0}, threads=1, planner=False, verbose=True, folder=tmp_path)
    cluster.environment["PYTHONPATH"] = hide_torch(tmp_path, ["pi"])
    spec = shipped_catalogue().modules["minilm"]
    with cluster, Site(cluster.settings) as seen:
        cluster.kill("pi")
        cluster.environment["S2M3_DTYPE"] = "float16"  # of this node alone: the laptop runs already
        cluster.start_agent("pi")
        assert seen.wait(_asks_for_float16, WAIT_S), cluster.log("pi")[-3000:]
        assert seen.profiles["laptop"].dtype == "float32"
        _hold(seen, "pi", [spec])
        assert seen.wait(partial(_ready, module=spec.id), WAIT_S), cluster.log("pi")[-3000:]
        report = seen.reported["pi"].modules[spec.id]
        assert report.runtime == ONNX
        assert report.bytes < 0.55 * spec.memory_mb * 1e6
    half = spec.model_copy(update={"dtype": "float16"})
    parts = ExportedParts((PartCache(cluster.parts_of("pi"), 1 << 40),))
    light, whole = (
        registry.load(one, CheckpointSources(runtimes=(runtime,), exports=parts))
        for one, runtime in ((half, ONNX), (spec, TORCH))
    )
    rows = [one.run([one.prepare({"text": TEXTS})], frozenset({"embedding"}))[0]["embedding"] for one in (light, whole)]
    assert 0 < abs(rows[0] - rows[1]).max() < 1e-3
