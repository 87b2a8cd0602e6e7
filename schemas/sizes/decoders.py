"""Sizes of text decoders from their configurations; operations are the prompt's pass and generation with a KV cache."""

from s2m3.schemas.sizes.counting import (
    Count,
    Span,
    cross_attention,
    gated_mlp,
    generate,
    linear,
    mlp,
    norm,
    self_attention,
    table,
)
from s2m3.schemas.sizes.encoders import blip_layers
from s2m3.schemas.sizes.size import ANSWER_TOKENS, QUESTION_TOKENS, Dims, Size

__all__ = ["blip_decoder", "gpt2", "llama", "llava_projector", "whisper_decoder"]

#: Tokens of Whisper's prompt, which gives language and task.
_WHISPER_PROMPT = 4


def _written(forward: Count, tied: Count) -> Size:
    """Returns the size of a decoder, which has no tensor outputs; its output layer `tied` only adds operations."""
    return Size(forward + Count(flops=tied.flops * ANSWER_TOKENS), {})


def gpt2(dims: Dims, source: tuple[int, ...] | None) -> Size:
    """Returns the size of GPT-2 (Radford et al., 2019).

    Args:
        dims: The configuration.
        source: (tokens, width) of the encoder's output for cross-attention; None for a language model alone.
    """
    width, inner = dims["n_embd"], dims.get("n_inner") or 4 * dims["n_embd"]
    crossed = source is not None and dims["add_cross_attention"]

    def forward(span: Span, source_seen: bool) -> Count:  # noqa: FBT001
        layer = self_attention(width, span) + mlp(width, inner, span.tokens) + norm(width) * 2
        if source is not None and crossed:
            layer += cross_attention(width, width, span, source[0], source_seen=source_seen) + norm(width)
        return layer * int(dims["n_layer"]) + norm(width)

    embedding = table(dims["vocab_size"], width) + Count(dims["n_positions"] * width)
    prompt = 1 if crossed else QUESTION_TOKENS
    return _written(embedding + generate(forward, prompt, ANSWER_TOKENS), linear(width, dims["vocab_size"]))


def blip_decoder(dims: Dims, source: tuple[int, ...]) -> Size:
    """Returns the size of BLIP's text decoder; `source` is (tokens, width) of its encoder, for image or question."""
    width, vocabulary = dims["hidden_size"], dims["vocab_size"]

    def forward(span: Span, source_seen: bool) -> Count:  # noqa: FBT001
        head = linear(width, width) + norm(width)
        return blip_layers(dims, span, source[0], source_seen=source_seen) + head

    embedding = table(vocabulary, width) + Count(dims["max_position_embeddings"] * width) + norm(width)
    bias = Count(vocabulary)
    return _written(embedding + bias + generate(forward, 1, ANSWER_TOKENS), linear(width, vocabulary))


def whisper_decoder(dims: Dims, source: tuple[int, ...]) -> Size:
    """Returns the size of Whisper's decoder (Radford et al., 2023); `source` is (tokens, width) of the encoder."""
    width = dims["d_model"]

    def forward(span: Span, source_seen: bool) -> Count:  # noqa: FBT001
        layer = (
            self_attention(width, span, key_bias=False)
            + cross_attention(width, width, span, source[0], key_bias=False, source_seen=source_seen)
            + mlp(width, dims["decoder_ffn_dim"], span.tokens)
            + norm(width) * 3
        )
        return layer * int(dims["decoder_layers"]) + norm(width)

    embedding = table(dims["vocab_size"], width) + Count(dims["max_target_positions"] * width)
    return _written(embedding + generate(forward, _WHISPER_PROMPT, ANSWER_TOKENS), linear(width, dims["vocab_size"]))


def llama(dims: Dims, source: tuple[int, ...] | None) -> Size:
    """Returns the size of Llama and of models with its structure: Vicuna, TinyLlama, Mistral, Phi-3, Qwen2.

    Args:
        dims: The configuration.
        source: (tokens, width) of embeddings in the prompt before the question; None for none.
    """
    width, vocabulary = dims["hidden_size"], dims["vocab_size"]
    heads = dims["num_attention_heads"]
    each = dims.get("head_dim") or width // heads
    groups = dims.get("num_key_value_heads") or heads
    bias, out_bias = dims.get("attention_bias", False), dims.get("attention_out_bias")

    def forward(span: Span, source_seen: bool) -> Count:  # noqa: ARG001, FBT001
        layer = (
            self_attention(width, span, inner=heads * each, shared=groups * each, bias=bias, out_bias=out_bias)
            + gated_mlp(width, dims["intermediate_size"], span.tokens, bias=dims.get("mlp_bias", False))
            + norm(width, bias=False) * 2
        )
        return layer * int(dims["num_hidden_layers"]) + norm(width, bias=False)

    untied = Count() if dims.get("tie_word_embeddings") else Count(vocabulary * width, linear=vocabulary * width)
    prompt = QUESTION_TOKENS + (source[0] if source else 0)
    whole = table(vocabulary, width) + untied + generate(forward, prompt, ANSWER_TOKENS)
    return _written(whole, linear(width, vocabulary))


def llava_projector(whole: Dims, vision: Dims, text: Dims, tokens: int) -> Count:
    """Counts LLaVA's projector: two layers from the vision tower's width to the language model's, over `tokens`."""
    layers = whole.get("vision_feature_layer", -2)
    wide = vision["hidden_size"] * (len(layers) if isinstance(layers, list) else 1)
    bias = whole.get("multimodal_projector_bias", True)
    out = text["hidden_size"]
    return linear(wide, out, tokens, bias=bias) + linear(out, out, tokens, bias=bias)
