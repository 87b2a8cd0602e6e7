"""Class `text-encoder`: texts to what a text tower makes of them, alone or with another step's hidden states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.networks.outputs import Asked, asked_outputs, take
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.texts.sentences import build_sentence_network, prompt_of
from s2m3.agents.checkpoints.texts.tokenized_texts import TokenizedTexts
from s2m3.agents.embedding_cache import EmbeddingCache, Ids, Tokens, unpack
from s2m3.agents.modules.ports import tensor_port, text_port, texts_port
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Tensor, Value

__all__ = ["TextEncoder", "load_text_encoder"]

#: Texts of one picture: what it shows, and what it must not show.
_PROMPTS = 2


@dataclass(frozen=True)
class _Item:
    texts: list[str]
    tokens: list[Tokens]
    hidden: Tensor | None


class TextEncoder:
    """`text` (and `hidden`, where the network cross-attends to it) to the table's outputs.

    `hidden` of texts alone is what a picture is made of: (2, tokens, width), of a prompt and of a second text, the
    negative prompt, which is empty where there is none. As in diffusers' pipelines, both are padded to all positions,
    and the padding is not masked.

    Rows of texts alone are remembered: a task's labels are computed once. Each text runs at its true length, so that
    its row does not depend on its batch mates.
    """

    light = False
    max_batch = 8
    prepares_at_once = 1
    repeatable = True

    def __init__(
        self, network: Any, tokenize: TokenizedTexts, asked: Mapping[str, Asked], *, crosses: bool, prompt: str = ""
    ) -> None:
        self._network = network
        self._prompt = prompt
        self._tokenize = tokenize
        self._asked = asked
        self._crosses = crosses
        self._remembered = EmbeddingCache(self._row)
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's texts as tokens, and its hidden states."""
        texts = [text_port(inputs, "text")] if self._crosses else texts_port(inputs, "text")
        tokens = self._tokenize([f"{self._prompt}{text}" for text in texts])
        hidden = tensor_port(inputs, "hidden", (1, None, None)) if self._crosses else None
        return _Item(texts, tokens, hidden)

    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        results: list[dict[str, Value]] = [{"text": item.texts} if "text" in wanted else {} for item in batch]
        if self._crosses:
            return [{**result, **self._crossed(item, wanted)} for item, result in zip(batch, results, strict=True)]
        if "embedding" in wanted:
            for result, rows in zip(results, self._remembered.rows([item.tokens for item in batch]), strict=True):
                result["embedding"] = rows
        if "hidden" in wanted:
            for item, result in zip(batch, results, strict=True):
                result["hidden"] = self._prompts(item.texts)
        return results

    @torch.inference_mode()
    def _row(self, ids: Ids) -> Any:
        return take(self._asked, self._network(**self._tokenize.tensors(ids)), ["embedding"])["embedding"]

    @torch.inference_mode()
    def _prompts(self, texts: list[str]) -> Any:
        if len(texts) > _PROMPTS:
            raise BadInputError(f"{len(texts)} texts; a picture has a prompt, and perhaps a negative prompt")
        padded = [*texts, ""][:_PROMPTS]
        rows = [self._network(input_ids=self._tokenize.padded(text)) for text in padded]
        return np.concatenate([take(self._asked, row, ["hidden"])["hidden"] for row in rows])

    @torch.inference_mode()
    def _crossed(self, item: _Item, wanted: frozenset[str]) -> dict[str, Value]:
        tokens = self._tokenize.tensors(unpack(item.tokens))
        hidden = torch.from_numpy(np.array(item.hidden))
        return {**take(self._asked, self._network(**tokens, encoder_hidden_states=hidden), wanted)}


def load_text_encoder(opened: CheckpointPart) -> TextEncoder:
    """Builds class `text-encoder`.

    Raises:
        ModuleFailedError: Weights or tokenizer do not fit; the text names them.
    """
    is_sentence = opened.option("pooling") == "folder"
    network = build_sentence_network(opened) if is_sentence else build_network(opened)
    prompt = prompt_of(opened) if is_sentence else ""
    crosses = "hidden" in opened.part.inputs
    tokenize = TokenizedTexts(opened, network)
    return TextEncoder(network, tokenize, asked_outputs(opened), crosses=crosses, prompt=prompt)
