"""A part of a folder as files that travel: the part's tensors alone, equal bytes everywhere, opened as a checkpoint."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import CheckpointPart, open_part
from s2m3.agents.parts.torch_files import VirtualFile, dtype_of, stamp_of, torch_files
from s2m3.commands.tasks import checkpoint_definition
from s2m3.schemas.definitions import ModuleSpec


def specs(folder: Path) -> list[ModuleSpec]:
    definition = checkpoint_definition(str(folder), None)
    assert definition is not None
    return [spec for spec in definition.modules if spec.prefix]


def opened(spec: ModuleSpec) -> CheckpointPart:
    return open_part(spec, CheckpointSources())


def written(files: list[VirtualFile], folder: Path) -> Path:
    for file in files:
        (folder / file.name).parent.mkdir(parents=True, exist_ok=True)
        (folder / file.name).write_bytes(b"".join(file.chunks()))
    return folder


@pytest.mark.parametrize("name", ["tiny-clip", "tiny-vit", "tiny-clip-resnet"])
def test_the_files_are_a_checkpoint_with_the_same_part_and_no_other_tensor(
    tiny: Path, tmp_path: Path, name: str
) -> None:
    for number, spec in enumerate(specs(tiny / name)):
        original = opened(spec)
        folder = written(torch_files(original), tmp_path / str(number))
        copy = opened(spec.model_copy(update={"source": str(folder)}))
        assert fingerprint(copy) == fingerprint(original)
        (weights,) = folder.glob("*.safetensors")
        assert set(load_file(weights)) == set(original.names)
        assert not list(folder.glob("*.index.json"))
        assert dtype_of(original) == "float32"
        again = torch_files(copy)
        assert [(file.name, b"".join(file.chunks())) for file in again] == [
            (file.name, b"".join(file.chunks())) for file in torch_files(original)
        ]


def test_nothing_but_data_travels(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(tiny / "tiny-clip", folder)
    for name in ("modeling.py", "pytorch_model.bin", "training_args.bin", ".env.json", "trainer_state.json", "run.sh"):
        (folder / name).write_text("{}")
    (folder / "extra").mkdir()
    (folder / "extra" / "config.json").write_text("{}")
    for spec in specs(folder):
        names = {file.name for file in torch_files(opened(spec))}
        assert names >= {"config.json", "tokenizer.json", "model.safetensors"}
        assert all("/" not in name and name.endswith((".json", ".safetensors", ".txt")) for name in names)
        assert not names & {".env.json", "trainer_state.json"}


def test_any_range_of_a_file_is_read_as_of_the_whole(tiny: Path) -> None:
    weights = next(f for f in torch_files(opened(specs(tiny / "tiny-clip")[0])) if f.name.endswith(".safetensors"))
    whole = b"".join(weights.chunks())
    assert len(whole) == weights.nbytes
    for begin, length in ((0, 1), (0, len(whole)), (7, 100), (len(whole) - 3, 10), (len(whole), 1), (1000, 40_000)):
        assert weights.read(begin, length) == whole[begin : begin + length]
    for begin in range(0, len(whole), 997):
        assert weights.read(begin, 997) == whole[begin : begin + 997]


def test_a_folder_that_was_saved_anew_is_noticed(tiny: Path, tmp_path: Path) -> None:
    folder = tmp_path / "vit"
    shutil.copytree(tiny / "tiny-vit", folder)
    files = torch_files(opened(specs(folder)[0]))
    before = stamp_of(files)
    assert stamp_of(files) == before
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "more": 1}))
    assert stamp_of(files) != before
