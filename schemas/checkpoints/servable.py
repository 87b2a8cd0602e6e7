"""Whether a checkpoint's folder has all that serving it needs: reads its configurations and file names, no weights.

What is wrong with a folder is said where its task is added, before an agent loads a part of it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2m3.schemas.checkpoints.architectures import Architecture, architecture_name
from s2m3.schemas.checkpoints.headers import Checkpoint, read_json
from s2m3.schemas.checkpoints.pipelines import PIPELINE
from s2m3.schemas.checkpoints.processors import NO_PILLOW, OVER_TORCH
from s2m3.schemas.checkpoints.sentence_folders import modules_of
from s2m3.schemas.checkpoints.servable_language import why_no_prompt
from s2m3.schemas.checkpoints.servable_pipelines import why_no_pipeline
from s2m3.schemas.errors import BadInputError, UnsupportedCheckpointError

__all__ = ["UNSERVED", "check_servable", "not_followed", "why_not_servable"]

#: Classes of parts that read texts, or write them, with the checkpoint's own tokenizer.
_TOKENIZING = frozenset(
    {
        "text-encoder",
        "text-classifier",
        "text-generator",
        "text-ranker",
        "text-similarity",
        "zero-shot-classifier",
        "multimodal-generator",
        "seq2seq-generator",
        "causal-lm",
        "speech-recognizer",
        "speech-generator",
        "zero-shot-object-detector",
        "owlv2-object-detector",
    }
)
#: Of these, the classes whose tokenizer is a vocabulary of characters alone.
_SPELLING = frozenset({"speech-recognizer", "speech-generator"})
#: Sets of files that are a tokenizer: each is enough.
_TOKENIZERS = (
    ("tokenizer.json",),
    ("vocab.txt",),
    ("vocab.json", "merges.txt"),
    ("spiece.model",),
    ("spm.model",),
    ("tokenizer.model",),
    ("sentencepiece.bpe.model",),
    ("source.spm", "target.spm"),
)
#: Kinds of input -> the key of a processor's configuration that names its class, and what the processor reads.
_PROCESSORS = {
    "image": (("image_processor_type", "feature_extractor_type"), "image_processor", "pictures"),
    "images": (("image_processor_type", "feature_extractor_type"), "image_processor", "pictures"),
    "audio": (("feature_extractor_type",), "feature_extractor", "sound"),
}
#: Kinds of pictures.
_PICTURES = frozenset({"image", "images"})
#: What `model_type` of a tower may be, per architecture: another tower would not fit its tensors.
_TOWERS = {"LlavaForConditionalGeneration": ("clip_vision_model", "siglip_vision_model")}
#: Families whose backbone is one of the package timm where config.json does not say otherwise.
_TIMM_BY_DEFAULT = frozenset(
    {"conditional_detr", "dab-detr", "deformable_detr", "detr", "omdet-turbo", "table-transformer"}
)
#: Steps of a sentence encoder after its network.
_SENTENCE_STEPS = frozenset({"Pooling", "Dense", "Normalize", "Dropout"})
#: Architectures that the wildcards of schemas/architectures cover and that have no class here -> why.
UNSERVED: Mapping[str, str] = {
    "DinatForImageClassification": "needs the package natten",
    "OmDetTurboForObjectDetection": "asks for its labels in a way of its own, which is not served",
    "ShieldGemma2ForImageClassification": "judges a picture by a policy in words, which is not served",
    "ZoeDepthForDepthEstimation": "makes its depths with the package torchvision",
}
#: Settings of open_clip's towers and pictures that change what is computed -> the one value that is computed here.
_OPEN_CLIP_VISION: Mapping[str, Any] = {
    "attentional_pool": False,
    "pool_type": "tok",
    "final_ln_after_pool": False,
    "pos_embed_type": "learnable",
    "act_kwargs": None,
    "norm_kwargs": None,
    "block_type": None,
    "qk_norm": False,
}
_OPEN_CLIP_TEXT: Mapping[str, Any] = {
    "no_causal_mask": False,
    "pool_type": "argmax",
    "proj_type": "linear",
    "proj_bias": False,
    "embed_cls": False,
    "final_ln_after_pool": False,
    "act_kwargs": None,
    "norm_kwargs": None,
}
_OPEN_CLIP_PICTURES = {"resize_mode": ("shortest", "squash"), "interpolation": ("bicubic", "bilinear")}
#: Settings of generation_config.json that change what is written and are not followed -> the value without effect.
#: What is followed is in agents/modules/token_rules.py.
_UNFOLLOWED: Mapping[str, Any] = {
    "num_beams": 1,
    "num_beam_groups": 1,
    "diversity_penalty": 0.0,
    "length_penalty": 1.0,
    "constraints": None,
    "force_words_ids": None,
    "penalty_alpha": 0.0,
    "guidance_scale": 1.0,
    "top_h": None,
    "sequence_bias": None,
    "encoder_repetition_penalty": 1.0,
    "encoder_no_repeat_ngram_size": 0,
    "exponential_decay_length_penalty": None,
    "stop_strings": None,
    "max_time": None,
}


def check_servable(checkpoint: Checkpoint, family: Architecture) -> None:
    """Checks that a checkpoint of a known architecture can be served from its folder.

    Args:
        checkpoint: Its configuration and headers.
        family: Its architecture.

    Raises:
        UnsupportedCheckpointError: It cannot; the text says in one line what is missing or not read.
    """
    if (why := why_not_servable(checkpoint, family)) is not None:
        raise UnsupportedCheckpointError(f"{checkpoint.folder.name} {why}")


def why_not_servable(checkpoint: Checkpoint, family: Architecture) -> str | None:
    """Returns why a checkpoint cannot be served, as what follows its name in a sentence; None if it can."""
    checks = (
        _open_clip,
        why_no_pipeline,
        _unserved,
        _own_code,
        _quantised,
        _sentence,
        _sound_classes,
        _tower,
        _backbone,
        _tokenizer,
        _spelling,
        _processor,
        _without_pillow,
        why_no_prompt,
    )
    return next((why for check in checks if (why := check(checkpoint, family)) is not None), None)


def _open_clip(checkpoint: Checkpoint, _family: Architecture) -> str | None:
    """A variant of open_clip's towers that agents/checkpoints/networks/openclip.py does not compute."""
    model = checkpoint.config.get("model_cfg")
    if not isinstance(model, Mapping):
        return None
    vision, text = (_mapping(model.get(key)) for key in ("vision_cfg", "text_cfg"))
    if name := vision.get("timm_model_name") or text.get("hf_model_name"):
        of = "timm" if vision.get("timm_model_name") else "the hub"
        return f"has a tower of {of} in open_clip's format ({str(name)[:60]}), which is not read"
    found = {key: vision[key] for key, usual in _OPEN_CLIP_VISION.items() if vision.get(key, usual) != usual}
    found |= {key: text[key] for key, usual in _OPEN_CLIP_TEXT.items() if text.get(key, usual) != usual}
    resized = _mapping(checkpoint.config.get("preprocess_cfg"))
    found |= {
        key: resized[key] for key, known in _OPEN_CLIP_PICTURES.items() if resized.get(key, known[0]) not in known
    }
    said = ", ".join(f"{key}={str(value)[:40]}" for key, value in found.items())
    return f"is a variant of open_clip's that is not read: {said}" if found else None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _unserved(checkpoint: Checkpoint, _family: Architecture) -> str | None:
    return None if "model_cfg" in checkpoint.config else UNSERVED.get(architecture_name(checkpoint.config))


