"""A part of any family is the same part in another folder: its network, its tokenizer, its adapter find their files."""

from pathlib import Path

import pytest

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.parts.torch_files import torch_files
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.parts import ADAPTER_FOLDER
from tests.checkpoints.test_lora import write_adapter
from tests.families.conftest import checkpoint
from tests.families.family import Family, definition
from tests.families.table import FAMILIES
from tests.parts.test_torch_files import written

#: Those whose folders differ most: a pipeline, layers in folders of their own, several files of one tokenizer.
_SHOWN = ("stable-diffusion", "embedding-gemma")
_ROWS = [pytest.param(row, id=row.name, marks=() if row.name in _SHOWN else (pytest.mark.long,)) for row in FAMILIES]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("families")


def _copied(spec: ModuleSpec, sources: CheckpointSources, place: Path) -> ModuleSpec:
    """Writes what would travel into a folder; returns the module of that folder, as the node that gets it has it."""
    written(torch_files(open_part(spec, sources)), place)
    config = {**spec.config, "adapter": str(place / ADAPTER_FOLDER)} if "adapter" in spec.config else spec.config
    return spec.model_copy(update={"source": str(place), "config": config})


@pytest.mark.parametrize("family", _ROWS)
def test_a_part_is_the_same_part_in_the_folder_that_it_travels_to(family: Family, folder: Path, tmp_path: Path) -> None:
    sources = CheckpointSources((folder,))
    for spec in definition(checkpoint(folder, family), family.options).modules:
        place = tmp_path / spec.id
        copy = _copied(spec, sources, place)
        assert fingerprint(open_part(copy, CheckpointSources())) == fingerprint(open_part(spec, sources))
        module = registry.load(copy, CheckpointSources())
        assert module.nbytes == registry.load(spec, sources).nbytes
        assert not [path for path in place.rglob("*") if path.suffix in (".py", ".bin", ".pt", ".pkl")]


def test_an_adapter_travels_with_its_base(tmp_path: Path) -> None:
    row = next(row for row in FAMILIES if row.name == "llama")
    base = checkpoint(tmp_path, row)
    write_adapter(base, tmp_path / "lora", "llama")
    spec = definition(base).modules[0]
    spec = spec.model_copy(update={"config": {**spec.config, "adapter": "lora"}})
    sources = CheckpointSources((tmp_path,))
    copy = _copied(spec, sources, tmp_path / "there")
    assert fingerprint(open_part(copy, CheckpointSources())) == fingerprint(open_part(spec, sources))
    assert registry.load(copy, CheckpointSources()).nbytes == registry.load(spec, sources).nbytes
