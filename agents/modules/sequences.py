"""One text that a network is writing token by token, and when such a text ends. No torch."""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from s2m3.schemas.wire.generation import Options

__all__ = ["DecodedSequence", "Stop"]


@dataclass(frozen=True)
class Stop:
    """When a text ends by itself, and what is never in it.

    Args:
        ends: Tokens that end it.
        never: Tokens that are never chosen.
        never_first: Nor these as the first.
    """

    ends: frozenset[int]
    never: list[int] = field(default_factory=list)
    never_first: list[int] = field(default_factory=list)


@dataclass(eq=False, slots=True)
class DecodedSequence:
    """One text: what was said so far, without the token that ended it."""

    options: Options
    draw: random.Random
    tokens: list[int] = field(default_factory=list)
    ended: bool = False
    #: the token said last, an end mark too
    last: int = 0
    outputs: Mapping[str, str] = field(default_factory=dict)
    prompt: Sequence[int] = ()
    #: what is applied to the logits of each token
    processors: Callable[[Any, Any], Any] | None = None
    #: 0 chooses the likeliest token
    temperature: float = 0.0
    #: what is applied to the logits divided by the temperature before a token is drawn
    warpers: Callable[[Any, Any], Any] | None = None
