"""Sizes of networks that transformers lacks: OpenAI's CLIP ResNets, as open_clip configures them, and ImageBind."""

from dataclasses import replace
from typing import Any

from s2m3.schemas.sizes.counting import Count, attend, conv, encoder_layer, linear, norm, table
from s2m3.schemas.sizes.size import Dims, Size

__all__ = ["imagebind_audio", "imagebind_text", "imagebind_vision", "modified_resnet", "openclip_text"]


def modified_resnet(model: Dims) -> Size:
    """Returns the size of CLIP's ModifiedResNet with attention pooling (Radford et al., 2021, section 2.4).

    Args:
        model: open_clip's `model_cfg`.
    """
    vision: dict[str, Any] = model["vision_cfg"]
    width, side, out = vision.get("width", 64), vision["image_size"] // 2, model["embed_dim"]
    count = _conv_norm(3, width // 2, 9, side) + _conv_norm(width // 2, width // 2, 9, side)
    count += _conv_norm(width // 2, width, 9, side)
    side, channels = side // 2, width
    for stage, depth in enumerate(vision["layers"]):
        planes = width * 2**stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            count += _bottleneck(channels, planes, side, stride)
            side, channels = side // stride, 4 * planes
    return Size(count + _attention_pool(channels, side**2, out), {"image_embeds": (out,)})


def _conv_norm(channels: int, out: int, kernel: int, side: int) -> Count:
    return conv(channels, out, kernel, side**2, bias=False) + norm(out)


def _bottleneck(channels: int, planes: int, side: int, stride: int) -> Count:
    """Counts three convolutions, with pooling before the third and before the shortcut's, if it has one."""
    after, out = side // stride, 4 * planes
    count = _conv_norm(channels, planes, 1, side) + _conv_norm(planes, planes, 9, side)
    count += _conv_norm(planes, out, 1, after)
    return count + _conv_norm(channels, out, 1, after) if stride > 1 or channels != out else count


def _attention_pool(width: int, places: int, out: int) -> Count:
    tokens = places + 1
    keys = linear(width, width, tokens) * 2
    return Count(tokens * width) + linear(width, width) + keys + attend(width, 1, tokens) + linear(width, out)


def openclip_text(model: Dims) -> Size:
    """Returns the size of open_clip's text tower, equal to CLIP's; operations are those at its maximum length."""
    text: dict[str, Any] = model["text_cfg"]
    width, tokens = text["width"], text.get("context_length", 77)
    layer = encoder_layer(width, 4 * width, tokens)
    layers = replace(layer, linear=2 * 4 * width**2) * text["layers"]  # the MLP only: torch packs attention's
    count = table(text.get("vocab_size", 49408), width) + Count(tokens * width) + layers + norm(width)
    out = model["embed_dim"]
    return Size(count + replace(linear(width, out, bias=False), linear=0), {"text_embeds": (out,)})


def _imagebind(dims: Dims, tokens: int, *, keys: int = 0) -> Count:
    """Counts trunk and head of one ImageBind modality; `keys` is the number of learnt keys and values of each layer."""
    width = dims["hidden_size"]
    layer = encoder_layer(width, 4 * width, tokens) + attend(width, tokens, keys) + Count(2 * width * keys)
    head = norm(width) + linear(width, dims["projection_dim"], bias=False)
    return layer * int(dims["num_hidden_layers"]) + head


def imagebind_vision(dims: Dims) -> Size:
    """Returns the size of ImageBind's vision encoder (Girdhar et al., 2023), which takes an image as two frames."""
    width, patch = dims["hidden_size"], dims["patch_size"]
    patches = (dims["image_size"] // patch) ** 2
    count = conv(3, width, 2 * patch**2, patches, bias=False) + Count(width + (patches + 1) * width) + norm(width)
    return Size(count + _imagebind(dims, patches + 1), {"image_embeds": (dims["projection_dim"],)})


def imagebind_text(dims: Dims) -> Size:
    """Returns the size of ImageBind's text encoder, that of OpenCLIP ViT-H/14; operations at its maximum length."""
    width, tokens = dims["hidden_size"], dims["max_position_embeddings"]
    count = table(dims["vocab_size"], width) + Count(tokens * width)
    return Size(count + _imagebind(dims, tokens), {"text_embeds": (dims["projection_dim"],)})


def imagebind_audio(dims: Dims) -> Size:
    """Returns the size of ImageBind's audio encoder: 16 x 16 patches of a spectrogram at a stride of 10.

    The encoder runs on several clips of 2 s, whose embeddings are averaged.
    """
    width, patch, stride = dims["hidden_size"], dims["patch_size"], dims["stride"]
    rows, columns = ((length - patch) // stride + 1 for length in (dims["num_mel_bins"], dims["frames"]))
    tokens = rows * columns + 1
    count = conv(1, width, patch**2, tokens - 1, bias=False) + norm(width) + Count(width + tokens * width)
    clip = count + _imagebind(dims, tokens, keys=1)
    return Size(replace(clip, flops=clip.flops * dims["clips"]), {"audio_embeds": (dims["projection_dim"],)})
