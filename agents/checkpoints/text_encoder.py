"""Class `text-encoder`: texts to what a text tower makes of them, alone or with another step's hidden states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import torch

from s2m3.agents.checkpoints.networks import build_network, taken_by
from s2m3.agents.checkpoints.outputs import Asked, asked_outputs, take
from s2m3.agents.checkpoints.part import CheckpointPart
from s2m3.agents.checkpoints.preprocessing import read_tokenizer, token_limit
from s2m3.agents.embedding_cache import EmbeddingCache, Ids, Tokens, check_tokens, pack, unpack
from s2m3.agents.modules.ports import tensor_port, text_port, texts_port
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Kind, Tensor, Value

__all__ = ["TextEncoder", "TokenizedTexts", "load_text_encoder"]


class TokenizedTexts:
    """A checkpoint's tokenizer, within what its network can take.

    `names` are the network's arguments that the tokenizer makes: `input_ids` first, then those of `token_type_ids` and
    `attention_mask` that can differ between two texts of one length.

    Args:
        opened: The part.
        network: Its network.
    """

    def __init__(self, opened: CheckpointPart, network: Any) -> None:
        self._tokenizer = read_tokenizer(opened)
        self._limit = token_limit(self._tokenizer, network.config)
        #: Some models were trained on texts padded to one length: the padding is part of the text.
        padded = opened.option("padding") == "longest-possible"
        self._padding = "max_length" if padded else "do_not_pad"
        told = ("token_type_ids", "attention_mask") if padded else ("token_type_ids",)
        made = [name for name in told if name in self._tokenizer.model_input_names and name in taken_by(network)]
        self.names = ("input_ids", *made)

    def __call__(self, inputs: Mapping[str, Value], kind: Kind) -> tuple[list[str], list[Tokens]]:
        """Returns an item's texts, and the tokens of each, cut to what fits.

        Raises:
            BadInputError: Too many, too long, or not UTF-8.
        """
        texts = [text_port(inputs, "text")] if kind == "text" else texts_port(inputs, "text")
        made = self._tokenizer(texts, truncation=True, max_length=self._limit, padding=self._padding)
        if not all(made["input_ids"]):
            raise BadInputError("a text without a single token")
        tokens = [pack([*chain(*rows)]) for rows in zip(*(made[name] for name in self.names), strict=True)]
        check_tokens(tokens, len(self.names))
        return texts, tokens

    def tensors(self, packed: Ids) -> dict[str, torch.Tensor]:
        """Returns the network's arguments for texts of one length, (texts, tokens) each."""
        rows = torch.from_numpy(packed).long().chunk(len(self.names), dim=1)
        return dict(zip(self.names, rows, strict=True))


@dataclass(frozen=True)
class _Item:
    texts: list[str]
    tokens: list[Tokens]
    hidden: Tensor | None


class TextEncoder:
    """`text` (and `hidden`, where the network cross-attends to it) to the table's outputs.

    Rows of texts alone are remembered: a task's labels are computed once. Each text runs at its true length, so that
    its row does not depend on its batch mates.
    """

    light = False
    max_batch = 8

    def __init__(self, network: Any, tokenize: TokenizedTexts, asked: Mapping[str, Asked], *, crosses: bool) -> None:
        self._network = network
        self._tokenize = tokenize
        self._asked = asked
        self._crosses = crosses
        self._remembered = EmbeddingCache(self._row)
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's texts as tokens, and its hidden states."""
        texts, tokens = self._tokenize(inputs, "text" if self._crosses else "texts")
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
        return results

    @torch.inference_mode()
    def _row(self, ids: Ids) -> Any:
        return take(self._asked, self._network(**self._tokenize.tensors(ids)), ["embedding"])["embedding"]

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
    network = build_network(opened)
    tokenize = TokenizedTexts(opened, network)
    return TextEncoder(network, tokenize, asked_outputs(opened), crosses="hidden" in opened.part.inputs)
