"""Sizes of audio encoders from their configurations: Whisper, and CLAP's HTSAT. Tests compare with transformers."""

from s2m3.schemas.sizes.counting import Count, attend, conv, encoder_layer, linear, mlp, norm
from s2m3.schemas.sizes.size import Dims, Size

__all__ = ["clap_audio", "whisper_encoder"]


def whisper_encoder(dims: Dims) -> Size:
    """Returns the size of Whisper's encoder, whose input is always padded to 30 s (Radford et al., 2023)."""
    width, tokens = dims["d_model"], dims["max_source_positions"]
    convolutions = conv(dims["num_mel_bins"], width, 3, 2 * tokens) + conv(width, width, 3, tokens)
    layer = encoder_layer(width, dims["encoder_ffn_dim"], tokens, key_bias=False)
    count = convolutions + Count(tokens * width) + layer * int(dims["encoder_layers"]) + norm(width)
    return Size(count, {"last_hidden_state": (tokens, width)})


def clap_audio(dims: Dims) -> Size:
    """Returns the size of CLAP's HTSAT, a Swin transformer over the spectrogram folded to a square (Chen et al., 2022).

    Operations are those for up to 10 s of audio; the fusion for longer audio is counted in the parameters only.
    """
    width, patch = dims["patch_embeds_hidden_size"], dims["patch_size"]
    side = dims["spec_size"] // dims["patch_stride"][0]
    fused = dims["enable_fusion"]
    widened = 4 if fused and dims.get("fusion_type") == "channel_map" else 1
    channels = dims["patch_embed_input_channels"]
    count = conv(channels * widened, width, patch**2, side**2)
    count += norm(width) * dims["enable_patch_layer_norm"] + norm(dims["num_mel_bins"])
    if fused:
        count += _fusion(dims)
    stages = list(zip(dims["depths"], dims["num_attention_heads"], strict=True))
    for stage, (depth, heads) in enumerate(stages):
        count += _swin_layer(dims, width, heads, side) * depth
        if stage + 1 < len(stages):
            count += norm(4 * width) + linear(4 * width, 2 * width, (side // 2) ** 2, bias=False)
            width, side = 2 * width, side // 2
    out = dims["projection_dim"]
    count += norm(width) + linear(dims["hidden_size"], out) + linear(out, out)
    return Size(count, {"pooler_output": (out,)})


def _swin_layer(dims: Dims, width: int, heads: int, side: int) -> Count:
    """Counts one layer: attention within windows, over an input padded to whole windows."""
    window = min(dims["window_size"], side)
    padded = -(-side // window) * window
    positions, bias = padded**2, dims["qkv_bias"]
    attention = linear(width, width, positions, bias=bias) * 3 + linear(width, width, positions)
    attention += attend(width, positions, window**2) + Count((2 * dims["window_size"] - 1) ** 2 * heads)
    return attention + mlp(width, int(dims.get("mlp_ratio", 4) * width), side**2) + norm(width) * 2


def _fusion(dims: Dims) -> Count:
    width, patch = dims["patch_embeds_hidden_size"], dims["patch_size"]
    inner = width // dims["aff_block_r"]
    block = linear(width, inner) + norm(inner) + linear(inner, width) + norm(width)
    mel = conv(dims["patch_embed_input_channels"], width, 3 * patch**2, 1)
    return Count((block * 2 + mel).parameters)
