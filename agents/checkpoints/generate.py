"""Greedy generation: the likeliest next token, again and again, with the network's own cache. One text at a time."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import DynamicCache, EncoderDecoderCache

__all__ = ["Start", "Stop", "greedy"]


@dataclass(frozen=True)
class Start:
    """What a text starts from.

    Args:
        ids: Tokens of the prompt, (1, tokens); or
        embeds: Their vectors, where a picture's tokens are among them, (1, tokens, width).
        crossing: What the decoder cross-attends to, by its argument's name.
    """

    ids: torch.Tensor | None = None
    embeds: torch.Tensor | None = None
    crossing: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stop:
    """When a text ends, and what is never in it.

    Args:
        ends: Tokens that end it.
        longest: Tokens it has at most.
        never: Tokens that are never chosen.
        never_first: Nor these as the first.
    """

    ends: frozenset[int]
    longest: int
    never: list[int] = field(default_factory=list)
    never_first: list[int] = field(default_factory=list)


@torch.inference_mode()
def greedy(network: Any, start: Start, stop: Stop) -> list[int]:
    """Returns the tokens after the prompt, without the one that ended the text."""
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache()) if start.crossing else DynamicCache()
    given = {"input_ids": start.ids} if start.embeds is None else {"inputs_embeds": start.embeds}
    said: list[int] = []
    while len(said) < stop.longest:
        result = network(**given, **start.crossing, past_key_values=cache, use_cache=True)
        logits = result.logits[0, -1].float()
        logits[[*stop.never, *(stop.never_first if not said else [])]] = -torch.inf
        token = int(logits.argmax())
        if token in stop.ends:
            break
        said.append(token)
        given = {"input_ids": torch.tensor([[token]])}
    return said
