"""Modules whose weights are mapped from the disk: which can be, when one is, and the files that it is built of.

Only files in a cache of parts are mapped: nobody changes them. A part of a user's folder is copied there first.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import CheckpointPart, open_part
from s2m3.agents.devices import Device
from s2m3.agents.parts.cache import OpenPart, PartCache
from s2m3.agents.parts.torch_files import VirtualFile, dtype_of, stamp_of, torch_files
from s2m3.agents.registry.classes import OF_CHECKPOINTS, SHIPPED
from s2m3.agents.registry.exported import EXPORTABLE, ONNX_RUNTIME
from s2m3.agents.registry.loading import exported_of
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError, NoCapacityError
from s2m3.schemas.parts import ADAPTER_FOLDER, part_key

__all__ = ["MappedFiles", "is_to_be_mapped", "mapped_classes", "mapped_files", "why_not_mapped"]

#: Part of a module's bytes that may be in another dtype than the module's: these tensors are read, and converted.
_CONVERTED = 0.05
_STORED = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
_FLOATS = ("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2")


def mapped_classes(sources: CheckpointSources, device: Device) -> list[str]:
    """Returns the module classes whose weights this agent can map, sorted: for the profile. Nothing is imported."""
    if sys.platform != "linux" or not device.is_cpu:
        return []
    by_torch = {name for name in OF_CHECKPOINTS if SHIPPED[name].uses_torch and SHIPPED[name].missing_package() is None}
    exported = {
        name for name, one in EXPORTABLE.items() if ONNX_RUNTIME in one.packages and one.missing_package is None
    }
    torch_too = TORCH in sources.runtimes and sources.cache is not None
    return sorted((by_torch if torch_too else set()) | (exported if ONNX in sources.runtimes else set()))


def is_to_be_mapped(spec: ModuleSpec, dtype: Dtype, free_mb: float, budget_mb: float, why_not: str | None) -> bool:
    """Returns whether the weights of a module that is about to be loaded are to be mapped. Pure.

    Args:
        spec: The module.
        dtype: Of its weights.
        free_mb: What is free of the memory budget, 10^6 bytes.
        budget_mb: The budget.
        why_not: Why its weights cannot be mapped; None if they can.

    Raises:
        NoCapacityError: The module fits neither way; the text says why.
    """
    needed, mapped_mb = spec.weights_mb(dtype) + spec.cache_mb, spec.mapped_mb(dtype) + spec.cache_mb
    is_asked, fits = spec.map_weights in ("if-needed", "always"), needed <= free_mb
    if fits and (spec.map_weights != "always" or why_not is not None):
        return False
    if is_asked and why_not is None and mapped_mb <= free_mb:
        return True
    lacks = f"{spec.id} needs {needed:.0f} MB, {free_mb:.0f} of {budget_mb:.0f} are free"
    if is_asked:
        lacks += f"; {why_not or f'with mapped weights it needs {mapped_mb:.0f} MB'}"
    raise NoCapacityError(lacks)


def why_not_mapped(
    spec: ModuleSpec, sources: CheckpointSources, runtime: str, device: Device, dtype: Dtype
) -> str | None:
    """Returns why a module's weights cannot be mapped here; None if they can. Of its files, headers alone are read.

    Args:
        spec: The module.
        sources: The checkpoints on this device.
        runtime: What is to run the module.
        device: Where it is to compute.
        dtype: Of its weights.
    """
    reasons = (
        (sys.platform != "linux", "that takes Linux"),
        (not device.is_cpu, f"they go to {device.name}"),
        (runtime == ONNX, ""),
        (runtime != TORCH or spec.class_ not in OF_CHECKPOINTS, f"{spec.class_} makes them of its own files"),
        (sources.cache is None, "this agent has no cache of parts (parts_mb is 0)"),
        (dtype not in _STORED, f"{dtype} is made of the file's numbers when they are read"),
    )
    why = next((why for is_so, why in reasons if is_so), None)
    if why is None:
        try:
            why = _why_converted(open_part(spec, sources), dtype)
        except ModuleFailedError:
            why = ""  # loading it says what is wrong
    return f"its weights cannot be mapped: {why}" if why else None


def _why_converted(opened: CheckpointPart, dtype: Dtype) -> str:
    """Returns why a part's tensors cannot be used as they lie in their files; "" if they can."""
    floats = [tensor for tensor in opened.tensors().values() if tensor.dtype in _FLOATS]
    other = sum(tensor.nbytes for tensor in floats if tensor.dtype != _STORED[dtype])
    if other > _CONVERTED * sum(tensor.nbytes for tensor in floats):
        return f"the files hold {dtype_of(opened)}, and this node has them in {dtype} (--dtype)"
    if opened.part.network.startswith("open_clip.") and dtype != "float32":
        return "the towers of open_clip are read as float32"
    return ""


