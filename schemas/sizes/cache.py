"""Memory of the KV cache (keys and values of attention) during text generation, from the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

from s2m3.schemas.sizes.size import Dims

__all__ = ["TextLength", "cache_mb", "text_bytes", "text_length"]

#: Assumed tokens of a question or of the tokens that a decoder with cross-attention starts from, and bytes of a number.
_PROMPT, _START, _BYTES = 128, 8, 4
#: Tokens of a text where neither the request nor generation_config.json names a number, and the most that the latter's
#: number counts: a language model's positions may be 100,000, whose keys and values nobody would reserve.
_UNSAID, _MOST = 512, 4096
#: Most texts generated together, and the part of the weights' memory that their caches may take.
_TEXTS, _SHARE = 8, 0.1
_POSITIONS = ("max_target_positions", "n_positions", "max_position_embeddings")


@dataclass(frozen=True, slots=True)
class TextLength:
    """How long a text becomes where the request names no number of tokens.

    Args:
        new: Tokens behind the prompt; None if not said.
        whole: Tokens with the prompt; None if not said.
    """

    new: int | None = None
    whole: int | None = None

    def after(self, prompt: int) -> int:
        """Returns the most tokens behind a prompt of so many tokens, at least 1, whatever the network's positions."""
        if self.new is not None:
            return min(self.new, _MOST)
        return _UNSAID if self.whole is None else max(1, min(self.whole - prompt, _MOST))


def text_length(generation: Mapping[str, Any], *, whisper: bool = False) -> TextLength:
    """Returns what generation_config.json says of the length: `max_new_tokens`, else `max_length`.

    Args:
        generation: What the file holds; empty if there is none.
        whisper: Whether `max_length` leaves out the prompt, as transformers has it for Whisper.
    """
    new, whole = (generation.get(name) for name in ("max_new_tokens", "max_length"))
    if isinstance(new, int) and new > 0:
        return TextLength(new=new)
    if not isinstance(whole, int) or whole < 1:
        return TextLength()
    return TextLength(new=whole) if whisper else TextLength(whole=whole)


def text_bytes(dims: Dims, states: int, generation: Mapping[str, Any], *, crossed: bool) -> int:
    """Returns the bytes of the KV cache of one text of the default length, or of 512 tokens if that is shorter.

    Args:
        dims: The decoder's configuration.
        states: Tokens of the encoder's output.
        generation: What generation_config.json holds; empty if there is none.
        crossed: Whether the decoder uses cross-attention on these, which also keeps the states themselves; otherwise
            they are part of the prompt.
    """
    width = dims.get("hidden_size") or dims.get("n_embd") or dims["d_model"]
    layers = dims.get("decoder_layers") or dims.get("n_layer") or dims["num_hidden_layers"]
    kv_width = width  # width of keys, and of values; smaller with grouped-query attention
    if heads := dims.get("num_key_value_heads"):
        kv_width = heads * (dims.get("head_dim") or width // dims["num_attention_heads"])
    token = 2 * layers * kv_width * _BYTES
    prompt = _START if crossed else _PROMPT + states
    tokens = prompt + max(_UNSAID, text_length(generation, whisper="max_target_positions" in dims).after(prompt))
    positions = next((dims[name] for name in _POSITIONS if dims.get(name)), tokens)
    kept = min(tokens, positions) * token
    return int(kept + (states * (2 * layers * width + width) * _BYTES if crossed else 0))


def cache_mb(text: int, weights_mb: float) -> float:
    """Returns the memory reserved for a module's KV caches, 10^6 bytes: a tenth of its weights, for one to eight texts.

    Args:
        text: Bytes of one text's cache.
        weights_mb: Memory of the weights, 10^6 bytes.
    """
    one = text / 1e6
    return ceil(100 * max(one, min(_TEXTS * one, _SHARE * weights_mb))) / 100  # never less than one text takes
