"""Computes the size of each part of a checkpoint from its configuration: the table of formulas by network."""

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from itertools import pairwise
from typing import Any

from s2m3.schemas.checkpoints.architectures import Architecture, Part, PartStep, architecture_name, value_at
from s2m3.schemas.errors import BadDefinitionError
from s2m3.schemas.sizes import audio, decoders, encoders, openai
from s2m3.schemas.sizes.cache import text_bytes
from s2m3.schemas.sizes.counting import Count, linear
from s2m3.schemas.sizes.size import Dims, Size

__all__ = ["passed", "sizes_of"]

#: Network -> model_type, for parts whose configuration has none.
_TYPES = {
    "AutoModel": "clip_vision_model",  # the tower of a LLaVA that names none
    "CLIPModel.image": "clip_vision_model",
    "CLIPModel.text": "clip_text_model",
    "CLIPTextModel": "clip_text_model",
    "SiglipModel.image": "siglip_vision_model",
    "SiglipModel.text": "siglip_text_model",
    "BlipVisionModel": "blip_vision_model",
    "BlipTextModel": "blip_text_model",
    "BlipTextLMHeadModel": "blip_text_model",
    "ClapModel.audio": "clap_audio_model",
    "ClapModel.text": "clap_text_model",
}


#: Classes whose sizes follow from what feeds them.
_HEADS = ("similarity-head", "classifier-head")


@dataclass(frozen=True, slots=True)
class _Given:
    """A formula's arguments: the part's configuration, the whole one, and the shape of the part's input tensor."""

    dims: Dims
    whole: Mapping[str, Any]
    source: tuple[int, ...] | None

    @property
    def tokens(self) -> tuple[int, ...]:
        """The shape of the part's input tensor; raises BadDefinitionError if it is unknown."""
        if self.source is None:
            raise BadDefinitionError("config.json: the size of what feeds the decoder is not known")
        return self.source


_FORMULAS: dict[str, Callable[[_Given], Size]] = {
    "CLIPModel.image": lambda given: encoders.clip_vision(given.dims, projected=True),
    "AutoModel:clip_vision_model": lambda given: encoders.clip_vision(given.dims, projected=False),
    "AutoModel:siglip_vision_model": lambda given: encoders.siglip_vision(given.dims),
    "CLIPModel.text": lambda given: encoders.clip_text(given.dims),
    "CLIPTextModel": lambda given: encoders.clip_prompt(given.dims),
    "SiglipModel.image": lambda given: encoders.siglip_vision(given.dims),
    "SiglipModel.text": lambda given: encoders.siglip_text(given.dims),
    "ViTForImageClassification": lambda given: encoders.vit(given.dims, pooled=False),
    "AutoModel:vit": lambda given: encoders.vit(given.dims, pooled=False),
    "BlipVisionModel": lambda given: encoders.blip_vision(given.dims),
    "BlipTextModel": lambda given: encoders.blip_text_encoder(given.dims, given.tokens[0]),
    "BlipTextLMHeadModel": lambda given: decoders.blip_decoder(given.dims, given.tokens),
    "BertForSequenceClassification": lambda given: _bert_classifier(given.dims),
    "DistilBertForSequenceClassification": lambda given: _distilbert_classifier(given.dims),
    "AutoModelForCausalLM:gpt2": lambda given: decoders.gpt2(given.dims, given.source),
    "AutoModelForCausalLM:llama": lambda given: decoders.llama(given.dims, given.source),
    "AutoModelForCausalLM:mistral": lambda given: decoders.llama(given.dims, given.source),
    "AutoModelForCausalLM:phi3": lambda given: decoders.llama(given.dims, given.source),
    "AutoModelForCausalLM:qwen2": lambda given: decoders.llama(
        {**given.dims, "attention_bias": True, "attention_out_bias": False}, given.source
    ),
    "WhisperEncoder": lambda given: audio.whisper_encoder(given.dims),
    "WhisperForCausalLM": lambda given: decoders.whisper_decoder(given.dims, given.tokens),
    "ClapModel.audio": lambda given: audio.clap_audio(given.dims),
    "ClapModel.text": lambda given: encoders.bert(given.dims, pooled=True, projected=True),
    "open_clip:resnet": lambda given: openai.modified_resnet(given.whole["model_cfg"]),
    "TextTower": lambda given: openai.openclip_text(given.whole["model_cfg"]),
    "ImageBindVision": lambda given: openai.imagebind_vision(given.dims),
    "ImageBindText": lambda given: openai.imagebind_text(given.dims),
    "ImageBindAudio": lambda given: openai.imagebind_audio(given.dims),
}


def _bert_classifier(dims: Dims) -> Size:
    whole = encoders.bert(dims, pooled=True)
    return Size(whole.count + linear(dims["hidden_size"], _labels(dims)), {"logits": (_labels(dims),)})


