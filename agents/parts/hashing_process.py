"""Hashes a part of a checkpoint's folder in a process of its own, whose time and memory are not the agent's.

Run by `described`: the question comes as JSON on stdin, the manifest and the lists of hashes go to stdout.
"""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.parts.hashing import describe_file
from s2m3.agents.parts.torch_files import dtype_of, torch_files
from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError, S2M3Error
from s2m3.schemas.parts import PartManifest, PartWanted

__all__ = ["described"]

#: Longest time of it: a folder of 16 GB on a slow card takes ten minutes.
_LONGEST_S = 1800.0
_NICENESS = 15


def described(spec: ModuleSpec, sources: CheckpointSources) -> tuple[PartManifest, list[bytes]]:
    """Returns a part's manifest, and of each of its files the hashes of the pieces. It waits for the process.

    Raises:
        ModuleFailedError: The part cannot be read, or it took too long.
    """
    question = {
        "wanted": PartWanted.of(spec, ["torch"]).model_dump(mode="json", by_alias=True),
        "folders": [str(folder.absolute()) for folder in sources.folders],
        "architectures": [one.model_dump(mode="json", by_alias=True) for one in sources.architectures],
    }
    command = [sys.executable, "-m", "s2m3.agents.parts.hashing_process"]
    given = json.dumps(question).encode()
    try:
        done = subprocess.run(command, input=given, capture_output=True, timeout=_LONGEST_S, check=False)  # noqa: S603  # our own module
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModuleFailedError(f"{spec.source} cannot be hashed: {error}"[:300]) from error
    try:
        found = json.loads(done.stdout)
        if "error" in found:
            raise ModuleFailedError(str(found["error"]))
        lists = [base64.b64decode(one) for one in found["lists"]]
        return PartManifest.model_validate(found["manifest"]), lists
    except (ValueError, KeyError, TypeError) as error:
        said = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise ModuleFailedError(f"{spec.source} cannot be hashed: {' '.join(said) or error}"[:300]) from error


def _describe(spec: ModuleSpec, folders: Sequence[str], architectures: Sequence[Architecture]) -> dict[str, object]:
    opened = open_part(spec, CheckpointSources(tuple(map(Path, folders)), architectures=tuple(architectures)))
    content = fingerprint(opened)
    files = [describe_file(file.name, file.chunks()) for file in torch_files(opened)]
    manifest = PartManifest(
        content=content, runtime="torch", dtype=dtype_of(opened), files=[entry for entry, _ in files]
    )
    lists = [base64.b64encode(hashes).decode() for _, hashes in files]
    return {"manifest": manifest.model_dump(mode="json"), "lists": lists}


def main() -> None:
    """Answers the question on stdin."""
    os.nice(_NICENESS)
    question = json.loads(sys.stdin.buffer.read())
    architectures = [Architecture.model_validate(one) for one in question["architectures"]]
    try:
        found = _describe(PartWanted.model_validate(question["wanted"]).module, question["folders"], architectures)
    except (S2M3Error, OSError) as error:
        found = {"error": error.detail if isinstance(error, S2M3Error) else str(error)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
