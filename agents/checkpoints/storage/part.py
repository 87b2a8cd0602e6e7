"""Opens one part of a checkpoint: its configuration, its tensors by their names in the part. numpy alone, no torch."""

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.schemas.checkpoints.adapters import ADAPTER, ADAPTER_WEIGHTS
from s2m3.schemas.checkpoints.architectures import (
    Architecture,
    Part,
    architecture_name,
    architecture_of,
    families_of,
    value_at,
)
from s2m3.schemas.checkpoints.headers import (
    INDEX,
    WEIGHTS,
    Checkpoint,
    TensorInfo,
    read_checkpoint,
    read_config,
    read_index,
)
from s2m3.schemas.checkpoints.pipelines import PIPELINE, components_in, pipeline_of, weight_names
from s2m3.schemas.checkpoints.sentence_folders import dense_files
from s2m3.schemas.definitions import ModuleSpec, is_hub_id
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["CheckpointPart", "map_raw", "open_part", "read_floats", "read_raw"]

Floats = npt.NDArray[np.float32]
#: Path, size, time of change and number of a file -> its mapping, as long as an array of this process holds it.
_MAPPED: WeakValueDictionary[tuple[Path, int, int, int], mmap.mmap] = WeakValueDictionary()
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


@dataclass(frozen=True, slots=True)
class CheckpointPart:
    """One part of a checkpoint, none of its weights read.

    Args:
        spec: The module.
        part: The table's entry.
        architecture: What config.json calls it.
        checkpoint: The folder, with the headers of the part's own files.
        names: Name on disk -> name in the part.
        adapter: Folder of the LoRA adapter on the part, if it has one.
    """

    spec: ModuleSpec
    part: Part
    architecture: str
    checkpoint: Checkpoint
    names: Mapping[str, str]
    adapter: Path | None = None

    def tensors(self) -> dict[str, TensorInfo]:
        """Returns the tensors by their names in the part."""
        return {inside: self.checkpoint.tensors[name] for name, inside in self.names.items()}

    def value(self, *paths: str) -> object:
        """Returns the first value that config.json (or, under `generation.`, generation_config.json) has at a path."""
        document = {**self.checkpoint.config, "generation": self.checkpoint.generation}
        return next((found for path in paths if (found := value_at(path, document)) is not None), None)

    def option(self, name: str) -> object:
        """Returns an option of the part's class: the module's own, else the table's."""
        return self.spec.config.get(name, self.part.options.get(name))


def open_part(spec: ModuleSpec, sources: CheckpointSources) -> CheckpointPart:
    """Finds a module's part of its checkpoint.

    Raises:
        ModuleFailedError: There is no such checkpoint here, it is damaged or of an unknown architecture, or it has no
            such part, or that part is of another class.
    """
    try:
        folder = sources.folder(spec)
        config = read_config(folder)
        part = _part(spec, config, sources.architectures)
        # the same commit again: its main branch may have moved since the configuration was fetched
        pinned = spec.model_copy(update={"revision": folder.name}) if is_hub_id(spec.source) else spec
        sources.folder(pinned, [*_files(folder, config, part), *dense_files(config).values()])
        checkpoint = read_checkpoint(folder, lambda name: bool(part.names([name])), part.prefixes or None)
    except BadInputError as error:
        raise ModuleFailedError(f"module {spec.id}: {error.detail}") from error
    names = part.names(checkpoint.tensors)
    if not names:
        raise ModuleFailedError(f"module {spec.id}: {folder.name} holds no tensor {' or '.join(part.prefixes)}…")
    adapter = adapter_folder(spec, sources)
    return CheckpointPart(spec, part, architecture_name(checkpoint.config), checkpoint, names, adapter)


def adapter_folder(spec: ModuleSpec, sources: CheckpointSources) -> Path | None:
    """Returns the folder of the LoRA adapter that a module's configuration names; None if it names none.

    Raises:
        ModuleFailedError: There is no such folder here.
    """
    if (source := spec.config.get(ADAPTER)) is None:
        return None
    try:
        return sources.folder(spec.model_copy(update={"source": str(source), "revision": ""}), [ADAPTER_WEIGHTS])
    except BadInputError as error:
        raise ModuleFailedError(f"module {spec.id}: the adapter {source}: {error.detail}") from error