@dataclass(frozen=True, slots=True)
class MappedFiles:
    """The files of a module whose weights are to be mapped.

    Args:
        spec: The module as it is to be built: of these files, mapped.
        part: They stay on the disk until it is closed.
    """

    spec: ModuleSpec
    part: OpenPart


def mapped_files(spec: ModuleSpec, sources: CheckpointSources, runtime: str, fingerprint: str) -> MappedFiles:
    """Returns the files of a module whose weights are to be mapped, copied into the cache of parts if need be.

    Args:
        spec: The module; its weights can be mapped (why_not_mapped).
        sources: The checkpoints on this device.
        runtime: What is to run the module.
        fingerprint: Of the module.

    Raises:
        ModuleFailedError: A file cannot be read, or was changed or removed meanwhile.
        NoCapacityError: The part does not fit into the cache.
    """
    mapped = spec.model_copy(update={"map_weights": "always"})
    if runtime == ONNX:
        exported = exported_of(spec, sources)
        return MappedFiles(mapped, _opened(exported.folder if exported is not None else None, spec))
    if sources.cache is None:
        raise ModuleFailedError(f"{spec.id} cannot be mapped without a cache of parts")
    source = Path(spec.source)
    is_cached = source.is_absolute() and source.is_relative_to(sources.cache.folder.absolute())
    folder = source if is_cached else _copied(spec, sources, sources.cache, fingerprint)
    own: dict[str, object] = {"source": str(folder.absolute()), "revision": ""}
    if ADAPTER in spec.config and not is_cached:
        own["config"] = {**spec.config, ADAPTER: str(folder.absolute() / ADAPTER_FOLDER)}
    return MappedFiles(mapped.model_copy(update=own), _opened(folder, spec))


def _copied(spec: ModuleSpec, sources: CheckpointSources, cache: PartCache, fingerprint: str) -> Path:
    """Returns the folder in the cache that holds a part of a checkpoint, which is copied there if it is not there."""
    opened = open_part(spec, sources)
    key, dtype = part_key(spec), dtype_of(opened)
    for known in cache.find(content=fingerprint, key=key, runtimes=(TORCH,), dtype=dtype):
        return known.folder
    files: list[VirtualFile] = torch_files(opened)
    try:
        stamp = stamp_of(files)
        part = cache.put(
            {file.name: file for file in files}, content=fingerprint, runtime=TORCH, dtype=dtype, keys=[key]
        )
        is_current = stamp_of(files) == stamp
    except OSError as error:
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} cannot be read: {error}") from error
    if not is_current:
        cache.evict(part.manifest.digest)
        raise ModuleFailedError(f"{opened.checkpoint.folder.name} was changed while it was read")
    return part.folder


def _opened(folder: Path | None, spec: ModuleSpec) -> OpenPart:
    """Opens the part that lies in a folder of a cache."""
    place = folder.parent if folder is not None else Path()
    opened = PartCache(place.parent, 0).open(place.name)
    if opened is None:
        raise ModuleFailedError(f"the part of {spec.id} was removed before it was mapped")
    return opened
