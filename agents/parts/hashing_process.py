"""Hashes a part of a checkpoint's folder in a process of its own (side_process.py)."""

import base64
from typing import Any

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.parts.hashing import describe_file
from s2m3.agents.parts.side_process import answer_questions, ask_process, module_in, question_of
from s2m3.agents.parts.torch_files import dtype_of, torch_files
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.parts import TORCH, PartManifest

__all__ = ["described"]

#: Longest time of it: a folder of 16 GB on a slow card takes ten minutes.
_LONGEST_S = 1800.0


def described(spec: ModuleSpec, sources: CheckpointSources) -> tuple[PartManifest, list[bytes]]:
    """Returns a part's manifest, and of each of its files the hashes of the pieces. It waits for the process.

    Raises:
        ModuleFailedError: The part cannot be read, or it took too long.
    """
    what = f"{spec.source} cannot be hashed"
    found = ask_process("s2m3.agents.parts.hashing_process", question_of(spec, sources, TORCH), _LONGEST_S, what)
    try:
        lists = [base64.b64decode(one) for one in found["lists"]]
        return PartManifest.model_validate(found["manifest"]), lists
    except (ValueError, KeyError, TypeError) as error:
        raise ModuleFailedError(f"{what}: {error}"[:300]) from error


def _describe(question: dict[str, Any]) -> dict[str, object]:
    opened = open_part(*module_in(question))
    content = fingerprint(opened)
    files = [describe_file(file.name, file.chunks()) for file in torch_files(opened)]
    manifest = PartManifest(content=content, runtime=TORCH, dtype=dtype_of(opened), files=[entry for entry, _ in files])
    lists = [base64.b64encode(hashes).decode() for _, hashes in files]
    return {"manifest": manifest.model_dump(mode="json"), "lists": lists}


if __name__ == "__main__":
    answer_questions(_describe)
