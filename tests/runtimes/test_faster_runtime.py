"""An agent that has both runtimes uses the one that was measured to be faster, of those that fit its budget."""

import json
from pathlib import Path

import pytest

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.loading import Loader
from s2m3.agents.memory import rss_mb
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.registry.exported import exported_part
from s2m3.agents.runtimes.exported import MODULE_FILE, ExportedParts, exported_spec
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.agents.supervision.blackbox import Blackbox
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.parts import part_key

SPEC = shipped_catalogue().modules["minilm"]
#: Memory beside the process: with it torch fits the budget, or does not.
_ROOMY_MB, _SMALL_MB = 2_000.0, 100.0


def _exported(folder: Path, spec: ModuleSpec, *, faster: bool) -> ExportedParts:
    """Returns parts of which one is a module's, as an export notes which runtime was faster."""
    said = folder / "said.json"
    said.write_text(json.dumps({"module": exported_spec(spec), "faster": faster}))
    cache = PartCache(folder / "exports", 1_000_000)
    cache.put({MODULE_FILE: said}, content="c" * 64, runtime=ONNX, dtype="float32", keys=[part_key(spec, ONNX)])
    return ExportedParts((cache,))


@pytest.mark.parametrize(
    ("faster", "spare_mb", "chosen"),
    [(True, _ROOMY_MB, ONNX), (False, _ROOMY_MB, TORCH), (True, _SMALL_MB, ONNX), (False, _SMALL_MB, ONNX)],
    ids=["ONNX Runtime is faster", "torch is faster", "torch has no room", "torch is faster and has no room"],
)
def test_a_module_is_run_by_the_faster_runtime_that_fits(
    tmp_path: Path, spare_mb: float, chosen: str, *, faster: bool
) -> None:
    sources = CheckpointSources(runtimes=(ONNX, TORCH), exports=_exported(tmp_path, SPEC, faster=faster))
    loader = Loader("a", rss_mb() + spare_mb, 1, sources, lambda *_: None, watchdog=Watchdog(Blackbox()))
    assert registry.runtime_of(SPEC, loader.sources) == chosen


def test_a_part_of_a_checkpoint_is_run_by_torch_where_torch_can(tmp_path: Path) -> None:
    """Its folder may have been saved anew since it was exported."""
    spec = SPEC.model_copy(update={"class_": "text-encoder", "source": "clip"})
    sources = CheckpointSources(runtimes=(ONNX, TORCH), exports=_exported(tmp_path, spec, faster=True))
    assert exported_part(spec, sources, with_torch=True) is None
    assert exported_part(spec, sources, with_torch=False) is not None
