"""Where an agent finds the parts that were exported for ONNX Runtime."""

from pathlib import Path

from s2m3.agents.checkpoints.storage.identity import cache_folder
from s2m3.agents.parts.cache import PartCache
from s2m3.agents.runtimes.exported import ExportedParts

__all__ = ["exported_parts", "exports_cache"]

#: Most bytes of a folder of exports: nothing is evicted from what was made by a command.
_LIMIT = 1 << 43


def exports_cache(folder: Path | None) -> PartCache:
    """Returns the cache of parts in a folder; None is the one in the user's cache directory."""
    return PartCache(folder or cache_folder().parent / "exports", _LIMIT)


def exported_parts(folder: Path | None) -> ExportedParts:
    """Returns the parts that an agent looks in: those of a folder."""
    return ExportedParts((exports_cache(folder),))
