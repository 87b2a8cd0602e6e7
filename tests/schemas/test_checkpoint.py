"""A checkpoint's folder read by its headers: what is wrong with it is found without reading a weight."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


def write_header(path: Path, table: Any, data: int) -> None:
    """Writes a safetensors file with any header, and so many bytes of data."""
    header = json.dumps(table).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(data))


def entry(begin: Any, end: Any, shape: Any = (2, 3)) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"a": entry(-24, 0), "b": entry(0, 24)}, r"the data_offsets of 'a' are \[-24, 0\]"),
        ({"a": entry(24, 0), "b": entry(0, 24)}, r"the data_offsets of 'a' are \[24, 0\]"),
        ({"a": entry(0, 24), "b": entry(0, 24)}, "a and b overlap"),
        ({"a": entry(0, 24), "b": entry(12, 36)}, "a and b overlap"),
        ({"a": entry(8, 32)}, "the header and a have a hole between them"),
        ({"a": entry(0, 24), "b": entry(28, 52)}, "a and b have a hole between them"),
        ({"a": entry(0, 24, (2, 4))}, "a has 24 bytes, its shape takes 32 bytes"),
        ({"a": entry(0, 24, (-2, -3))}, r"the shape of 'a' is \[-2, -3\]"),
        ({"a": entry(0, 24, ("2", 3))}, "the shape of 'a' is"),
        ({"a": entry(0, 24, (2.9, 3))}, "the shape of 'a' is"),
        ({"a": entry(0, 24.0)}, "the data_offsets of 'a' are"),
        ({"a": entry(0, end=True, shape=())}, "the data_offsets of 'a' are"),
        ({"a": entry(0, 24, [10**18] * 65)}, "the shape of 'a' is"),
    ],
)
def test_offsets_that_are_negative_overlap_or_leave_holes_are_refused(folder: Path, table: Any, said: str) -> None:
    last = max(row["data_offsets"][1] for row in table.values())
    write_header(folder / "model.safetensors", table, int(last))
    with pytest.raises(BadInputError, match=said):
        read_checkpoint(folder)


_OFFSETS: st.SearchStrategy[Any] = st.integers(-64, 128) | st.sampled_from([None, 1.5, "0", True, 2**70, [], {}])
_ENTRIES = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "U8", "Q4"]) | st.none(),
        "shape": st.lists(st.integers(-2, 4) | st.sampled_from(["1", None, 1.0, 2**70]), max_size=3) | st.none(),
        "data_offsets": st.lists(_OFFSETS, min_size=0, max_size=3) | st.none(),
    }
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(table=st.dictionaries(st.text(max_size=3), _ENTRIES, max_size=4) | st.lists(_ENTRIES), data=st.integers(0, 96))
def test_any_header_is_refused_or_tensors_lie_inside_the_file_and_apart(folder: Path, table: Any, data: int) -> None:
    path = folder / "model.safetensors"
    write_header(path, table, data)
    try:
        tensors = read_checkpoint(folder).tensors.values()
    except BadInputError:
        return
    end = path.stat().st_size - data
    for tensor in sorted(tensors, key=lambda tensor: (tensor.begin, tensor.nbytes)):
        assert tensor.begin == end
        end += tensor.nbytes
    assert end == path.stat().st_size


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(counts=st.lists(st.integers(0, 6), max_size=5))
def test_a_sound_header_is_read_whatever_its_sizes(folder: Path, counts: list[int]) -> None:
    begins = [4 * sum(counts[:i]) for i in range(len(counts) + 1)]
    table = {f"t{i}": entry(begins[i], begins[i + 1], [counts[i]]) for i in range(len(counts))}
    write_header(folder / "model.safetensors", table, begins[-1])
    assert {name: t.shape for name, t in read_checkpoint(folder).tensors.items()} == {
        f"t{i}": (count,) for i, count in enumerate(counts)
    }
