"""Reads a checkpoint's folder: config.json, the index, and the headers of safetensors files, but no weights."""

import json
import struct
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from s2m3.schemas.checkpoints.json_files import read_json
from s2m3.schemas.checkpoints.pipelines import (
    MODEL_INDEX,
    PIPELINE,
    components_in,
    pipeline_of,
    read_pipeline,
    weight_names,
)
from s2m3.schemas.checkpoints.sentence_folders import dense_files, read_sentence_folder
from s2m3.schemas.errors import BadInputError, UnsupportedCheckpointError

__all__ = [
    "CONFIGS",
    "INDEX",
    "WEIGHTS",
    "Checkpoint",
    "TensorInfo",
    "read_checkpoint",
    "read_config",
    "read_index",
    "read_json",
    "read_settings",
]

#: File names: of the configuration; of the weights, if they are in one file; of the index, if they are sharded.
CONFIGS = ("config.json", "open_clip_config.json", MODEL_INDEX)
WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors")
INDEX = "model.safetensors.index.json"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".msgpack", ".h5")
#: safetensors' own limit on a header.
_MAX_HEADER = 100_000_000
_MAX_DIMS = 64
#: Characters of names and values that an error text shows.
_SHOWN = 80
_WIDTHS = {8: "F64 I64 U64", 4: "F32 I32 U32", 2: "F16 BF16 I16 U16", 1: "I8 U8 BOOL F8_E4M3 F8_E5M2"}
_BYTES = {dtype: width for width, dtypes in _WIDTHS.items() for dtype in dtypes.split()}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """One tensor of a safetensors file, from the header."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    #: offset of the tensor's data in the file, bytes
    begin: int

    @property
    def count(self) -> int:
        """Number of elements."""
        count = 1
        for length in self.shape:
            count *= length
        return count

    @property
    def nbytes(self) -> int:
        """Size on disk, bytes."""
        return self.count * _BYTES[self.dtype]


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The configuration and tensor headers of a checkpoint.

    Args:
        folder: The checkpoint's folder.
        config: config.json, open_clip_config.json, or what pipelines.py makes of model_index.json.
        generation: generation_config.json; empty if there is none.
        tensors: Name on disk -> tensor; a pipeline's names begin with the component: `unet.conv_in.weight`.
    """

    folder: Path
    config: Mapping[str, Any]
    generation: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]


def read_checkpoint(
    folder: Path, wanted: Callable[[str], bool] = lambda _: True, starts: Iterable[str] | None = None
) -> Checkpoint:
    """Reads the configuration and headers of a checkpoint, sharded or not.

    Args:
        folder: The checkpoint's folder.
        wanted: Selects tensors by name on disk; of a sharded checkpoint, only files with selected tensors are read.
        starts: What the names of selected tensors begin with; None: anything. Of a pipeline, only components with such
            tensors are read.

    Raises:
        BadInputError: There is no configuration, only pickled weights, or a file is missing, truncated, or contradicts
            the index. The text names the file.
    """
    config = read_config(folder)
    if PIPELINE in config:
        return Checkpoint(folder, config, {}, _of_components(folder, config, wanted, starts))
    names = WEIGHTS[1:] if "model_cfg" in config else WEIGHTS[:1]
    tensors = _weights(folder, names, INDEX, wanted)
    tensors |= {name: tensor for name, tensor in _dense(folder, config).items() if wanted(name)}
    return Checkpoint(folder, config, _generation(folder), tensors)


def read_settings(folder: Path) -> Checkpoint:
    """Reads the configuration of a checkpoint and no header: it has no tensors.

    Raises:
        BadInputError: There is no configuration, or it cannot be read.
    """
    return Checkpoint(folder, read_config(folder), _generation(folder), {})


def _generation(folder: Path) -> dict[str, Any]:
    path = folder / "generation_config.json"
    return read_json(path) if path.is_file() else {}


def read_config(folder: Path) -> dict[str, Any]:
    """Returns a checkpoint's config.json or open_clip_config.json, with what sentence-transformers' files say.

    Of a pipeline in diffusers' format it is what pipelines.py makes of model_index.json.

    Raises:
        BadInputError: There is no configuration, or it cannot be read.
    """
    if not folder.is_dir():
        raise BadInputError(f"{folder} is not a folder")
    found = [read_json(folder / name) for name in CONFIGS[:2] if (folder / name).is_file()]
    if not found and (folder / MODEL_INDEX).is_file():
        return read_pipeline(folder)
    if not found:
        raise BadInputError(f"{folder.name} holds no {' or '.join(CONFIGS)}")
    # an open_clip repository may also contain an unrelated config.json
    config = next((config for config in found if "architectures" in config or "model_cfg" in config), found[0])
    return config | read_sentence_folder(folder)


def _of_components(
    folder: Path, config: Mapping[str, Any], wanted: Callable[[str], bool], starts: Iterable[str] | None
) -> dict[str, TensorInfo]:
    """Returns the tensors of a pipeline's components, each of which has a folder of its own."""
    found: dict[str, TensorInfo] = {}
    for name in components_in(config, starts):
        single, index = weight_names(pipeline_of(config)[name])
        inside = _weights(folder / name, [single], index, lambda tensor, at=name: wanted(f"{at}.{tensor}"))  # type: ignore[misc]
        found |= {f"{name}.{tensor}": info for tensor, info in inside.items()}
    return found


