"""Parameters and operations of layers, as sums. Pure arithmetic, independent of architectures."""

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
    """Parameters, and operations per item.

    `lookup` is the part of the parameters in token embeddings, `linear` the part in matrices of linear layers, which
    int8 makes smaller. `flops` counts matrix products and convolutions only, as torch.utils.flop_counter does; a
    multiplication and an addition are two operations.
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
    """New tokens of a pass, and the number of earlier tokens whose keys and values are in the KV cache."""

    tokens: int
    past: int = 0

    @property
    def keys(self) -> int:
        """Tokens that attention covers: cached and new ones."""
        return self.past + self.tokens


def linear(wide: int, out: int, tokens: int = 1, *, bias: bool = True) -> Count:
    """Counts a linear layer from width `wide` to width `out` over some tokens."""
    return Count(wide * out + out * bias, linear=wide * out, flops=2 * wide * out * tokens)


def conv(channels: int, out: int, kernel: int, positions: int, *, bias: bool = True) -> Count:
    """Counts a convolution: `kernel` is the area of its kernel, `positions` the number of positions of its output."""
    return replace(linear(channels * kernel, out, positions, bias=bias), linear=0)


def norm(width: int, *, bias: bool = True) -> Count:
    """Counts a normalisation with a weight."""
    return Count(width * (1 + bias))


def table(rows: int, width: int) -> Count:
    """Counts a token embedding."""
    return Count(rows * width, lookup=rows * width)


def attend(width: int, queries: int, keys: int) -> Count:
    """Counts attention scores and weighted sums, over all heads together."""
    return Count(flops=4 * queries * keys * width)


def self_attention(
    width: int, span: Span, *, inner: int = 0, shared: int = 0, bias: bool = True, key_bias: bool | None = None,
    out_bias: bool | None = None,
) -> Count:  # fmt: skip
    """Counts self-attention.

    Args:
        width: Width of the tokens.
        span: The tokens.
        inner: Width of all heads together; 0 for `width`.
        shared: Width of the keys of all groups together (grouped-query attention); 0 for `inner`.
        bias: Whether queries, keys, values and the output have a bias.
        key_bias: Whether the keys have one; None for `bias`.
        out_bias: Whether the output has one; None for `bias`.
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
    """Counts cross-attention to a sequence of `source` tokens; with `source_seen`, its keys and values are cached."""
    new = 0 if source_seen else source
    return (
        linear(width, width, span.tokens) * 2
        + linear(source_width, width, new, bias=key_bias)
        + linear(source_width, width, new)
        + attend(width, span.tokens, source)
    )


def mlp(width: int, inner: int, tokens: int) -> Count:
    """Counts two linear layers, from `width` to `inner` and back."""
    return linear(width, inner, tokens) + linear(inner, width, tokens)


def gated_mlp(width: int, inner: int, tokens: int, *, bias: bool = False) -> Count:
    """Counts a gated MLP (SwiGLU): gate, up and down projection."""
    return linear(width, inner, tokens, bias=bias) * 2 + linear(inner, width, tokens, bias=bias)


def encoder_layer(width: int, inner: int, tokens: int, *, bias: bool = True, key_bias: bool | None = None) -> Count:
    """Counts a transformer encoder layer: self-attention, two linear layers, two normalisations."""
    attention = self_attention(width, Span(tokens), bias=bias, key_bias=key_bias, out_bias=True)
    return attention + mlp(width, inner, tokens) + norm(width) * 2


def generate(forward: Callable[[Span, bool], Count], prompt: int, answer: int) -> Count:
    """Counts the generation of a text, token by token with a KV cache.

    Args:
        forward: (span, whether the source's keys and values are cached) -> the count of one pass with its parameters.
        prompt: Tokens of the prompt, read in one pass.
        answer: Tokens generated; the prompt's pass yields the first.
    """
    first = forward(Span(prompt), False)  # noqa: FBT003 - the callable has two plain arguments
    later = sum(forward(Span(1, prompt + n), True).flops for n in range(answer - 1))  # noqa: FBT003
    return first + Count(flops=later)
