"""Memory of the KV cache (keys and values of attention) during text generation, from the configuration."""

from s2m3.schemas.sizes.size import Dims

__all__ = ["cache_mb", "text_bytes"]

#: Assumed tokens of the prompt and of the generated text, and bytes of a number.
_PROMPT, _ANSWER, _BYTES = 128, 128, 4
#: Most texts generated together, and the part of the weights' memory that their caches may take.
_TEXTS, _SHARE = 8, 0.1


def text_bytes(dims: Dims, states: int, *, crossed: bool) -> int:
    """Returns the bytes of the KV cache of one text.

    Args:
        dims: The decoder's configuration.
        states: Tokens of the encoder's output.
        crossed: Whether the decoder uses cross-attention on these, which also keeps the states themselves; otherwise
            they are part of the prompt.
    """
    width = dims.get("hidden_size") or dims.get("n_embd") or dims["d_model"]
    layers = dims.get("decoder_layers") or dims.get("n_layer") or dims["num_hidden_layers"]
    kv_width = width  # width of keys, and of values; smaller with grouped-query attention
    if heads := dims.get("num_key_value_heads"):
        kv_width = heads * (dims.get("head_dim") or width // dims["num_attention_heads"])
    token = 2 * layers * kv_width * _BYTES
    if not crossed:
        return int((_PROMPT + states + _ANSWER) * token)
    state = (2 * layers * width + width) * _BYTES
    return int((_PROMPT + _ANSWER) * token + states * state)


def cache_mb(text: int, weights_mb: float) -> float:
    """Returns the memory reserved for a module's KV caches, 10^6 bytes: a tenth of its weights, for one to eight texts.

    Args:
        text: Bytes of one text's cache.
        weights_mb: Memory of the weights, 10^6 bytes.
    """
    one = text / 1e6
    return round(max(one, min(_TEXTS * one, _SHARE * weights_mb)), 2)
