"""Class `multimodal-generator`: a question and the pictures' tokens to text, by a language model that takes both."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from pydantic import Field
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling

from s2m3.agents.checkpoints.multimodal.picture_features import PICTURE_FIELDS
from s2m3.agents.checkpoints.multimodal.processor import TextHalf
from s2m3.agents.checkpoints.networks import build_network
from s2m3.agents.checkpoints.part import CheckpointPart
from s2m3.agents.checkpoints.text_settings import never_chosen, new_tokens, text_ends, token_rules
from s2m3.agents.modules.decoding import DecodedSequence, Stop
from s2m3.agents.modules.kv_cache import kv_cache_size
from s2m3.agents.modules.ports import Config, port, read_config, text_port
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.modules.stepwise import StepwiseDecoding
from s2m3.agents.modules.token_rules import TokenRules
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.agents.serving.module import default_tokens
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.sizes import TextLength
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["MultimodalConfig", "MultimodalGenerator", "load_multimodal_generator"]


class MultimodalConfig(Config):
    """The longest text, in tokens; and a prompt of one's own, with `<image>` and `{text}`, instead of the template."""

    max_new_tokens: int | None = Field(default=None, ge=1, le=4096)
    prompt: str | None = None


@dataclass
class PictureOutputs(BaseModelOutputWithPooling):  # type: ignore[misc]  # transformers is not typed
    """What another node's `get_image_features` gave."""

    deepstack_features: list[torch.Tensor] | None = None


@dataclass(frozen=True)
class _Item:
    """What `generate` takes: the prompt's inputs, and the pictures' features."""

    given: Mapping[str, Any]
    tokens: int


class MultimodalGenerator:
    """`features` (of class `picture-features`) and `text` to `text`; `finished` is why it ended: `stop` or `length`."""

    light = False
    max_batch = 8
    generates = "text"

    def __init__(
        self,
        network: Any,
        half: TextHalf,
        *,
        stop: Stop,
        rules: TokenRules,
        length: TextLength,
        cache_bytes: int,
        asks: bool,
    ) -> None:
        config = network.config.get_text_config(decoder=True)
        self._half = half
        self._decoding = StepwiseDecoding(network, stop, rules)
        self._cache_size = kv_cache_size(config, network.dtype.itemsize)
        self._vocabulary = config.vocab_size
        self._length = length
        self._asks = asks
        self.usual_tokens = length.after(0)
        self.cache_bytes = cache_bytes
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's prompt with the pictures in it."""
        question = text_port(inputs, "text") if self._asks else ""
        features = port(inputs, "features", "data")
        if not isinstance(features, Mapping) or not isinstance(features.get("sizes"), Mapping):
            raise BadInputError("input 'features' is no map of a picture's features")
        given = self._half(question, features["sizes"], int(features.get("pictures", 1)))
        ids = given["input_ids"]
        if int(ids.max()) >= self._vocabulary:
            raise BadInputError(f"the prompt has the token {int(ids.max())}; the model knows {self._vocabulary}")
        fields = {name: _tensors(features[name]) for name in PICTURE_FIELDS if name in features}
        return _Item({**given, "mm_encoder_outputs": {"image": PictureOutputs(**fields)}}, ids.shape[1])

    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item: `text`, `finished`."""
        if not wanted:
            return [{} for _ in batch]
        return [{name: found[name] for name in wanted if name in found} for found in write_all(self, batch)]

    def usual_tokens_after(self, prepared: _Item) -> int:
        """Returns the most tokens behind an item's prompt if a request names no number."""
        return self._length.after(prepared.tokens)

    def most_tokens(self, prepared: _Item) -> int:
        """Returns what the network's positions leave behind the prompt."""
        return self._cache_size.positions - prepared.tokens

    def need_bytes(self, prepared: _Item, tokens: int) -> int:
        """Returns the keys and values of a text of so many tokens, in bytes."""
        return self._cache_size.need_bytes(prepared.tokens, 0, tokens)

    def begin(self, prepared: _Item, options: Options) -> DecodedSequence:
        """Reads the prompt and says the first token."""
        return self._decoding.begin(prepared.given, options, options.max_tokens or default_tokens(self, prepared))

    def advance(self, rows: Sequence[DecodedSequence]) -> None:
        """Says one more token of each."""
        self._decoding.advance(rows)

    def drop(self, rows: Sequence[DecodedSequence]) -> None:
        """Forgets texts."""
        self._decoding.drop(rows)

    def text(self, tokens: Sequence[int]) -> str:
        """Returns what tokens say, without blanks around it."""
        text: str = self._half.tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()


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
    config = read_config(opened.spec, MultimodalConfig)
    ends = text_ends(opened)
    network = build_network(opened)
    if opened.checkpoint.generation:
        try:
            network.generation_config = GenerationConfig(**opened.checkpoint.generation)
        except (ValueError, TypeError) as error:
            raise ModuleFailedError(f"generation_config.json: {error}"[:300]) from error
    vocabulary = network.config.get_text_config(decoder=True).vocab_size
    return MultimodalGenerator(
        network,
        TextHalf(opened, config.prompt or str(opened.part.options.get("prompt", "chat"))),
        stop=Stop(frozenset(ends), never_chosen(opened, "suppress_tokens", vocabulary)),
        rules=token_rules(opened, ends, vocabulary),
        length=new_tokens(opened, config.max_new_tokens),
        cache_bytes=int(opened.spec.cache_mb * 1e6),
        asks="text" in opened.part.inputs,
    )
