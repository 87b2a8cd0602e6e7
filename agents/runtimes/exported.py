"""Parts that were exported for ONNX Runtime, in folders on this device: which there are, and what each says of itself.

A part holds module.json beside its files: the module's class and configuration, what the class itself noted, how far
its outputs were from torch's, and the times that were measured. Files that are not there, or that say something else,
are no part.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from s2m3.agents.parts.cache import PartCache
from s2m3.agents.runtimes.network import ONNX
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.parts import part_key

__all__ = ["MODULE_FILE", "NO_EXPORTS", "ExportedPart", "ExportedParts", "exported_spec"]

MODULE_FILE = "module.json"
#: The module.json of a part, bytes; the labels of a classifier are in it.
_LARGEST = 4_000_000


@dataclass(frozen=True, slots=True)
class ExportedPart:
    """The files of one module.

    Args:
        spec: The module that is built of it.
        folder: Where the files lie.
        notes: What the module's class noted when the part was exported.
        content: The fingerprint of the weights.
        faster: Whether ONNX Runtime was the faster one of the two when the part was exported.
        takes_mb: Size of all files, 10^6 bytes.
    """

    spec: ModuleSpec
    folder: Path
    notes: Mapping[str, Any] = field(default_factory=dict)
    content: str = ""
    faster: bool = True
    takes_mb: float = 0.0

    def file(self, name: str) -> Path:
        """Returns one of the files.

        Raises:
            ModuleFailedError: The part has no such file.
        """
        path = self.folder / name
        if not path.is_file():
            raise ModuleFailedError(f"the exported part of {self.spec.id} has no {name}")
        return path

    def note(self, name: str) -> Any:
        """Returns what the class noted under a name.

        Raises:
            ModuleFailedError: It noted nothing there.
        """
        if name not in self.notes:
            raise ModuleFailedError(f"the exported part of {self.spec.id} says nothing of {name}")
        return self.notes[name]


@dataclass(frozen=True, slots=True)
class ExportedParts:
    """The caches in which this agent looks for exported parts, the first one first."""

    caches: Sequence[PartCache] = ()

    def find(self, spec: ModuleSpec, dtype: Dtype | None = None) -> ExportedPart | None:
        """Returns the part that is a module, or None: same origin, class and configuration, and the dtype if named."""
        wanted = dtype or spec.dtype or "float32"
        for cache in self.caches:
            for part in cache.find(key=part_key(spec), runtimes=(ONNX,), dtype=wanted):
                said = _read(part.folder / MODULE_FILE)
                if said.get("module") == exported_spec(spec):
                    return ExportedPart(
                        spec,
                        part.folder,
                        said.get("notes", {}),
                        part.manifest.content,
                        bool(said.get("faster", True)),
                        part.manifest.nbytes / 1e6,
                    )
        return None

    def offered(self, classes: Collection[str]) -> dict[str, str]:
        """Returns the sources of all parts of these classes -> the class."""
        said = [_read(part.folder / MODULE_FILE) for cache in self.caches for part in cache.find(runtimes=(ONNX,))]
        modules = [one["module"] for one in said if isinstance(one.get("module"), dict)]
        return {str(one.get("source")): str(one["class"]) for one in modules if one.get("class") in classes}


def exported_spec(spec: ModuleSpec) -> dict[str, Any]:
    """Returns what of a module's definition its exported part depends on, as JSON."""
    config = json.loads(json.dumps(dict(spec.config)))
    return {"source": spec.source, "prefix": spec.prefix, "class": spec.class_, "config": config}


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_LARGEST))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


#: No exported parts.
NO_EXPORTS = ExportedParts()
