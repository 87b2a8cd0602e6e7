"""Exports a module's part for ONNX Runtime in a process of its own (side_process.py), into a cache."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.memory import available_mb
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.parts.side_process import answer_questions, ask_process, module_in, question_of
from s2m3.agents.registry.classes import OF_CHECKPOINTS
from s2m3.agents.registry.exported import EXPORTABLE
from s2m3.agents.runtimes.exported import ExportedParts
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.agents.zoo.wheels import wheel_folder
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError, NoCapacityError

__all__ = ["check_room", "export_checkpoint_part", "exported_digest"]

_PROCESS = "s2m3.agents.parts.exporting"
#: Longest time of it: CLIP ViT-L takes a minute of a laptop.
_LONGEST_S = 600.0
#: Memory that it takes: torch and transformers, 10^6 bytes, and how often the weights are there.
_CODE_MB, _COPIES = 700.0, 4.0


def exported_digest(spec: ModuleSpec, sources: CheckpointSources, cache: PartCache) -> str:
    """Returns the digest of a module's exported part in a cache, after making it if need be. It waits for the process.

    Raises:
        ModuleFailedError: It cannot be exported, or the export did not pass its check; or it took too long.
    """
    question = {
        **question_of(spec, sources, ONNX),
        "cache": str(cache.folder.absolute()),
        "limit_bytes": cache.limit_bytes,
    }
    found = ask_process(_PROCESS, question, _LONGEST_S, f"{spec.source} cannot be exported")
    digest = found.get("digest")
    if not isinstance(digest, str):
        raise ModuleFailedError(f"{spec.source} cannot be exported: its process said nothing")
    return digest


def export_checkpoint_part(spec: ModuleSpec, sources: CheckpointSources, cache: PartCache) -> str:
    """Exports a part of a checkpoint into a cache, unless it is there; returns the part's digest. Imports torch.

    Raises:
        ModuleFailedError: It cannot be exported, or the export did not pass its check.
        NoCapacityError: There is too little memory for it, or the cache is too small.
    """
    opened = open_part(spec.model_copy(update={"dtype": None}), sources)  # torch computes in float32, whatever is asked
    content = fingerprint(opened)
    if (digest := ExportedParts((cache,)).digest(spec.model_copy(update={"fingerprint": content}))) is not None:
        return digest
    check_room(spec, sources)
    from s2m3.agents.runtimes.export import export_part  # noqa: PLC0415  # torch and onnx

    class_ = EXPORTABLE[spec.class_]
    module, made = class_.export(opened)
    return export_part(spec, module, made, cache, content=content, build=class_.build).manifest.digest


def check_room(spec: ModuleSpec, sources: CheckpointSources) -> None:
    """Checks that a module's part can be exported within the free memory. Of its files, headers alone are read.

    Raises:
        NoCapacityError: It cannot.
        ModuleFailedError: Its files are not here, or cannot be read.
    """
    if spec.class_ in OF_CHECKPOINTS:
        opened = open_part(spec.model_copy(update={"dtype": None}), sources)
        weights_mb = sum(tensor.nbytes for tensor in opened.tensors().values()) / 1e6
    else:
        folder = wheel_folder(spec.source)
        weights_mb = sum(path.stat().st_size for path in folder.rglob("*")) / 1e6 if folder else 0.0
    needed, free = _CODE_MB + _COPIES * weights_mb, available_mb()
    if free < needed:
        raise NoCapacityError(f"an export takes about {needed:.0f} MB, and {free:.0f} MB are free")


def _export_zoo_module(spec: ModuleSpec, cache: PartCache) -> str:
    from s2m3.agents.zoo.export import export_module  # noqa: PLC0415  # torch and onnx

    if (digest := ExportedParts((cache,)).digest(spec)) is not None:
        return digest
    check_room(spec, CheckpointSources())
    return export_module(spec, cache).manifest.digest


def _export(question: dict[str, Any]) -> dict[str, object]:
    from torch import set_num_threads  # noqa: PLC0415

    from s2m3.agents.runtimes.onnx import set_threads  # noqa: PLC0415  # it imports ONNX Runtime

    set_threads(1)  # the other cores are for requests
    set_num_threads(1)
    spec, sources = module_in(question)
    named = spec.model_copy(update={"id": spec.prefix if spec.prefix.isalnum() else spec.id})
    cache = PartCache(Path(question["cache"]), int(question["limit_bytes"]))
    if spec.class_ in OF_CHECKPOINTS:
        digest = export_checkpoint_part(named, replace(sources, runtimes=(TORCH,)), cache)
    else:
        digest = _export_zoo_module(named, cache)
    return {"digest": digest}


if __name__ == "__main__":
    answer_questions(_export)
