"""Sizes of image and text encoders from their configurations. Tests compare them with transformers."""

from dataclasses import replace

from s2m3.schemas.sizes.counting import (
    Count,
    Span,
    attend,
    conv,
    cross_attention,
    encoder_layer,
    linear,
    mlp,
    norm,
    self_attention,
    table,
)
from s2m3.schemas.sizes.size import TEXT_TOKENS, Dims, Size

__all__ = [
    "bert",
    "blip_text_encoder",
    "blip_vision",
    "clip_prompt",
    "clip_text",
    "clip_vision",
    "siglip_text",
    "siglip_vision",
    "vit",
]

#: Texts of one picture that is made: the prompt and the negative one.
_PROMPTS = 2


def _patches(dims: Dims) -> int:
    return int(dims["image_size"] // dims["patch_size"]) ** 2


def _patch_embedding(dims: Dims, *, bias: bool) -> Count:
    """Counts the patch embedding, a convolution from an image to tokens."""
    return conv(dims.get("num_channels", 3), dims["hidden_size"], dims["patch_size"] ** 2, _patches(dims), bias=bias)


def _layers(dims: Dims, tokens: int) -> Count:
    bias = dims.get("qkv_bias", True)
    layer = encoder_layer(dims["hidden_size"], dims["intermediate_size"], tokens, bias=bias)
    return layer * int(dims["num_hidden_layers"])


def _vision(count: Count, dims: Dims, tokens: int, **outputs: tuple[int, ...]) -> Size:
    """Returns the size of a vision tower, with the outputs that all towers have and its own `outputs`."""
    width = dims["hidden_size"]
    hidden = {"last_hidden_state": (tokens, width), "hidden_states": (tokens, width), "pooler_output": (width,)}
    return Size(count, {**hidden, **outputs})


def clip_vision(dims: Dims, *, projected: bool) -> Size:
    """Returns the size of CLIP's vision transformer (Radford et al., 2021), with its projection if `projected`."""
    width, tokens = dims["hidden_size"], _patches(dims) + 1
    count = Count(width + tokens * width) + _patch_embedding(dims, bias=False) + norm(width) * 2 + _layers(dims, tokens)
    if not projected:
        return _vision(count, dims, tokens)
    count += linear(width, dims["projection_dim"], bias=False)
    return _vision(count, dims, tokens, pooler_output=(dims["projection_dim"],))


def _text(dims: Dims, tokens: int) -> Count:
    width, positions = dims["hidden_size"], dims["max_position_embeddings"]
    return table(dims["vocab_size"], width) + Count(positions * width) + _layers(dims, tokens) + norm(width)


def clip_text(dims: Dims) -> Size:
    """Returns the size of CLIP's text tower; operations are those at its maximum length."""
    out, plain = dims["projection_dim"], clip_prompt(dims)
    projection = linear(dims["hidden_size"], out, bias=False)
    return Size(_text(dims, dims["max_position_embeddings"]) + projection, {**plain.outputs, "pooler_output": (out,)})


def clip_prompt(dims: Dims) -> Size:
    """Returns the size of CLIP's text tower without its projection, for a prompt and a negative prompt."""
    width, tokens = dims["hidden_size"], dims["max_position_embeddings"]
    return Size(_text(dims, tokens), {"last_hidden_state": (_PROMPTS * tokens, width)})


def siglip_vision(dims: Dims) -> Size:
    """Returns the size of SigLIP's vision transformer, with attention pooling by a learnt query (Zhai et al., 2023)."""
    width, tokens = dims["hidden_size"], _patches(dims)
    count = Count(tokens * width) + _patch_embedding(dims, bias=True) + _layers(dims, tokens) + norm(width)
    if dims["vision_use_head"]:
        pool = linear(width, width) * 2 + linear(width, width, tokens) * 2 + attend(width, 1, tokens)
        pool = replace(pool, linear=0)  # MultiheadAttention packs its matrices: no linear layers
        count += Count(width) + pool + norm(width) + mlp(width, dims["intermediate_size"], 1)
    return _vision(count, dims, tokens)


def siglip_text(dims: Dims) -> Size:
    """Returns the size of SigLIP's text tower; operations are those at its maximum length, to which it pads."""
    tokens, out = dims["max_position_embeddings"], dims["projection_size"]
    return Size(_text(dims, tokens) + linear(dims["hidden_size"], out), {"pooler_output": (out,)})


def vit(dims: Dims, *, pooled: bool) -> Size:
    """Returns the size of a ViT (Dosovitskiy et al., 2021) without classifier, with its pooler if `pooled`."""
    width, tokens = dims["hidden_size"], _patches(dims) + 1
    count = Count(width + tokens * width) + _patch_embedding(dims, bias=True) + _layers(dims, tokens) + norm(width)
    if pooled:
        count += linear(width, dims["pooler_output_size"])
    return _vision(count, dims, tokens, logits=(width,))


def blip_vision(dims: Dims) -> Size:
    """Returns the size of BLIP's vision transformer (Li et al., 2022)."""
    width, tokens = dims["hidden_size"], _patches(dims) + 1
    count = Count(width + tokens * width) + _patch_embedding(dims, bias=True) + _layers(dims, tokens) + norm(width)
    return _vision(count, dims, tokens)


def bert(dims: Dims, *, pooled: bool, projected: bool = False) -> Size:
    """Returns the size of BERT or RoBERTa; operations are those at TEXT_TOKENS.

    Args:
        dims: The configuration.
        pooled: Whether the pooler is included.
        projected: Whether CLAP's projection, two layers, is included.
    """
    width = dims["hidden_size"]
    places = (dims["max_position_embeddings"] + dims["type_vocab_size"]) * width
    count = table(dims["vocab_size"], width) + Count(places) + norm(width) + _layers(dims, TEXT_TOKENS)
    if pooled:
        count += linear(width, width)
    outputs: dict[str, tuple[int, ...]] = {"last_hidden_state": (TEXT_TOKENS, width), "pooler_output": (width,)}
    if projected:
        out = dims["projection_dim"]
        count += linear(width, out) + linear(out, out)
        outputs["pooler_output"] = (out,)
    return Size(count, outputs)


def blip_text_encoder(dims: Dims, source: int) -> Size:
    """Returns the size of BLIP's question encoder with `source` image tokens; operations are those at TEXT_TOKENS."""
    width = dims["hidden_size"]
    count = table(dims["vocab_size"], width) + Count(dims["max_position_embeddings"] * width) + norm(width)
    count += blip_layers(dims, Span(TEXT_TOKENS), source, source_seen=False)
    return Size(count, {"last_hidden_state": (TEXT_TOKENS, width)})


def blip_layers(dims: Dims, span: Span, source: int, *, source_seen: bool) -> Count:
    """Counts the layers of BLIP's text networks: self-attention, cross-attention, two linear layers each.

    `source` is the number of encoder tokens; with `source_seen`, their keys and values are cached.
    """
    width = dims["hidden_size"]
    layer = (
        self_attention(width, span)
        + cross_attention(width, dims["encoder_hidden_size"], span, source, source_seen=source_seen)
        + mlp(width, dims["intermediate_size"], span.tokens)
        + norm(width) * 3
    )
    return layer * int(dims["num_hidden_layers"])
