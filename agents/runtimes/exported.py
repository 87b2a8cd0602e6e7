"""Parts that were exported for ONNX Runtime, in folders on this device: which there are, and what each says of itself.

A part holds module.json beside its files: the module's class and configuration, what the class itself noted, how far
its outputs were from torch's, and the times that were measured. Files that are not there, or that say something else,
are no part.
"""

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from s2m3.agents.parts.cache import CachedPart, PartCache
from s2m3.agents.runtimes.network import ONNX
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.parts import part_key

__all__ = ["MODULE_FILE", "NO_EXPORTS", "ExportedPart", "ExportedParts", "exported_spec"]

MODULE_FILE = "module.json"
#: The module.json of a part, bytes; the labels of a classifier are in it.
_LARGEST = 4_000_000
_S = TypeVar("_S", bound=BaseModel)


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

    def settings(self, name: str, kind: type[_S]) -> _S:
        """Returns what the class noted under a name, as the class's own type.

        Raises:
            ModuleFailedError: It noted nothing there, or something else.
        """
        try:
            return kind.model_validate(self.note(name))
        except ValidationError as error:
            raise ModuleFailedError(f"the exported part of {self.spec.id}: {name}: {error}"[:300]) from error

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
        """Returns the part that is a module, or None.

        It is of the same origin, class and configuration, of the dtype if one is named, and of the fingerprint if the
        module names one. A part that came from another node may name another folder as its origin.
        """
        for part, said in self._matching(spec, dtype):
            return ExportedPart(
                spec,
                part.folder,
                said.get("notes", {}),
                part.manifest.content,
                bool(said.get("faster", True)),
                part.manifest.nbytes / 1e6,
            )
        return None

    def digest(self, spec: ModuleSpec) -> str | None:
        """Returns the digest of the part that is a module, as `find` finds it; None if there is none."""
        return next((part.manifest.digest for part, _ in self._matching(spec)), None)

    def _matching(self, spec: ModuleSpec, dtype: Dtype | None = None) -> Iterator[tuple[CachedPart, dict[str, Any]]]:
        wanted = dtype or spec.dtype or "float32"
        key = part_key(spec, ONNX, wanted)
        for cache in self.caches:
            for part in cache.find(key=key, content=spec.fingerprint or None, runtimes=(ONNX,), dtype=wanted):
                said = _read(part.folder / MODULE_FILE)
                if _is_of(said.get("module"), spec):
                    yield part, said

    def keys(self, most: int) -> list[str]:
        """Returns the keys of the exported parts, at most so many of each cache."""
        return sorted({key for cache in self.caches for key in cache.keys(most, runtimes=(ONNX,))})

    def offered(self, classes: Collection[str]) -> dict[str, str]:
        """Returns the sources of all parts of these classes -> the class."""
        said = [_read(part.folder / MODULE_FILE) for cache in self.caches for part in cache.find(runtimes=(ONNX,))]
        modules = [one["module"] for one in said if isinstance(one.get("module"), dict)]
        return {str(one.get("source")): str(one["class"]) for one in modules if one.get("class") in classes}


def exported_spec(spec: ModuleSpec) -> dict[str, Any]:
    """Returns what of a module's definition its exported part depends on, as JSON."""
    config = json.loads(json.dumps(dict(spec.config)))
    return {"source": spec.source, "prefix": spec.prefix, "class": spec.class_, "config": config}


def _is_of(said: object, spec: ModuleSpec) -> bool:
    wanted = exported_spec(spec)
    return isinstance(said, dict) and all(said.get(name) == wanted[name] for name in ("class", "config"))


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            said = json.loads(file.read(_LARGEST))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


#: No exported parts.
NO_EXPORTS = ExportedParts()
