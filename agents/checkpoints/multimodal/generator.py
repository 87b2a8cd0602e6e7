"""Class `multimodal-generator`: a question and the pictures' tokens to text, by a language model that takes both."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from s2m3.agents.checkpoints.multimodal.picture_features import PICTURE_FIELDS
from s2m3.agents.checkpoints.multimodal.processor import TextHalf
from s2m3.agents.checkpoints.part import CheckpointPart
from s2m3.agents.checkpoints.prompted import Prompt, PromptConfig, PromptGenerator, PromptSettings, build_prompted
from s2m3.agents.modules.ports import chat_port, port, read_config
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["MultimodalGenerator", "load_multimodal_generator"]


@dataclass
class PictureOutputs(BaseModelOutputWithPooling):  # type: ignore[misc]  # transformers is not typed
    """What another node's `get_image_features` gave."""

    deepstack_features: list[torch.Tensor] | None = None


class MultimodalGenerator(PromptGenerator):
    """`features` (of class `picture-features`) and `text` (a text or a chat) to `text`; `finished` is why it ended."""

    def __init__(self, network: Any, half: TextHalf, settings: PromptSettings, *, asks: bool) -> None:
        super().__init__(network, half.tokenizer, settings)
        self._half = half
        self._asks = asks

    def prepare(self, inputs: Mapping[str, Value]) -> Prompt:
        """Returns the item's prompt with the pictures in it."""
        features = port(inputs, "features", "data")
        if not isinstance(features, Mapping) or not isinstance(features.get("sizes"), Mapping):
            raise BadInputError("input 'features' is no map of a picture's features")
        pictures = int(features.get("pictures", 1))
        chat = chat_port(inputs if self._asks else {"text": ""}, "text", pictures)
        given = self._half(chat, features["sizes"])
        fields = {name: _tensors(features[name]) for name in PICTURE_FIELDS if name in features}
        return self._prompt({**given, "mm_encoder_outputs": {"image": PictureOutputs(**fields)}})


def _tensors(value: Value) -> Any:
    """Returns an array, or the arrays of a list, as tensors."""
    if isinstance(value, np.ndarray):
        if not np.isfinite(value).all():
            raise BadInputError("input 'features' holds numbers that are not finite")
        return torch.from_numpy(np.array(value))
    if isinstance(value, list):
        return [_tensors(item) for item in value]
    raise BadInputError("input 'features' holds something that is no tensor")


def load_multimodal_generator(opened: CheckpointPart) -> MultimodalGenerator:
    """Builds class `multimodal-generator`.

    Raises:
        ModuleFailedError: Weights, processor, or the tokens that end a text do not fit; the text names it.
    """
    config = read_config(opened.spec, PromptConfig)
    half = TextHalf(opened, config.prompt or str(opened.part.options.get("prompt", "chat")))
    network, settings = build_prompted(opened, config)
    return MultimodalGenerator(network, half, settings, asks="text" in opened.part.inputs)
