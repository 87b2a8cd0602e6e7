"""The classes whose modules are also built of exported parts, without torch, and when they are."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.registry.classes import OF_CHECKPOINTS, SHIPPED
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import ONNX, TORCH
from s2m3.agents.serving.module import Module
from s2m3.schemas import extras
from s2m3.schemas.definitions import ModuleSpec

__all__ = [
    "EXPORTABLE",
    "ExportableClass",
    "exported_for_others",
    "exported_part",
    "needs_export",
    "served_of_exports",
]

ONNX_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class ExportableClass:
    """A class that is served without torch where a part of it was exported.

    Args:
        python: Module with `load_exported(ExportedPart) -> Module`; it imports no torch.
        torch: Module with the function `exporter`, which imports torch.
        function: Its name, if another.
        exporter: `exporter(Module) -> Export`, of a module that torch runs; of parts of checkpoints
            `exporter(CheckpointPart) -> (Module, Export)`.
        packages: What the code imports beside the base.
    """

    python: str
    torch: str
    exporter: str
    packages: tuple[str, ...]
    function: str = "load_exported"

    @property
    def missing_package(self) -> str | None:
        """A package that the code needs and that is not installed, or None."""
        missing = next((name for name in self.packages if find_spec(name) is None), None)
        return f"the package {missing} ({extras.hint('light')})" if missing else None

    def import_code(self) -> None:
        """Imports the code, and ONNX Runtime where it needs that."""
        import_module(self.python)
        if ONNX_RUNTIME in self.packages:
            import_module(ONNX_RUNTIME)

    def build(self, part: ExportedPart) -> Module:
        """Builds a module of an exported part.

        Raises:
            ModuleFailedError: A file is missing, damaged, or not what the class expects.
        """
        build: Callable[[ExportedPart], Module] = getattr(import_module(self.python), self.function)
        return build(part)

    @cached_property
    def export(self) -> Callable[[Any], Any]:
        """What makes an Export of a module that torch runs, or of a part; it imports torch."""
        function: Callable[[Any], Any] = getattr(import_module(self.torch), self.exporter)
        return function


def _of_zoo(python: str, torch: str, exporter: str, *packages: str, function: str = "load_exported") -> ExportableClass:
    return ExportableClass(f"s2m3.agents.zoo.{python}", f"s2m3.agents.zoo.{torch}", exporter, packages, function)


def _of_checkpoints(python: str, torch: str, exporter: str, function: str, *packages: str) -> ExportableClass:
    where = "s2m3.agents.checkpoints.exported"
    return ExportableClass(f"{where}.{python}", f"{where}.{torch}", exporter, (ONNX_RUNTIME, *packages), function)


_TEXTS = ("tokenizers", "cachetools")
_SPEECH = (ONNX_RUNTIME, "tokenizers", "soundfile", "soxr")
#: Name -> class.
EXPORTABLE: dict[str, ExportableClass] = {
    "efficientnet-lite": _of_zoo("efficientnet", "efficientnet_torch", "export_encoder", ONNX_RUNTIME, "PIL"),
    "imagenet-linear": _of_zoo("imagenet", "imagenet_torch", "export_classifier", "safetensors"),
    "sentence-encoder": _of_zoo("minilm", "minilm_torch", "export_encoder", ONNX_RUNTIME, "tokenizers", "cachetools"),
    "whisper-encoder": _of_zoo(
        "exported_whisper", "whisper_export", "export_encoder", *_SPEECH, function="load_exported_encoder"
    ),
    "whisper-decoder": _of_zoo(
        "exported_whisper", "whisper_export", "export_decoder", *_SPEECH, function="load_exported_decoder"
    ),
    "image-encoder": _of_checkpoints(
        "picture_modules", "export_pictures", "export_encoder", "load_exported_encoder", "PIL"
    ),
    "image-classifier": _of_checkpoints(
        "picture_modules", "export_pictures", "export_classifier", "load_exported_classifier", "PIL"
    ),
    "object-detector": _of_checkpoints(
        "detections", "export_detections", "export_detector", "load_exported_detector", "PIL"
    ),
    "text-encoder": _of_checkpoints("text_modules", "export_texts", "export_encoder", "load_exported_encoder", *_TEXTS),
    "text-classifier": _of_checkpoints(
        "text_modules", "export_texts", "export_classifier", "load_exported_classifier", *_TEXTS
    ),
    "speech-recognizer": _of_checkpoints(
        "sound_modules", "export_sounds", "export_recognizer", "load_exported_recognizer", "soundfile", "soxr"
    ),
}


def needs_export(spec: ModuleSpec, sources: CheckpointSources) -> bool:
    """Returns whether a module is served of an exported part here, and of nothing else: torch may not run it."""
    found = EXPORTABLE.get(spec.class_)
    return (
        found is not None and TORCH not in sources.runtimes and ONNX in sources.runtimes and not found.missing_package
    )


def served_of_exports(sources: CheckpointSources) -> list[str]:
    """Returns the classes whose modules are served of exported parts alone here: for the profile."""
    if TORCH in sources.runtimes or ONNX not in sources.runtimes:
        return []
    return sorted(name for name, found in EXPORTABLE.items() if not found.missing_package)


def exported_for_others(sources: CheckpointSources) -> list[str]:
    """Returns the classes whose parts this node exports for nodes without torch: for the profile."""
    if TORCH not in sources.runtimes or any(find_spec(package) is None for package in (ONNX_RUNTIME, "onnx")):
        return []
    with_code = (name for name, found in EXPORTABLE.items() if not found.missing_package)
    return sorted(name for name in with_code if SHIPPED[name].missing_package() is None)


def exported_part(spec: ModuleSpec, sources: CheckpointSources, *, with_torch: bool = True) -> ExportedPart | None:
    """Returns the exported part that a module is to be built of here; None if torch is to run it, or nothing can.

    Args:
        spec: The module.
        sources: Its `exports` are searched; its `runtimes` are those that this agent may use.
        with_torch: Whether torch could run the module here. Then a part of a checkpoint is run by torch, because its
            folder may have been saved anew; any other module by the runtime that was faster when it was exported.
    """
    found = EXPORTABLE.get(spec.class_)
    if found is None or ONNX not in sources.runtimes or found.missing_package is not None:
        return None
    if with_torch and spec.class_ in OF_CHECKPOINTS:
        return None
    part = sources.exports.find(spec)
    return None if part is not None and with_torch and not part.faster else part