def _own_code(checkpoint: Checkpoint, _family: Architecture) -> str | None:
    """The class of the architecture's name is one that the folder brings."""
    classes = checkpoint.config.get("auto_map")
    brought = classes.values() if isinstance(classes, Mapping) else ()
    name = "" if "model_cfg" in checkpoint.config else architecture_name(checkpoint.config)
    if not any(str(where).rpartition(".")[2] == name for where in brought):
        return None
    return f"needs code of its own ({name} of auto_map), which is never run"


def _quantised(checkpoint: Checkpoint, _family: Architecture) -> str | None:
    stored = checkpoint.config.get("quantization_config") or checkpoint.config.get("compression_config")
    if not isinstance(stored, Mapping):
        return None
    method = stored.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(stored) else "a format without a name")
    return f"is quantised ({str(method)[:40]}), which is not read: take the original, and hold it in int8 with --dtype"


def _is_bitsandbytes(stored: Mapping[str, Any]) -> bool:
    return bool(stored.get("load_in_4bit") or stored.get("load_in_8bit"))


def _sentence(checkpoint: Checkpoint, family: Architecture) -> str | None:
    """A sentence encoder with a step, or a way of pooling, that texts/sentences.py does not compute."""
    if family.use not in ("embedding", "similarity"):
        return None
    config = checkpoint.config
    if config.get("is_encoder_decoder") or str(config.get("model_type")).endswith("t5"):
        return f"is a sentence encoder of half an encoder-decoder ({config.get('model_type')}), which is not read"
    steps = modules_of(config)
    kinds = [step["kind"] for step in steps]
    if steps and (kinds[0] != "Transformer" or not set(kinds[1:]) <= _SENTENCE_STEPS):
        return f"is a sentence encoder of {', '.join(kinds)}, which is not read"
    if any(step["config"].get("include_prompt") is False for step in steps):
        return "is a sentence encoder that pools without the prompt's tokens, which is not read"
    return None


def _sound_classes(checkpoint: Checkpoint, family: Architecture) -> str | None:
    if not _has(family, "text-classifier") or _processor_class(checkpoint.folder, *_PROCESSORS["audio"][:2]) is None:
        return None
    return f"classifies sound ({architecture_name(checkpoint.config)}), which is not served yet"


