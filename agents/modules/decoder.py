"""Modules that write text with a network's own cache: texts begin from a prompt or an encoder's output.

A subclass says what one item is: its prompt, what the network cross-attends to, and how the network is called.
"""

from abc import abstractmethod
from typing import Any, TypeVar

import torch
from torch import nn

from s2m3.agents.modules.decoding import DecodedSequence, Decoding, Start, Stop
from s2m3.agents.modules.kv_cache import kv_cache_size
from s2m3.agents.modules.padding import honours_padding
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.modules.text_writer import TextWriter
from s2m3.agents.modules.token_rules import NO_RULES, TokenRules
from s2m3.agents.serving.module import default_tokens
from s2m3.schemas.wire.generation import Options

__all__ = ["TextDecoder"]

#: One prepared item.
P = TypeVar("P")


class TextDecoder(TextWriter[P]):
    """A TextWriter whose texts are said by `Decoding`.

    Args:
        network: Of transformers; `_forward` calls it.
        tokenizer: Of transformers or tokenizers: its `decode` makes texts of tokens.
        stop: When texts end.
        usual_tokens: Tokens where a request names no number.
        cache_bytes: Bytes that keys and values of all texts together may take.
        before: What is applied to the encoder's output first, if anything is.
        rules: Settings of the checkpoint that change which token is chosen.
    """

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
        self.stop = stop
        self._decoding = Decoding(self._forward, stop, pads=honours_padding(network), rules=rules)
        super().__init__(
            self._decoding,
            tokenizer=tokenizer,
            cache_size=kv_cache_size(network.config, network.dtype.itemsize),
            usual_tokens=usual_tokens,
            cache_bytes=cache_bytes,
            nbytes=nbytes_of(network) + (nbytes_of(before) if before else 0),
        )

    @abstractmethod
    def _start(self, prepared: P) -> Start:
        """Returns what an item's text starts from; called in inference mode."""

    @abstractmethod
    def _forward(self, states: torch.Tensor | None = None, **given: Any) -> torch.Tensor:
        """Calls the network as `Decoding` asks; returns the logits of the last position, (texts, vocabulary)."""

    @torch.inference_mode()
    def begin(self, prepared: P, options: Options) -> DecodedSequence:
        """Reads the prompt and says the first token."""
        limit = options.max_tokens or default_tokens(self, prepared)
        return self._decoding.begin(self._start(prepared), options, limit)
