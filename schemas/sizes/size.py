"""The size of a module, and the sequence lengths that are assumed for items of variable length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s2m3.schemas.sizes.counting import Count

__all__ = ["ANSWER_TOKENS", "QUESTION_TOKENS", "TEXT_TOKENS", "Dims", "Size"]

#: A part's configuration, completed with the defaults of transformers.
Dims = Mapping[str, Any]

#: Assumed tokens of a text for an encoder without padding, of a question to a language model, and of a generated text.
TEXT_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 64, 64, 16


@dataclass(frozen=True, slots=True)
class Size:
    """A module's parameters, operations and outputs for one item.

    Args:
        count: Parameters and operations.
        outputs: Shape of each output tensor, by its field of the network's result in transformers.
        text_bytes: Bytes of one text's KV cache; 0 for a network that generates no text.
    """

    count: Count
    outputs: Mapping[str, tuple[int, ...]]
    text_bytes: int = 0

    @property
    def gflops(self) -> float:
        """Operations per item, 10^9."""
        return self.count.flops / 1e9
