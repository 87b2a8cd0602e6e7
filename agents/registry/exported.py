"""The classes whose modules are also built of exported parts, without torch, and when they are."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import ONNX
from s2m3.agents.serving.module import Module
from s2m3.schemas import extras
from s2m3.schemas.definitions import ModuleSpec

__all__ = ["EXPORTABLE", "ExportableClass", "exported_part"]

ONNX_RUNTIME = "onnxruntime"


@dataclass(frozen=True)
class ExportableClass:
    """A class that is served without torch where a part of it was exported.

    Args:
        python: Module with `load_exported(ExportedPart) -> Module`; it imports no torch.
        torch: Module with the function `exporter`, which imports torch.
        function: Its name, if another.
        exporter: `exporter(Module) -> Export`, of a module that torch runs.
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
        """What makes an Export of a module that torch runs; it imports torch."""
        function: Callable[[Any], Any] = getattr(import_module(self.torch), self.exporter)
        return function


def _of_zoo(python: str, torch: str, exporter: str, *packages: str, function: str = "load_exported") -> ExportableClass:
    return ExportableClass(f"s2m3.agents.zoo.{python}", f"s2m3.agents.zoo.{torch}", exporter, packages, function)


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
}


def exported_part(spec: ModuleSpec, sources: CheckpointSources, *, with_torch: bool = True) -> ExportedPart | None:
    """Returns the exported part that a module is to be built of here; None if torch is to run it, or nothing can.

    Args:
        spec: The module.
        sources: Its `exports` are searched; its `runtimes` are those that this agent may use.
        with_torch: Whether torch could run the module here: then the runtime that was faster when the part was
            exported runs it.
    """
    found = EXPORTABLE.get(spec.class_)
    if found is None or ONNX not in sources.runtimes or found.missing_package is not None:
        return None
    part = sources.exports.find(spec)
    if part is None or (spec.fingerprint and part.content != spec.fingerprint):
        return None
    return None if with_torch and not part.faster else part
