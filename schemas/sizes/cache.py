"""How much memory keys and values take while a network writes, from its configuration alone."""

from s2m3.schemas.sizes.size import Dims

__all__ = ["cache_mb", "text_bytes"]

#: Tokens of a prompt and of an answer that one text is reckoned with; 4 bytes a number.
_PROMPT, _ANSWER, _BYTES = 128, 128, 4
#: Texts that are written together at most, and the part of the weights' memory that their cache may take.
_TEXTS, _SHARE = 8, 0.1


def text_bytes(dims: Dims, states: int, *, crossed: bool) -> int:
    """Returns the bytes of keys and values of one text.

    Args:
        dims: The decoder's configuration.
        states: Tokens that come from its encoder.
        crossed: Whether they are attended to, with keys and values (and the states) of their own; else they are part
            of the prompt.
    """
    width = dims.get("hidden_size") or dims.get("n_embd") or dims["d_model"]
    layers = dims.get("decoder_layers") or dims.get("n_layer") or dims["num_hidden_layers"]
    kept = width  # of keys, and of values: less where several heads share them
    if heads := dims.get("num_key_value_heads"):
        kept = heads * (dims.get("head_dim") or width // dims["num_attention_heads"])
    token = 2 * layers * kept * _BYTES
    if not crossed:
        return int((_PROMPT + states + _ANSWER) * token)
    state = (2 * layers * width + width) * _BYTES
    return int((_PROMPT + _ANSWER) * token + states * state)


def cache_mb(text: int, weights_mb: float) -> float:
    """Returns what a module is given: a tenth of its weights' memory, but room for one text at least, eight at most.

    Args:
        text: Bytes of one text.
        weights_mb: 10^6 bytes of the weights.
    """
    one = text / 1e6
    return round(max(one, min(_TEXTS * one, _SHARE * weights_mb)), 2)
