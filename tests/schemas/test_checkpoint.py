"""A checkpoint's folder read by its headers: what is wrong with it is found without reading a weight."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.errors import BadInputError


def write_weights(path: Path, *names: str) -> None:
    """Writes a safetensors file of tensors of 2 x 3 float32 each."""
    table = {
        name: {"dtype": "F32", "shape": [2, 3], "data_offsets": [24 * i, 24 * i + 24]} for i, name in enumerate(names)
    }
    header = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(24 * len(names)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"architectures": ["CLIPModel"]}')
    return tmp_path


@pytest.fixture
def sharded(folder: Path) -> Path:
    write_weights(folder / "one.safetensors", "a", "b")
    write_weights(folder / "two.safetensors", "c")
    places = {"a": "one.safetensors", "b": "one.safetensors", "c": "two.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return folder


def test_one_file_is_read_by_its_header(folder: Path) -> None:
    write_weights(folder / "model.safetensors", "a", "b")
    found = read_checkpoint(folder)
    assert {name: (t.dtype, t.shape, t.count, t.nbytes) for name, t in found.tensors.items()} == {
        "a": ("F32", (2, 3), 6, 24),
        "b": ("F32", (2, 3), 6, 24),
    }
    assert found.config == {"architectures": ["CLIPModel"]}


def test_only_the_shards_that_hold_what_is_wanted_are_opened(sharded: Path) -> None:
    assert sorted(read_checkpoint(sharded).tensors) == ["a", "b", "c"]
    (sharded / "two.safetensors").unlink()
    assert sorted(read_checkpoint(sharded, lambda name: name in "ab").tensors) == ["a", "b"]
    with pytest.raises(BadInputError, match=r"names the file 'two\.safetensors', which is not there"):
        read_checkpoint(sharded)


def _cut(folder: Path) -> None:
    path = folder / "one.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def _say(text: str, file: str = "model.safetensors.index.json") -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / file).write_text(text)

    return write


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (_cut, "one.safetensors is damaged"),
        (_say("{}"), "holds no weight_map"),
        (_say("nonsense"), "index.json cannot be read"),
        (_say('{"weight_map": {"a": "two.safetensors"}}'), "says that a is in two.safetensors"),
        (_say('{"weight_map": {"a": "../one.safetensors"}}'), "which is not there"),
        (_say("[]", "config.json"), "config.json holds no object"),
        (_say("abc", "one.safetensors"), "one.safetensors is no safetensors file"),
        (_say("\x02\0\0\0\0\0\0\0[]", "one.safetensors"), "one.safetensors is no safetensors file"),
    ],
)
def test_what_is_damaged_is_named(sharded: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(sharded)
    with pytest.raises(BadInputError, match=said):
        read_checkpoint(sharded)


def test_pickled_weights_are_refused_by_name(folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    with pytest.raises(BadInputError, match=r"only pytorch_model\.bin"):
        read_checkpoint(folder)


def test_a_folder_without_configuration_is_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match=r"holds no config\.json"):
        read_checkpoint(tmp_path)
    with pytest.raises(BadInputError, match="is not a folder"):
        read_checkpoint(tmp_path / "nowhere")
