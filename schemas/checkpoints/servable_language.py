"""Whether a language model's folder has what its prompts need: reads its configurations and file names, no weights."""

from s2m3.schemas.checkpoints.architectures import Architecture
from s2m3.schemas.checkpoints.headers import Checkpoint
from s2m3.schemas.checkpoints.processors import read_chat_template

__all__ = ["why_no_prompt"]

#: Classes whose prompt has pictures in it.
_ABOUT_PICTURES = ("multimodal-generator", "text-generator")
#: Keys of config.json that say that a model takes more than texts.
_MEDIA = ("vision_config", "audio_config", "speech_config", "image_processor")


def why_no_prompt(checkpoint: Checkpoint, family: Architecture) -> str | None:
    """Returns why no prompt can be made, as what follows the checkpoint's name in a sentence; None if one can."""
    for part in family.parts.values():
        if part.class_ in _ABOUT_PICTURES and part.options.get("prompt") == "chat":
            return None if read_chat_template(checkpoint.folder) else _NO_TEMPLATE
        if part.class_ == "causal-lm" and (key := next((key for key in _MEDIA if checkpoint.config.get(key)), None)):
            return f"takes more than texts ({key}), and is not cut by transformers: only its texts could be served"
    return None


_NO_TEMPLATE = (
    "has no chat template (chat_template.jinja, or in tokenizer_config.json): "
    "its authors' prompt for a question about pictures is not known"
)