def _tower(checkpoint: Checkpoint, family: Architecture) -> str | None:
    known = next((_TOWERS[name] for name in family.names if name in _TOWERS), None)
    given = checkpoint.config.get("vision_config")
    if known is None or not isinstance(given, Mapping) or (kind := given.get("model_type", known[0])) in known:
        return None
    return f"has the tower {kind}; of {architecture_name(checkpoint.config)} the towers {', '.join(known)} are known"


def _backbone(checkpoint: Checkpoint, _family: Architecture) -> str | None:
    """A backbone that is named is fetched or built by others: transformers has its code only if its kind is there."""
    config = checkpoint.config
    given, named = config.get("backbone_config"), config.get("backbone")
    kind = given.get("model_type") if isinstance(given, Mapping) else None
    by_default = config.get("use_timm_backbone", config.get("model_type") in _TIMM_BY_DEFAULT)
    if kind == "timm_backbone" or config.get("model_type") == "timm_wrapper" or (kind is None and by_default):
        what = f" ({str(named)[:40]})" if named else ""
        return f"has a backbone of the package timm{what}, which is not served: take a revision without (no_timm)"
    if kind is None and isinstance(named, str):
        return f"names its backbone ({named[:40]}) without saying how it is built (backbone_config)"
    return None


def _tokenizer(checkpoint: Checkpoint, family: Architecture) -> str | None:
    if not any(part.class_ in _TOKENIZING for part in family.parts.values()):
        return None
    folder = checkpoint.folder / "tokenizer" if PIPELINE in checkpoint.config else checkpoint.folder
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    spells = any(part.class_ in _SPELLING for part in family.parts.values())
    if any(there.issuperset(files) for files in _TOKENIZERS) or (spells and "vocab.json" in there):
        return None
    return "holds no tokenizer: no tokenizer.json, vocab.txt, vocab.json with merges.txt, or sentencepiece model"


def _spelling(checkpoint: Checkpoint, family: Architecture) -> str | None:
    """A text to speak is read character by character: what makes other characters of it first is not run."""
    if not _has(family, "speech-generator"):
        return None
    settings = _document(checkpoint.folder / "tokenizer_config.json")
    if settings.get("is_uroman"):
        return "reads romanised text (is_uroman), which needs the package uroman: that is not run"
    if settings.get("phonemize", True):
        return "reads phonemes (phonemize), which need the packages phonemizer and espeak: these are not run"
    return None


def _processor(checkpoint: Checkpoint, family: Architecture) -> str | None:
    if "model_cfg" in checkpoint.config:  # open_clip's format has it in its configuration
        return None
    for part in family.parts.values():
        for kind in part.inputs.values():
            if not part.network or kind not in _PROCESSORS:
                continue
            keys, inside, reads = _PROCESSORS[kind]
            if _processor_class(checkpoint.folder, keys, inside) is None:
                return f"does not say how to read {reads}: no preprocessor_config.json names its {keys[0]}"
    return None


def _without_pillow(checkpoint: Checkpoint, family: Architecture) -> str | None:
    keys, inside, _ = _PROCESSORS["image"]
    if not any(part.network and _PICTURES & set(part.inputs.values()) for part in family.parts.values()):
        return None
    name = (_processor_class(checkpoint.folder, keys, inside) or "").removesuffix("Fast")
    if name not in NO_PILLOW - OVER_TORCH:
        return None
    return f"reads pictures with {name}, which transformers has for the package torchvision alone"


def _processor_class(folder: Path, keys: tuple[str, ...], inside: str) -> str | None:
    """Returns the class that a folder's processor_config.json or preprocessor_config.json names; None: no processor."""
    whole = _document(folder / "processor_config.json").get(inside)
    settings = whole if isinstance(whole, Mapping) else _document(folder / "preprocessor_config.json")
    named = next((str(settings[key]) for key in keys if settings.get(key)), None)
    # wav2vec 2.0's older folders leave it to the model_type
    return "" if named is None and inside == "feature_extractor" and settings.get("sampling_rate") else named


def _document(path: Path) -> Mapping[str, Any]:
    """Returns a JSON file's object; an empty one if there is no such file, or none that can be read."""
    try:
        return read_json(path) if path.is_file() else {}
    except BadInputError:
        return {}


def _has(family: Architecture, class_: str) -> bool:
    return any(part.class_ == class_ for part in family.parts.values())


def not_followed(checkpoint: Checkpoint, family: Architecture) -> list[str]:
    """Returns the settings of generation_config.json that change what is written and are not followed, as `key=value`.

    Args:
        checkpoint: Its configuration and headers.
        family: Its architecture; one whose parts write no text has none. BLIP's own `generate` reads no such file.
    """
    is_blip = architecture_name(checkpoint.config).startswith("Blip")
    if is_blip or not any(part.generates is not None for part in family.parts.values()):
        return []
    given = checkpoint.generation or checkpoint.config  # as transformers: config.json counts where there is no other
    changed = {key: given.get(key) for key, neutral in _UNFOLLOWED.items() if given.get(key) not in (neutral, None)}
    return [f"{key}={str(value)[:40]}" for key, value in changed.items()]
