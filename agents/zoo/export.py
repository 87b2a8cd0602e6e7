"""Exports the shipped modules for agents without torch: `s2m3 weights --light`. Needs torch and the weight wheels."""

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from s2m3.agents import registry
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.parts.cache import CachedPart, PartCache
from s2m3.agents.registry.exported import EXPORTABLE
from s2m3.agents.runtimes.export import export_part
from s2m3.agents.runtimes.exported import ExportedPart, ExportedParts
from s2m3.agents.runtimes.network import TORCH
from s2m3.agents.zoo.wheels import wheel_folder
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.errors import S2M3Error

if TYPE_CHECKING:
    from s2m3.agents.runtimes.export_plan import Export

__all__ = ["export_module", "export_zoo", "zoo_specs"]


def zoo_specs() -> list[ModuleSpec]:
    """Returns the shipped modules whose weights are in installed wheels and that have to be exported."""
    specs = shipped_catalogue().modules.values()
    return [spec for spec in specs if spec.class_ in EXPORTABLE and wheel_folder(spec.source) is not None]


def export_zoo(cache: PartCache, on_exported: Callable[[ModuleSpec, float | S2M3Error], None]) -> None:
    """Exports each shipped module that is not in a cache yet; an export of other weights than the wheel's is removed.

    Args:
        cache: Where the parts are kept.
        on_exported: Called with each module and the size of its part, 10^6 bytes, or with the error: the module cannot
            be built, or its export did not pass its check.
    """
    here = ExportedParts((cache,))
    for spec in zoo_specs():
        try:
            found = _current(spec, here)
            on_exported(spec, found.takes_mb if found else export_module(spec, cache).manifest.nbytes / 1e6)
        except S2M3Error as error:
            on_exported(spec, error)


def _current(spec: ModuleSpec, here: ExportedParts) -> ExportedPart | None:
    """Returns a module's export, if it is of the weights in the installed wheel; removes one of other weights."""
    found = here.find(spec)
    if found is None or found.content == _content(spec):
        return found
    digest = here.digest(spec)
    for cache in here.caches if digest else ():
        cache.evict(str(digest))
    return None


def export_module(spec: ModuleSpec, cache: PartCache) -> CachedPart:
    """Exports one module into a cache; returns its part.

    Raises:
        ModuleFailedError: The module cannot be built, or its export did not pass its check.
    """
    in_float32 = spec.model_copy(update={"dtype": None})  # torch computes in float32, whatever is asked
    module = registry.load(in_float32, CheckpointSources(runtimes=(TORCH,)))
    class_ = EXPORTABLE[spec.class_]
    made: Export = class_.export(module)
    return export_part(spec, module, made, cache, content=_content(spec), build=class_.build)


def _content(spec: ModuleSpec) -> str:
    """Returns a hash of the files that hold a module's weights, and of its definition."""
    whole = hashlib.sha256(f"{spec.class_}\0{spec.prefix}\0{dict(spec.config)}".encode())
    folder = wheel_folder(spec.source)
    for path in sorted(folder.rglob("*")) if folder else []:
        if path.is_file() and path.suffix in (".pth", ".bin", ".safetensors", ".json"):
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
