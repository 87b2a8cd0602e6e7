"""Where an agent finds the parts that were exported for ONNX Runtime."""

from pathlib import Path

from s2m3.agents.checkpoints.storage.identity import cache_folder
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.registry.exported import EXPORTABLE
from s2m3.agents.runtimes.exported import ExportedParts
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import BadInputError

__all__ = ["exported_parts", "exports_cache", "zoo_without_export"]

#: The models whose modules `s2m3 demo --light` asks.
_SIX = ("retrieval", "classification", "vqa", "transcription", "spoken-retrieval", "spoken-intent")

#: Most bytes of a folder of exports: nothing is evicted from what was made by a command.
_LIMIT = 1 << 43


def exports_cache(folder: Path | None) -> PartCache:
    """Returns the cache of parts in a folder; None is the one in the user's cache directory."""
    return PartCache(folder or cache_folder().parent / "exports", _LIMIT)


def exported_parts(folder: Path | None) -> ExportedParts:
    """Returns the parts that an agent looks in: those of a folder; None is the one in the user's cache directory.

    Raises:
        BadInputError: The folder is not there.
    """
    if folder is not None and not folder.is_dir():
        raise BadInputError(f"setting exports: {folder} is not a folder")
    return ExportedParts((exports_cache(folder),))


def zoo_without_export(parts: ExportedParts) -> list[str]:
    """Returns the modules of the six shipped tasks that need an export and have none."""
    shipped = shipped_catalogue()
    wanted = dict.fromkeys(module for model in _SIX for module in shipped.models[model].module_ids)
    specs = [shipped.modules[module] for module in wanted]
    return [spec.id for spec in specs if spec.class_ in EXPORTABLE and parts.find(spec) is None]
