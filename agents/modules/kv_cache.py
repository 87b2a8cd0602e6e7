"""How many tokens a decoder's positions allow, and how many bytes of keys and values they take. No weights are read."""

from dataclasses import dataclass
from typing import Any

__all__ = ["KVCacheSize", "kv_cache_size", "positions_of"]

#: Architectures whose positions count from the padding token's id on: that many tokens fewer fit.
_POSITIONS_AFTER_PADDING = ("roberta", "clap_text_model", "camembert", "altclip_text_model", "mpnet")


@dataclass(frozen=True)
class KVCacheSize:
    """What a decoder's texts need.

    Args:
        positions: Tokens of a text with its prompt, at most.
        token_bytes: Keys and values of one token.
        state_bytes: Of one state that is cross-attended to, and the state itself.
    """

    positions: int
    token_bytes: int
    state_bytes: int

    def need_bytes(self, prompt: int, states: int, tokens: int) -> int:
        """Returns the bytes of a text of so many tokens."""
        return (prompt + tokens) * self.token_bytes + states * self.state_bytes


def kv_cache_size(config: Any, itemsize: int) -> KVCacheSize:
    """Returns what a decoder's configuration says.

    Args:
        config: Of transformers; Whisper's names its decoder's sizes apart.
        itemsize: Bytes of a number.
    """
    layers = getattr(config, "decoder_layers", None) or config.num_hidden_layers
    heads = getattr(config, "decoder_attention_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // heads
    shared = None if hasattr(config, "decoder_layers") else getattr(config, "num_key_value_heads", None)
    own = shared or heads
    return KVCacheSize(
        positions=getattr(config, "max_target_positions", None) or positions_of(config),
        token_bytes=2 * layers * own * width * itemsize,
        state_bytes=2 * layers * heads * width * itemsize + config.hidden_size * itemsize,
    )


def positions_of(config: Any) -> int:
    """Returns the most tokens that the positions of a text network allow."""
    positions: int = config.max_position_embeddings
    if any(name in str(config.model_type) for name in _POSITIONS_AFTER_PADDING):
        positions -= (config.pad_token_id or 0) + 1
    return positions