def _files(folder: Path, config: Mapping[str, Any], part: Part) -> list[str]:
    """Returns the weight files that hold a part: by the index, where there is one."""
    if PIPELINE not in config:
        names = WEIGHTS[1:] if "model_cfg" in config else WEIGHTS[:1]
        return _listed(folder / INDEX, part) or list(names)
    found: list[str] = []
    for name in components_in(config, part.prefixes):
        single, index = weight_names(pipeline_of(config)[name])
        listed = _listed(folder / name / index, part, f"{name}.")
        found += [f"{name}/{file}" for file in listed or [single]]
    return found


def _listed(index: Path, part: Part, component: str = "") -> list[str]:
    """Returns the files that an index names for a part; none without an index."""
    if not index.is_file():
        return []
    places = {f"{component}{name}": file for name, file in read_index(index).items()}
    return sorted({places[name] for name in part.names(places)})


def _part(spec: ModuleSpec, config: Mapping[str, Any], own: Sequence[Architecture]) -> Part:
    for known in families_of(config, own):  # whatever the folder says that the checkpoint is used for
        found = known.parts.get(spec.prefix)
        if known.use and found is not None and found.class_ == spec.class_:
            return found
    family = architecture_of(config, own)
    part = family.parts.get(spec.prefix)
    if part is None:
        raise BadInputError(f"{', '.join(family.names)} has no part {spec.prefix!r}; it has {', '.join(family.parts)}")
    if part.class_ != spec.class_:
        raise BadInputError(f"the part {spec.prefix!r} is of class {part.class_!r}, not {spec.class_!r}")
    return part


def read_raw(tensor: TensorInfo) -> npt.NDArray[np.uint8]:
    """Returns a tensor's bytes, read into memory of our own.

    Not mapped: a checkpoint that somebody saves anew in its place must not take the agent with it (SIGBUS).

    Raises:
        ModuleFailedError: The file cannot be read, or has become shorter.
    """
    try:
        raw = np.fromfile(tensor.file, np.uint8, tensor.nbytes, offset=tensor.begin)
    except OSError as error:
        raise ModuleFailedError(f"{tensor.file.name} cannot be read: {error}") from error
    if raw.nbytes != tensor.nbytes:
        raise ModuleFailedError(f"{tensor.file.name} was cut off while it was read")
    return raw


def map_raw(tensor: TensorInfo) -> npt.NDArray[np.uint8]:
    """Returns a tensor's bytes, mapped from the file: Linux reads its pages when they are needed, and drops them again.

    Only for files that nobody changes, those of our own cache of parts: of one that becomes shorter, the next access
    ends the process (SIGBUS). Nobody can write into the array: so it needs no memory that could be promised to it.

    Raises:
        ModuleFailedError: The file cannot be mapped, or has become shorter.
    """
    try:
        with tensor.file.open("rb") as file:
            stat = tensor.file.stat()
            key = (tensor.file, stat.st_size, stat.st_mtime_ns, stat.st_ino)
            whole = _MAPPED.get(key)
            if whole is None:
                whole = _MAPPED[key] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        return np.frombuffer(whole, np.uint8, tensor.nbytes, tensor.begin)
    except (OSError, ValueError) as error:
        raise ModuleFailedError(f"{tensor.file.name} cannot be mapped: {error}") from error


def read_floats(tensor: TensorInfo) -> Floats:
    """Returns a tensor of floating-point numbers as float32.

    Raises:
        ModuleFailedError: It holds something else.
    """
    raw = read_raw(tensor)
    if tensor.dtype == "BF16":  # the upper half of a float32
        floats: Floats = (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    elif tensor.dtype in _FLOATS:
        floats = raw.view(_FLOATS[tensor.dtype]).astype(np.float32, copy=False)
    else:
        raise ModuleFailedError(f"{tensor.file.name} holds {tensor.dtype} where floating-point numbers are wanted")
    return floats.reshape(tensor.shape)
