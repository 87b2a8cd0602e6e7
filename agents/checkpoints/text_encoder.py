"""Class `text-encoder`: texts to what a text tower makes of them, alone or with another step's hidden states."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from s2m3.agents.checkpoints.networks import build_network
from s2m3.agents.checkpoints.outputs import Asked, asked_outputs, take
from s2m3.agents.checkpoints.part import CheckpointPart
from s2m3.agents.checkpoints.preprocessing import read_tokenizer, token_limit
from s2m3.agents.embedding_cache import EmbeddingCache, Ids, Tokens, check_tokens, pack
from s2m3.agents.modules.ports import tensor_port, text_port, texts_port
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Kind, Tensor, Value

__all__ = ["TextEncoder", "TokenizedTexts", "load_text_encoder"]


class TokenizedTexts:
    """A checkpoint's tokenizer, within what its network can take.

    Args:
        opened: The part.
        config: Of its network.
    """

    def __init__(self, opened: CheckpointPart, config: Any) -> None:
        self._tokenizer = read_tokenizer(opened)
        self._limit = token_limit(self._tokenizer, config)
        #: Some models were trained on texts padded to one length, without a mask: the padding is part of the text.
        self._padding = "max_length" if opened.option("padding") == "longest-possible" else "do_not_pad"

    def __call__(self, inputs: Mapping[str, Value], kind: Kind) -> tuple[list[str], list[Tokens]]:
        """Returns an item's texts, and the tokens of each, cut to what fits.

        Raises:
            BadInputError: Too many, too long, or not UTF-8.
        """
        texts = [text_port(inputs, "text")] if kind == "text" else texts_port(inputs, "text")
        ids = self._tokenizer(texts, truncation=True, max_length=self._limit, padding=self._padding)["input_ids"]
        if not all(ids):
            raise BadInputError("a text without a single token")
        tokens = [pack(one) for one in ids]
        check_tokens(tokens)
        return texts, tokens


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
        return take(self._asked, self._network(input_ids=torch.from_numpy(ids).long()), ["embedding"])["embedding"]

    @torch.inference_mode()
    def _crossed(self, item: _Item, wanted: frozenset[str]) -> dict[str, Value]:
        ids = torch.from_numpy(np.frombuffer(item.tokens[0], np.int32)[None].astype(np.int64))
        hidden = torch.from_numpy(np.array(item.hidden))
        return {**take(self._asked, self._network(input_ids=ids, encoder_hidden_states=hidden), wanted)}


def load_text_encoder(opened: CheckpointPart) -> TextEncoder:
    """Builds class `text-encoder`.

    Raises:
        ModuleFailedError: Weights or tokenizer do not fit; the text names them.
    """
    network = build_network(opened)
    tokenize = TokenizedTexts(opened, network.config)
    return TextEncoder(network, tokenize, asked_outputs(opened), crosses="hidden" in opened.part.inputs)