def _distilbert_classifier(dims: Dims) -> Size:
    names = {"hidden_size": "dim", "intermediate_size": "hidden_dim", "num_hidden_layers": "n_layers"}
    as_bert = {**dims, **{name: dims[theirs] for name, theirs in names.items()}, "type_vocab_size": 0}
    whole = encoders.bert(as_bert, pooled=True)
    return Size(whole.count + linear(dims["dim"], _labels(dims)), {"logits": (_labels(dims),)})


def _labels(dims: Dims) -> int:
    names = dims.get("id2label")
    return len(names) if isinstance(names, Mapping) else dims.get("num_labels", 2)


@cache
def _defaults() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("s2m3.schemas").joinpath("sizes/defaults.toml").read_text(encoding="utf-8"))


def _network_name(part: Part, config: Mapping[str, Any]) -> str:
    """Returns the network's key in the tables above: its class; of a dual encoder, also the features that it gives."""
    if part.network == "open_clip.VisionTower":
        return architecture_name(config)
    if part.network != "{architecture}":
        return part.network.rpartition(".")[2]
    return architecture_name(config) + (f".{part.features}" if part.features else "")


def _dims_of(part: Part, config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a part's configuration, completed with the defaults of transformers for its model_type."""
    own = dict(value_at(part.config, config) or {}) if part.config else dict(config)
    network = _network_name(part, config)
    kind = own.get("model_type") or _TYPES.get(network, "")
    inherited = {key: config[key] for key in part.inherit if key in config}
    dims = {**_defaults().get(kind, {}), **own, **inherited, **part.set, "model_type": kind}
    if kind == "siglip_text_model":
        dims.setdefault("projection_size", dims["hidden_size"])
    return dims


def sizes_of(
    architecture: Architecture, config: Mapping[str, Any], generation: Mapping[str, Any] | None = None
) -> dict[str, Size | None]:
    """Returns the size of each part, in the order of the architecture's steps; None if a part's network has no formula.

    Args:
        architecture: The checkpoint's architecture.
        config: The checkpoint's config.json.
        generation: Its generation_config.json; None if there is none.

    Raises:
        BadDefinitionError: The configuration lacks a number, or has an invalid value.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    sizes: dict[str, Size | None] = {}
    try:
        for step_id, step in architecture.steps.items():
            part = architecture.parts[step.part]
            size = sizes[step.part] = _size(part, config, _source(step, shapes), generation)
            shapes |= {f"{step_id}.{name}": shape for name, shape in passed(part, size).items()}
        for name, part in architecture.parts.items():
            if name not in sizes:
                sizes[name] = _size(part, config, None, generation)
    except KeyError as error:
        raise BadDefinitionError(f"config.json: {error.args[0]} is missing") from error
    except (TypeError, AttributeError, ValueError, ArithmeticError) as error:
        raise BadDefinitionError(f"config.json: sizes do not follow from it: {error}") from error
    return sizes


def passed(part: Part, size: Size | None) -> dict[str, tuple[int, ...]]:
    """Returns the shape, for one item, of each output of a part that is a tensor of known size."""
    if size is None:
        return {}
    found = {}
    for name, output in part.outputs.items():
        if output.field in size.outputs:
            first, *rest = size.outputs[output.field]
            found[name] = (first - output.skip, *rest)
    return found


def _source(step: PartStep, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...] | None:
    return next((shapes[ref] for ref in step.inputs.values() if ref in shapes), None)


def _size(
    part: Part,
    config: Mapping[str, Any],
    source: tuple[int, ...] | None,
    generation: Mapping[str, Any] | None,
) -> Size | None:
    if part.class_ in _HEADS:
        return _head(part, config, source)
    dims = _dims_of(part, config)
    network = _network_name(part, config)
    formula = _FORMULAS.get(network) or _FORMULAS.get(f"{network}:{dims['model_type']}")
    if formula is None:
        return None
    size = formula(_Given(dims, config, source))
    states, crossed = source[0] if source else 0, "hidden" in part.inputs
    text = text_bytes(dims, states, generation or {}, crossed=crossed) if part.generates else 0
    return Size(size.count + _projector(part, config, dims, source), size.outputs, text)


def _projector(part: Part, config: Mapping[str, Any], dims: Dims, source: tuple[int, ...] | None) -> Count:
    """Counts a decoder's projector; a `linear` one exists only if the widths of encoder and decoder differ."""
    if part.projector is None or source is None:
        return Count()
    if part.projector.network != "linear":
        vision = {**_defaults()["clip_vision_model"], **config["vision_config"]}
        return decoders.llava_projector(config, vision, dims, source[0])
    width = dims.get("hidden_size") or dims["n_embd"]
    return linear(source[1], width, source[0]) if source[1] != width else Count()


def _head(part: Part, config: Mapping[str, Any], source: tuple[int, ...] | None) -> Size:
    if part.class_ == "similarity-head":
        return Size(Count(len(part.prefixes)), {})
    widths = config.get("widths") or ([source[-1], _labels(config)] if source else [])
    layers = (linear(wide, out) for wide, out in pairwise(widths))
    return Size(replace(sum(layers, Count()), linear=0), {"logits": (widths[-1],)} if widths else {})