def _weights(folder: Path, names: Sequence[str], index: str, wanted: Callable[[str], bool]) -> dict[str, TensorInfo]:
    """Returns the wanted tensors of a folder: of the files that its index names, or of its one file."""
    if (folder / index).is_file():
        return _sharded(folder, index, wanted)
    path = next((folder / name for name in names if (folder / name).is_file()), None)
    if path is None:
        there = sorted(folder.iterdir()) if folder.is_dir() else []
        pickles = [path.name for path in there if path.suffix in _PICKLES]
        only = f", only {', '.join(pickles)}: other formats can run code and are never read" if pickles else ""
        kind = UnsupportedCheckpointError if pickles else BadInputError
        raise kind(f"{folder.name} holds no {names[0]} or {index}{only}")
    return {name: tensor for name, tensor in _header(path).items() if wanted(name)}


def _dense(folder: Path, config: Mapping[str, Any]) -> dict[str, TensorInfo]:
    """Returns the tensors of a sentence encoder's linear layers, `2_Dense.linear.weight`, each of its own folder."""
    found: dict[str, TensorInfo] = {}
    for path, file in dense_files(config).items():
        if not (folder / file).is_file():
            raise UnsupportedCheckpointError(f"{folder.name} holds no {file}: other formats are never read")
        found |= {f"{path}.{name}": tensor for name, tensor in _header(folder / file).items()}
    return found


def _sharded(folder: Path, index: str, wanted: Callable[[str], bool]) -> dict[str, TensorInfo]:
    places = {name: file for name, file in read_index(folder / index).items() if wanted(name)}
    headers: dict[str, dict[str, TensorInfo]] = {}
    for file in sorted(set(places.values())):
        if Path(file).name != file or not (folder / file).is_file():
            raise BadInputError(f"{index} names the file {file!r}, which is not there")
        headers[file] = _header(folder / file)
    for name, file in places.items():
        if name not in headers[file]:
            raise BadInputError(f"{index} says that {name} is in {file}, which does not hold it")
    return {name: headers[file][name] for name, file in places.items()}


def read_index(path: Path) -> dict[str, str]:
    """Returns tensor -> file of the index of a sharded checkpoint.

    Raises:
        BadInputError: The index cannot be read, or holds no such table.
    """
    index = read_json(path).get("weight_map")
    if not isinstance(index, dict) or not all(isinstance(file, str) for file in index.values()):
        raise BadInputError(f"{path.name} holds no weight_map")
    return index


def _header(path: Path) -> dict[str, TensorInfo]:
    """Returns a file's tensors; raises BadInputError unless the header is valid and the file as long as it says."""
    try:
        with path.open("rb") as file:
            table, begin = _table(path, file)
        places = {name: _place(name, entry) for name, entry in table.items()}
        tensors = {
            name: TensorInfo(path, entry["dtype"], _shape(name, entry), begin + places[name][0])
            for name, entry in table.items()
        }
        unsupported = [tensor.dtype for tensor in tensors.values() if tensor.dtype not in _BYTES]
    except OSError as error:
        raise BadInputError(f"{path.name} cannot be read: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BadInputError(f"{path.name} is no safetensors file: {type(error).__name__}: {error}"[:300]) from error
    if unsupported:
        raise BadInputError(f"{path.name} holds tensors of dtype {unsupported[0]}, which are not read")
    end = _end_of(path, tensors, places)
    if (size := path.stat().st_size) != begin + end:
        raise BadInputError(f"{path.name} is damaged: it has {size} bytes, its header says {begin + end}")
    return tensors


def _place(name: str, entry: Mapping[str, Any]) -> tuple[int, int]:
    """Returns where a tensor's data begin and end, behind the header; raises ValueError if that is no place."""
    begin, end = entry["data_offsets"]
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise ValueError(f"the data_offsets of {name[:_SHOWN]!r} are {str([begin, end])[:_SHOWN]}")
    return begin, end


def _shape(name: str, entry: Mapping[str, Any]) -> tuple[int, ...]:
    shape = entry["shape"]
    if (
        not isinstance(shape, list)
        or len(shape) > _MAX_DIMS
        or any(type(length) is not int or length < 0 for length in shape)
    ):
        raise ValueError(f"the shape of {name[:_SHOWN]!r} is {str(shape)[:_SHOWN]}")
    return tuple(shape)


def _end_of(path: Path, tensors: Mapping[str, TensorInfo], places: Mapping[str, tuple[int, int]]) -> int:
    """Returns where the data of all tensors end; they have to lie one behind the other, as the format demands.

    Raises:
        BadInputError: Two tensors overlap, there is a hole between them, or one has other bytes than its shape.
    """
    end, before = 0, "the header"
    for name, place in sorted(places.items(), key=lambda item: item[1]):
        if place[0] != end:
            how = "overlap" if place[0] < end else "have a hole between them"
            raise BadInputError(f"{path.name} is damaged: {before[:_SHOWN]} and {name[:_SHOWN]} {how}")
        if tensors[name].nbytes != place[1] - place[0]:
            wanted = f"its shape takes {tensors[name].nbytes} bytes"
            raise BadInputError(f"{path.name} is damaged: {name[:_SHOWN]} has {place[1] - place[0]} bytes, {wanted}")
        end, before = place[1], name
    return end


def _table(path: Path, file: BinaryIO) -> tuple[dict[str, Any], int]:
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER + 1  # noqa: PLR2004 - the header begins with its length
    if length > _MAX_HEADER:
        raise BadInputError(f"{path.name} is no safetensors file, or is cut off")
    table = json.loads(file.read(length))
    table.pop("__metadata__", None)
    return table, 8 + length
