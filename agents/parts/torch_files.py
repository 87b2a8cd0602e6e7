"""A part of a checkpoint's folder as files that can travel: its own tensors, its configuration. No torch, no copies.

Equal parts give equal bytes on every device: one safetensors file per folder of weights, tensors in order of their
names, however the checkpoint is sharded, and the small files as they are. Nothing is held in memory but a chunk.
"""

import json
import struct
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.schemas.checkpoints.adapters import ADAPTER_CONFIG, ADAPTER_WEIGHTS
from s2m3.schemas.checkpoints.headers import WEIGHTS, TensorInfo
from s2m3.schemas.checkpoints.pipelines import PIPELINE, components_in, pipeline_of, weight_names
from s2m3.schemas.checkpoints.sentence_folders import dense_files, modules_of
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.parts import ADAPTER_FOLDER, check_file_name

__all__ = ["Segment", "VirtualFile", "dtype_of", "file_of", "stamp_of", "torch_files"]

_CHUNK = 1 << 20
#: Small files of a checkpoint that its parts are opened with; larger ones are no configuration.
_SMALL = (".json", ".txt", ".model", ".jinja", ".tiktoken", ".spm")
_LARGEST_SMALL = 64_000_000
#: Small files that no part is opened with: indices of shards that do not travel, notes of training, texts for people.
_LEFT_OUT = ("trainer_state.json", "all_results.json", "train_results.json", "eval_results.json")
#: Files that make a folder inside a checkpoint one that is read with it.
_IN_FOLDERS = ("tokenizer_config.json", "preprocessor_config.json", "*.jinja")
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I8": "int8", "U8": "uint8"}


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes of a file that is made of pieces of others: given, or those of a file from an offset."""

    length: int
    data: bytes = b""
    path: Path | None = None
    begin: int = 0

    def read(self, offset: int, length: int) -> bytes:
        """Returns some of the bytes; fewer if the file has become shorter.

        Raises:
            OSError: The file cannot be read.
        """
        if self.path is None:
            return self.data[offset : offset + length]
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.begin + offset)
            return file.read(length)


@dataclass(frozen=True, slots=True)
class VirtualFile:
    """A file of a part, by its name there, whose bytes lie elsewhere."""

    name: str
    segments: tuple[Segment, ...]

    @property
    def nbytes(self) -> int:
        """Its length in bytes."""
        return sum(segment.length for segment in self.segments)

    def read(self, offset: int, length: int) -> bytes:
        """Returns bytes from an offset; fewer at the end, or if a file below has become shorter.

        Raises:
            OSError: A file cannot be read.
        """
        found: list[bytes] = []
        for segment in self.segments:
            if length <= 0:
                break
            if offset >= segment.length:
                offset -= segment.length
                continue
            taken = min(length, segment.length - offset)
            found.append(segment.read(offset, taken))
            offset, length = 0, length - taken
        return b"".join(found)

    def chunks(self) -> Iterator[bytes]:
        """Yields all bytes in order.

        Raises:
            OSError: A file cannot be read.
        """
        for segment in self.segments:
            for offset in range(0, segment.length, _CHUNK):
                yield segment.read(offset, min(_CHUNK, segment.length - offset))


def torch_files(opened: CheckpointPart) -> list[VirtualFile]:
    """Returns the files of a part, in order of their names: a folder of them is a checkpoint with this part alone.

    Raises:
        ModuleFailedError: A file cannot be read.
    """
    folder, config = opened.checkpoint.folder, opened.checkpoint.config
    dense = dense_files(config)
    weights: dict[str, dict[str, TensorInfo]] = {}
    if PIPELINE in config:
        components = components_in(config, opened.part.prefixes)
        single = {name: weight_names(pipeline_of(config)[name])[0] for name in components}
        weights = {f"{name}/{file}": {} for name, file in single.items()}
        for name in opened.names:
            component, _, inside = name.partition(".")
            weights[f"{component}/{single[component]}"][inside] = opened.checkpoint.tensors[name]
    else:
        into = WEIGHTS[1] if "model_cfg" in config else WEIGHTS[0]
        of_dense = {folder / file for file in dense.values()}
        found = {name: opened.checkpoint.tensors[name] for name in opened.names}
        weights[into] = {name: tensor for name, tensor in found.items() if tensor.file not in of_dense}
    try:
        files = [_safetensors(name, tensors) for name, tensors in weights.items()]
        files += [file_of(file, folder / file) for file in dense.values()]
        files += [file_of(path.relative_to(folder).as_posix(), path) for path in _small_files(opened)]
        if opened.adapter is not None:
            names = (ADAPTER_CONFIG, ADAPTER_WEIGHTS)
            files += [file_of(f"{ADAPTER_FOLDER}/{name}", opened.adapter / name) for name in names]
    except OSError as error:
        raise ModuleFailedError(f"{folder.name} cannot be read: {error}") from error
    return sorted(files, key=lambda file: file.name)


def _small_files(opened: CheckpointPart) -> Iterator[Path]:
    """Yields what a part is opened with beside its weights: at the top, and in the folders that are read with it."""
    folder, config = opened.checkpoint.folder, opened.checkpoint.config
    named = [*pipeline_of(config), *(step["path"] for step in modules_of(config) if step["path"])]
    # a processor keeps each further tokenizer in a folder of its own
    named += sorted(path.parent.name for kept in _IN_FOLDERS for path in folder.glob(f"*/{kept}"))
    for inside in dict.fromkeys(["", *named]):
        there = sorted((folder / inside).iterdir()) if (folder / inside).is_dir() else []
        for path in there:
            small = path.suffix in _SMALL and not path.name.endswith(".index.json") and path.name not in _LEFT_OUT
            if small and path.is_file() and path.stat().st_size <= _LARGEST_SMALL and _may_travel(path, folder):
                yield path


def _may_travel(path: Path, folder: Path) -> bool:
    try:
        check_file_name(path.relative_to(folder).as_posix())
    except BadInputError:
        return False
    return True


def file_of(name: str, path: Path) -> VirtualFile:
    """Returns a file as it is, under a name.

    Raises:
        OSError: It cannot be read.
    """
    length = path.stat().st_size
    return VirtualFile(name, (Segment(length, path=path),) if length else ())


def _safetensors(name: str, tensors: Mapping[str, TensorInfo]) -> VirtualFile:
    """Returns a safetensors file of some tensors of others: in order of their names, the header padded to 8 bytes."""
    header, at = {}, 0
    for key, tensor in sorted(tensors.items()):
        place = [at, at + tensor.nbytes]
        header[key] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": place}
        at += tensor.nbytes
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    start = struct.pack("<Q", len(text)) + text
    data = [Segment(tensor.nbytes, path=tensor.file, begin=tensor.begin) for _, tensor in sorted(tensors.items())]
    return VirtualFile(name, (Segment(len(start), start), *(segment for segment in data if segment.length)))


def dtype_of(opened: CheckpointPart) -> str:
    """Returns the dtype of most bytes of a part's weights in their files."""
    nbytes: Counter[str] = Counter()
    for tensor in opened.tensors().values():
        nbytes[tensor.dtype] += tensor.nbytes
    most = max(sorted(nbytes), key=lambda dtype: nbytes[dtype], default="")
    return _DTYPES.get(most, most.lower())


def stamp_of(files: Iterable[VirtualFile]) -> dict[Path, tuple[int, int, int]]:
    """Returns of each file below its size, time of change and number: when these change, its bytes may have.

    Raises:
        OSError: One is gone.
    """
    found: dict[Path, tuple[int, int, int]] = {}
    for path in {segment.path for file in files for segment in file.segments if segment.path is not None}:
        stat = path.stat()
        found[path] = (stat.st_size, stat.st_mtime_ns, stat.st_ino)
    return found
