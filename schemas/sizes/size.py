"""What is said of a module's size, and the lengths that are assumed where an item may be of any length."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from s2m3.schemas.sizes.counting import Count

__all__ = ["ANSWER_TOKENS", "QUESTION_TOKENS", "TEXT_TOKENS", "Dims", "Size"]

#: A part's configuration, with the defaults of transformers filled in.
Dims = Mapping[str, Any]

#: Tokens of a text whose encoder pads nothing, of a question to a language model, and of what is written.
TEXT_TOKENS, QUESTION_TOKENS, ANSWER_TOKENS = 64, 64, 16


@dataclass(frozen=True, slots=True)
class Size:
    """A module's parameters, operations and outputs for one item.

    Args:
        count: Parameters and operations.
        outputs: Shape of each tensor that may be passed on, by its field of the network's result in transformers.
    """

    count: Count
    outputs: Mapping[str, tuple[int, ...]]
    #: keys and values of one text, of a network that writes
    text_bytes: int = 0

    @property
    def gflops(self) -> float:
        """Operations for one item, 10^9."""
        return self.count.flops / 1e9
