"""Whether a language model's folder has what its prompts need: reads its configurations and file names, no weights."""

from collections.abc import Mapping
from pathlib import Path

from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.checkpoints.headers import Checkpoint
from s2m3.schemas.checkpoints.processors import json_object, read_chat_template

__all__ = ["why_no_prompt"]

#: Classes whose prompt has pictures in it.
_ABOUT_PICTURES = ("multimodal-generator", "text-generator")
#: Keys of config.json that say that a model takes more than texts.
_MEDIA = ("vision_config", "audio_config", "speech_config", "image_processor")


def why_no_prompt(checkpoint: Checkpoint, family: Architecture) -> str | None:
    """Returns why no prompt can be made, as what follows the checkpoint's name in a sentence; None if one can."""
    for part in family.parts.values():
        if part.options.get("tower") and _pans(checkpoint.folder):
            return (
                "looks at several cuts of a picture (do_pan_and_scan), which is not served: turn it off in the folder"
            )
        if part.class_ in _ABOUT_PICTURES and part.options.get("prompt") == "chat":
            return None if read_chat_template(checkpoint.folder) else _NO_TEMPLATE
        if part.class_ == "causal-lm" and (key := next((key for key in _MEDIA if checkpoint.config.get(key)), None)):
            return f"takes more than texts ({key}), and is not cut by transformers: only its texts could be served"
    return None


def _pans(folder: Path) -> bool:
    whole = json_object(folder / "processor_config.json").get("image_processor")
    settings = whole if isinstance(whole, Mapping) else json_object(folder / "preprocessor_config.json")
    return bool(settings.get("do_pan_and_scan"))


_NO_TEMPLATE = (
    "has no chat template (chat_template.jinja, or in tokenizer_config.json): "
    "its authors' prompt for a question about pictures is not known"
)
