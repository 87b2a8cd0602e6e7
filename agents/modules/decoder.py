"""What modules that write text token by token have in common: prompt and tokens are counted, texts begin and advance.

A subclass says what one item is: its prompt, what the network cross-attends to, and how the network is called.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from s2m3.agents.modules.decoding import DecodedSequence, Decoding, Start, Stop
from s2m3.agents.modules.kv_cache import kv_cache_size
from s2m3.agents.modules.padding import honours_padding
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.modules.token_rules import NO_RULES, TokenRules
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.agents.serving.module import default_tokens
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["TextDecoder"]

#: One prepared item.
P = TypeVar("P")


class TextDecoder(ABC, Generic[P]):
    """A Generator (agents/serving/module.py) over a network with a cache of keys and values.

    Args:
        network: Of transformers; `_forward` calls it.
        tokenizer: Of transformers or tokenizers: its `decode` makes texts of tokens.
        stop: When texts end.
        usual_tokens: Tokens where a request names no number.
        cache_bytes: Bytes that keys and values of all texts together may take.
        before: What is applied to the encoder's output first, if anything is.
        rules: Settings of the checkpoint that change which token is chosen.
    """

    #: Each step reads all the weights, whatever the batch: eight texts at once gain x2.
    light = False
    max_batch = 8
    generates = "text"

    def __init__(
        self,
        network: Any,
        *,
        tokenizer: Any,
        stop: Stop,
        usual_tokens: int,
        cache_bytes: int,
        before: nn.Module | None = None,
        rules: TokenRules = NO_RULES,
    ) -> None:
        self._network = network
        self._tokenizer = tokenizer
        self._decoding = Decoding(self._forward, stop, pads=honours_padding(network), rules=rules)
        self._cache_size = kv_cache_size(network.config, network.dtype.itemsize)
        self.usual_tokens = usual_tokens
        self.cache_bytes = cache_bytes
        self.nbytes = nbytes_of(network) + (nbytes_of(before) if before else 0)

    @abstractmethod
    def prepare(self, inputs: Mapping[str, Value]) -> P:
        """Returns the item, checked and decoded."""

    @abstractmethod
    def _sizes(self, prepared: P) -> tuple[int, int]:
        """Returns the tokens of an item's prompt, and the states that the network cross-attends to."""

    @abstractmethod
    def _start(self, prepared: P) -> Start:
        """Returns what an item's text starts from; called in inference mode."""

    @abstractmethod
    def _forward(self, states: torch.Tensor | None = None, **given: Any) -> torch.Tensor:
        """Calls the network as `Decoding` asks; returns the logits of the last position, (texts, vocabulary)."""

    def run(self, batch: Sequence[P], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item: `text`, `finished`, and what else its sequence has."""
        if not wanted:
            return [{} for _ in batch]
        return [{name: found[name] for name in wanted if name in found} for found in write_all(self, batch)]

    def most_tokens(self, prepared: P) -> int:
        """Returns what the network's positions leave behind the prompt."""
        return self._cache_size.positions - self._sizes(prepared)[0]

    def need_bytes(self, prepared: P, tokens: int) -> int:
        """Returns the keys and values of a text of so many tokens, in bytes."""
        return self._cache_size.need_bytes(*self._sizes(prepared), tokens)

    @torch.inference_mode()
    def begin(self, prepared: P, options: Options) -> DecodedSequence:
        """Reads the prompt and says the first token."""
        limit = options.max_tokens or default_tokens(self, prepared)
        return self._decoding.begin(self._start(prepared), options, limit)

    def advance(self, rows: Sequence[DecodedSequence]) -> None:
        """Says one more token of each."""
        self._decoding.advance(rows)

    def drop(self, rows: Sequence[DecodedSequence]) -> None:
        """Forgets texts."""
        self._decoding.drop(rows)

    def text(self, tokens: Sequence[int]) -> str:
        """Returns what tokens say, without the blank that some models begin with."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()
