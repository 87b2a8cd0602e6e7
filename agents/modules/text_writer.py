"""What modules that write text token by token have in common: prompt and tokens are counted, texts advance and end.

A subclass says what one item is, and how its text begins.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, Protocol, TypeVar

from s2m3.agents.modules.kv_cache import KVCacheSize
from s2m3.agents.modules.sequences import DecodedSequence
from s2m3.agents.serving.continuous_batching import write_all
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["TextWriter"]

#: One prepared item.
P = TypeVar("P")


class _Texts(Protocol):
    """The texts that a network is saying (agents/modules/decoding.py, stepwise.py)."""

    def advance(self, rows: Sequence[DecodedSequence]) -> None:
        """Says one more token of each."""

    def drop(self, rows: Sequence[DecodedSequence]) -> None:
        """Forgets texts."""


class TextWriter(ABC, Generic[P]):
    """A Generator (agents/serving/module.py) over a network with a cache of keys and values.

    Args:
        texts: What says the tokens.
        tokenizer: Of transformers or tokenizers: its `decode` makes texts of tokens.
        cache_size: What the keys and values of a text take.
        usual_tokens: Tokens where a request names no number.
        cache_bytes: Bytes that keys and values of all texts together may take.
        nbytes: Of all tensors.
    """

    #: Each step reads all the weights, whatever the batch: eight texts at once gain x2.
    light = False
    max_batch = 8
    generates = "text"

    def __init__(
        self,
        texts: _Texts,
        *,
        tokenizer: Any,
        cache_size: KVCacheSize,
        usual_tokens: int,
        cache_bytes: int,
        nbytes: int,
    ) -> None:
        self._texts = texts
        self._tokenizer = tokenizer
        self._cache_size = cache_size
        self.usual_tokens = usual_tokens
        self.cache_bytes = cache_bytes
        self.nbytes = nbytes

    @abstractmethod
    def prepare(self, inputs: Mapping[str, Value]) -> P:
        """Returns the item, checked and decoded."""

    @abstractmethod
    def _sizes(self, prepared: P) -> tuple[int, int]:
        """Returns the tokens that an item's text is written behind, and the states that it cross-attends to."""

    @abstractmethod
    def begin(self, prepared: P, options: Options) -> DecodedSequence:
        """Reads the prompt and says the first token."""

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

    def advance(self, rows: Sequence[DecodedSequence]) -> None:
        """Says one more token of each."""
        self._texts.advance(rows)

    def drop(self, rows: Sequence[DecodedSequence]) -> None:
        """Forgets texts."""
        self._texts.drop(rows)

    def text(self, tokens: Sequence[int]) -> str:
        """Returns what tokens say, without blanks around it."""
        text: str = self._tokenizer.decode(list(tokens), skip_special_tokens=True)
        return text.strip()
