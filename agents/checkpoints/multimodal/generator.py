"""Class `multimodal-generator`: a question and the pictures' tokens to text, by a language model that takes both."""

from collections.abc import Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from s2m3.agents.checkpoints.generation.prompted import (
    Prompt,
    PromptConfig,
    PromptGenerator,
    PromptSettings,
    build_prompted,
)
from s2m3.agents.checkpoints.multimodal.picture_features import MOST_PICTURES, PICTURE_FIELDS
from s2m3.agents.checkpoints.multimodal.processor import PictureHalf, TextHalf
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.decoding import DecodedSequence
from s2m3.agents.modules.ports import chat_port, port, read_config, tensor_port, tools_port
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["MultimodalGenerator", "load_multimodal_generator"]


@dataclass
class PictureOutputs(BaseModelOutputWithPooling):  # type: ignore[misc]  # transformers is not typed
    """What another node's `get_image_features` gave."""

    deepstack_features: list[torch.Tensor] | None = None


class _SentTower(nn.Module):
    """The place of a vision tower that another node runs: it returns what that node's gave."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden: torch.Tensor | None = None

    def forward(self, *_given: Any, **_named: Any) -> BaseModelOutputWithPooling:
        """Returns the tower's last hidden states."""
        return BaseModelOutputWithPooling(last_hidden_state=self.hidden)


@dataclass(frozen=True)
class _TowerPrompt(Prompt):
    """A prompt whose pictures' tokens the projector has still to make: of `hidden`, (pictures, states, width)."""

    hidden: torch.Tensor


class MultimodalGenerator(PromptGenerator):
    """`features` (of class `picture-features`) and `text` (a text or a chat) to `text`; `finished` is why it ended."""

    def __init__(
        self, network: Any, half: TextHalf, settings: PromptSettings, *, asks: bool, writer: Any = None
    ) -> None:
        super().__init__(network, half.tokenizer, settings, writer)
        self._half = half
        self._asks = asks

    def prepare(self, inputs: Mapping[str, Value]) -> Prompt:
        """Returns the item's prompt with the pictures in it."""
        features = port(inputs, "features", "data")
        if not isinstance(features, Mapping) or not isinstance(features.get("sizes"), Mapping):
            raise BadInputError("input 'features' is no map of a picture's features")
        count = features.get("pictures", 1)
        if type(count) is not int or not 1 <= count <= MOST_PICTURES:
            raise BadInputError(f"input 'features' is of 1 to {MOST_PICTURES} pictures")
        given = self._put(inputs, count, features["sizes"])
        fields = {name: _tensors(features[name]) for name in PICTURE_FIELDS if name in features}
        return self._prompt({**given, "mm_encoder_outputs": {"image": PictureOutputs(**fields)}})

    def _put(self, inputs: Mapping[str, Value], pictures: int, sizes: Mapping[str, Value]) -> dict[str, Any]:
        """Returns the question in its prompt, as the network takes it, without pictures."""
        if self._asks:
            tools_port(inputs, "text", None)
        chat = chat_port(inputs if self._asks else {"text": ""}, "text", pictures)
        return self._half(chat, sizes)


class TowerGenerator(MultimodalGenerator):
    """The same with `hidden`, what a vision tower gave, instead of `features`: the projector is here.

    Every picture of such a family becomes equally many tokens, whatever its size. Where the class's `generate` reads
    pictures itself and hands over to its language model, it runs with the sent tower in the place of its own.
    """

    def __init__(
        self, network: Any, half: TextHalf, settings: PromptSettings, picture: PictureHalf, *, tower: str
    ) -> None:
        takes = signature(type(network).generate).parameters
        self._reads = "pixel_values" in takes
        writer = network.language_model if self._reads else None
        super().__init__(network, half, settings, asks=True, writer=writer)
        self._network = network
        self._tower = _SentTower()
        setattr(network.base_model, tower, self._tower)
        self._pixels, self._of_one = picture([Image.new("RGB", (64, 64))])

    def prepare(self, inputs: Mapping[str, Value]) -> Prompt:
        """Returns the item's prompt, and what the tower gave of its pictures."""
        hidden = torch.from_numpy(np.array(tensor_port(inputs, "hidden", (None, None, None))))
        given = self._put(
            inputs, len(hidden), {name: _repeated(value, len(hidden)) for name, value in self._of_one.items()}
        )
        prompt = self._prompt(given)
        return _TowerPrompt(prompt.given, prompt.tokens, hidden)

    @torch.inference_mode()
    def begin(self, prepared: Prompt, options: Options) -> DecodedSequence:
        """Makes the pictures' tokens, reads the prompt and says the first token."""
        if not isinstance(prepared, _TowerPrompt):
            return super().begin(prepared, options)
        self._tower.hidden = prepared.hidden.to(self._network.dtype)
        try:
            given = {**prepared.given, **self._pictures()}
            return super().begin(Prompt(given, prepared.tokens), options)
        finally:
            self._tower.hidden = None

    def _pictures(self) -> dict[str, Any]:
        """Returns what `generate` is given of the pictures."""
        pixels = self._pixels["pixel_values"]
        if self._reads:
            return {"pixel_values": pixels}
        found = self._network.base_model.get_image_features(pixel_values=pixels, return_dict=True)
        return {"mm_encoder_outputs": {"image": found}}


def _repeated(value: Value, count: int) -> Value:
    """Returns what the picture half gave of one picture as of several that are alike."""
    if isinstance(value, np.ndarray) and value.ndim:
        return np.repeat(value, count, axis=0)
    if isinstance(value, list):
        return value * count
    if isinstance(value, dict) and value.keys() == {"shape"}:
        return {"shape": [value["shape"][0] * count, *value["shape"][1:]]}
    return value


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
    if tower := opened.part.options.get("tower"):
        return TowerGenerator(network, half, settings, PictureHalf(opened), tower=str(tower))
    return MultimodalGenerator(network, half, settings, asks="text" in opened.part.inputs)
