"""A device without torch that never saw a checkpoint serves it: a node with torch exports the parts, they travel."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas.definitions import Definition, ModuleSpec
from s2m3.schemas.parts import part_key
from s2m3.snapshot import Site
from tests import command
from tests.checkpoints.inprocess import run_all
from tests.runtimes.hiding import hide_torch
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
