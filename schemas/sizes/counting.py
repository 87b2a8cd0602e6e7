"""What layers take: parameters and operations, as sums. Pure arithmetic; nothing here knows an architecture."""

from collections.abc import Callable
from dataclasses import astuple, dataclass, replace

__all__ = [
    "Count",
    "Span",
    "attend",
    "conv",
    "cross_attention",
    "encoder_layer",
    "gated_mlp",
    "generate",
    "linear",
    "mlp",
    "norm",
    "self_attention",
    "table",
]


@dataclass(frozen=True, slots=True)
class Count:
    """Parameters, and operations for one item.

    Of the parameters, `lookup` are only looked up (embeddings of tokens), `linear` are the matrices of linear layers:
    what int8 makes smaller. A multiplication and an addition are two operations; matrix products and convolutions alone
    are counted, as torch.utils.flop_counter does.
    """

    parameters: int = 0
    lookup: int = 0
    linear: int = 0
    flops: int = 0

    def __add__(self, other: "Count") -> "Count":
        return Count(*(ours + theirs for ours, theirs in zip(astuple(self), astuple(other), strict=True)))

    def __mul__(self, times: int) -> "Count":
        return Count(*(number * times for number in astuple(self)))


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens that are new, and those before them whose keys and values are remembered."""

    tokens: int
    past: int = 0

    @property
    def keys(self) -> int:
        """Tokens that are attended to."""
        return self.past + self.tokens


def linear(wide: int, out: int, tokens: int = 1, *, bias: bool = True) -> Count:
    """Counts a linear layer over some tokens."""
    return Count(wide * out + out * bias, linear=wide * out, flops=2 * wide * out * tokens)


def conv(channels: int, out: int, kernel: int, positions: int, *, bias: bool = True) -> Count:
    """Counts a convolution: `kernel` is its area, `positions` the number of places in its output."""
    return replace(linear(channels * kernel, out, positions, bias=bias), linear=0)


def norm(width: int, *, bias: bool = True) -> Count:
    """Counts a normalisation with a weight."""
    return Count(width * (1 + bias))


def table(rows: int, width: int) -> Count:
    """Counts an embedding of tokens."""
    return Count(rows * width, lookup=rows * width)


def attend(width: int, queries: int, keys: int) -> Count:
    """Counts scores and their weighted sum, over all heads together."""
    return Count(flops=4 * queries * keys * width)


def self_attention(
    width: int, span: Span, *, inner: int = 0, shared: int = 0, bias: bool = True, key_bias: bool | None = None,
    out_bias: bool | None = None,
) -> Count:  # fmt: skip
    """Counts self-attention.

    Args:
        width: Of the tokens.
        span: The tokens.
        inner: Width of all heads together; 0: `width`.
        shared: Width of the keys of all groups together (grouped queries); 0: `inner`.
        bias: Of queries, keys, values and the output.
        key_bias: Of the keys, where it differs.
        out_bias: Of the output, where it differs.
    """
    inner = inner or width
    shared = shared or inner
    return (
        linear(width, inner, span.tokens, bias=bias)
        + linear(width, shared, span.tokens, bias=bias if key_bias is None else key_bias)
        + linear(width, shared, span.tokens, bias=bias)
        + linear(inner, width, span.tokens, bias=bias if out_bias is None else out_bias)
        + attend(inner, span.tokens, span.keys)
    )


def cross_attention(
    width: int, source_width: int, span: Span, source: int, *, key_bias: bool = True, source_seen: bool = False
) -> Count:
    """Counts attention to another sequence of `source` tokens; once seen, its keys and values are remembered."""
    new = 0 if source_seen else source
    return (
        linear(width, width, span.tokens) * 2
        + linear(source_width, width, new, bias=key_bias)
        + linear(source_width, width, new)
        + attend(width, span.tokens, source)
    )


def mlp(width: int, inner: int, tokens: int) -> Count:
    """Counts two linear layers, out to `inner` and back."""
    return linear(width, inner, tokens) + linear(inner, width, tokens)


def gated_mlp(width: int, inner: int, tokens: int, *, bias: bool = False) -> Count:
    """Counts a gate, the way up and the way down (SwiGLU)."""
    return linear(width, inner, tokens, bias=bias) * 2 + linear(inner, width, tokens, bias=bias)


def encoder_layer(width: int, inner: int, tokens: int, *, bias: bool = True, key_bias: bool | None = None) -> Count:
    """Counts a transformer's layer: attention, two linear layers, two normalisations."""
    attention = self_attention(width, Span(tokens), bias=bias, key_bias=key_bias, out_bias=True)
    return attention + mlp(width, inner, tokens) + norm(width) * 2


def generate(forward: Callable[[Span, bool], Count], prompt: int, answer: int) -> Count:
    """Counts a text written token by token with a cache.

    Args:
        forward: (span, whether the source was seen before) -> one pass, its parameters included.
        prompt: Tokens read at once.
        answer: Tokens written; the first follows from the prompt's pass.
    """
    first = forward(Span(prompt), False)  # noqa: FBT003 - the callable has two plain arguments
    later = sum(forward(Span(1, prompt + n), True).flops for n in range(answer - 1))  # noqa: FBT003
    return first + Count(flops=later)
