"""CLIP's towers as open_clip stores them: a ResNet, which transformers does not have, a ViT and the text tower.

Radford et al., CLIP, ICML 2021: a ResNet with three stem convolutions, average pooling in place of strides,
and attention pooling at the end; a ViT read at its class token; the text tower is a causal transformer read at the end
of the text. Names are the checkpoint's own.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from s2m3.agents.modules.state_dicts import fill
from s2m3.schemas.errors import ModuleFailedError

__all__ = ["ModifiedResNet", "TextTower", "VisionTransformer", "build_tower"]

_EXPANSION = 4
#: OpenAI's weights were trained with this approximation of GELU; open_clip's configuration says so.
_QUICK = 1.702
#: What only training looks at: some checkpoints have it, some have not.
_COUNT = "num_batches_tracked"


@dataclass(frozen=True)
class _Embeds:
    """A tower's result, under the names that transformers gives them."""

    image_embeds: Tensor | None = None
    text_embeds: Tensor | None = None


class _Bottleneck(nn.Module):
    """A residual block whose stride is an average pool before the last convolution, and before the shortcut's."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        out = width * _EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(inside, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3, self.bn3 = nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out)
        self.downsample = None
        if stride > 1 or inside != out:
            layers = {"-1": nn.AvgPool2d(stride), "0": nn.Conv2d(inside, out, 1, bias=False), "1": nn.BatchNorm2d(out)}
            self.downsample = nn.Sequential(OrderedDict(layers))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.avgpool(F.relu(self.bn2(self.conv2(y))))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class _AttentionPool(nn.Module):
    """One query, the mean of all places, attends to all of them: (pictures, width, n, n) to (pictures, out)."""

    def __init__(self, side: int, width: int, heads: int, out: int) -> None:
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.empty(side**2 + 1, width))
        self.k_proj, self.q_proj, self.v_proj = (
            nn.Linear(width, width),
            nn.Linear(width, width),
            nn.Linear(width, width),
        )
        self.c_proj = nn.Linear(width, out)
        self._heads = heads

    def forward(self, x: Tensor) -> Tensor:
        places = x.flatten(2).transpose(1, 2)
        places = torch.cat([places.mean(1, keepdim=True), places], 1) + self.positional_embedding
        query, key, value = self.q_proj(places[:, :1]), self.k_proj(places), self.v_proj(places)
        q, k, v = (t.unflatten(-1, (self._heads, -1)).transpose(1, 2) for t in (query, key, value))
        pooled = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        projected: Tensor = self.c_proj(pooled[:, 0])
        return projected


class ModifiedResNet(nn.Module):
    """Pixels (pictures, 3, side, side) to embeddings (pictures, embed_dim).

    Args:
        model: `model_cfg` of an open_clip_config.json.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        vision = model["vision_cfg"]
        width, side = vision.get("width", 64), vision["image_size"]
        self.conv1, self.bn1 = nn.Conv2d(3, width // 2, 3, 2, 1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv2, self.bn2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False), nn.BatchNorm2d(width // 2)
        self.conv3, self.bn3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        inside = width
        for number, blocks in enumerate(vision["layers"]):
            planes, stride = width * 2**number, 1 if number == 0 else 2
            first = _Bottleneck(inside, planes, stride)
            inside = planes * _EXPANSION
            others = [_Bottleneck(inside, planes, 1) for _ in range(1, blocks)]
            setattr(self, f"layer{number + 1}", nn.Sequential(first, *others))
        self._layers = len(vision["layers"])
        heads = width * 32 // vision.get("head_width", 64)
        self.attnpool = _AttentionPool(side // 32, inside, heads, model["embed_dim"])

    def forward(self, pixel_values: Tensor) -> _Embeds:
        """Returns the embeddings."""
        x = pixel_values
        for number in (1, 2, 3):
            x = F.relu(getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x)))
        x = F.avg_pool2d(x, 2)
        for number in range(1, self._layers + 1):
            x = getattr(self, f"layer{number}")(x)
        return _Embeds(image_embeds=self.attnpool(x))


class _QuickGELU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(_QUICK * x)


class _LayerScale(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.empty(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class _ResidualAttention(nn.Module):
    """One layer of a transformer: attention, then two linear layers, each on a normalised input and added.

    Args:
        width: Of a token.
        heads: Of the attention.
        tower: `vision_cfg` or `text_cfg`.
        quick: Whether the activation is OpenAI's approximation of GELU.
    """

    def __init__(self, width: int, heads: int, tower: Mapping[str, Any], *, quick: bool) -> None:
        super().__init__()
        inside = int(width * tower.get("mlp_ratio", 4.0))
        scaled = tower.get("ls_init_value") is not None
        self.ln_1, self.ln_2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)
        self.mlp = nn.Sequential(
            OrderedDict(
                {
                    "c_fc": nn.Linear(width, inside),
                    "gelu": _QuickGELU() if quick else nn.GELU(),
                    "c_proj": nn.Linear(inside, width),
                }
            )
        )
        self.ls_1 = _LayerScale(width) if scaled else nn.Identity()
        self.ls_2 = _LayerScale(width) if scaled else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.ls_1(self._attended(self.ln_1(x), mask))
        added: Tensor = x + self.ls_2(self.mlp(self.ln_2(x)))
        return added

    def _attended(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """What MultiheadAttention computes, in steps that torch.onnx exports for every length."""
        attn = self.attn
        parts = F.linear(x, attn.in_proj_weight, attn.in_proj_bias).chunk(3, -1)
        q, k, v = (part.reshape(*part.shape[:-1], attn.num_heads, -1).transpose(1, 2) for part in parts)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        found: Tensor = attn.out_proj(attended.transpose(1, 2).flatten(2))
        return found


class VisionTransformer(nn.Module):
    """Pixels (pictures, 3, side, side) to embeddings (pictures, embed_dim).

    Args:
        model: `model_cfg` of an open_clip_config.json.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        vision = model["vision_cfg"]
        width, patch, quick = vision["width"], vision["patch_size"], bool(model.get("quick_gelu"))
        heads = width // vision.get("head_width", 64)
        layers = [_ResidualAttention(width, heads, vision, quick=quick) for _ in range(vision["layers"])]
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty((vision["image_size"] // patch) ** 2 + 1, width))
        self.ln_pre = nn.Identity() if vision.get("no_ln_pre") else nn.LayerNorm(width)
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(layers)})
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, model["embed_dim"]))

    def forward(self, pixel_values: Tensor) -> _Embeds:
        """Returns the embeddings."""
        patches = self.conv1(pixel_values).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(patches.shape[0], 1, -1), patches], 1) + self.positional_embedding
        x = self.ln_pre(x)
        for layer in self.transformer.get_submodule("resblocks").children():
            x = layer(x)
        return _Embeds(image_embeds=self.ln_post(x[:, 0]) @ self.proj)


class TextTower(nn.Module):
    """Token ids (texts, tokens), the end mark the largest of them, to embeddings (texts, embed_dim).

    Args:
        model: `model_cfg` of an open_clip_config.json.
    """

    def __init__(self, model: Mapping[str, Any]) -> None:
        super().__init__()
        text = model["text_cfg"]
        width, quick = text["width"], bool(model.get("quick_gelu"))
        layers = [_ResidualAttention(width, text["heads"], text, quick=quick) for _ in range(text["layers"])]
        self.token_embedding = nn.Embedding(text["vocab_size"], width)
        self.positional_embedding = nn.Parameter(torch.empty(text["context_length"], width))
        self.transformer = nn.ModuleDict({"resblocks": nn.ModuleList(layers)})
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, model["embed_dim"]))
        self.config = SimpleNamespace(model_type="open_clip", max_position_embeddings=text["context_length"])

    def forward(self, input_ids: Tensor) -> _Embeds:
        """Returns the embeddings."""
        tokens = input_ids.shape[1]
        x = self.token_embedding(input_ids) + self.positional_embedding[:tokens]
        mask = torch.full((tokens, tokens), -torch.inf, device=x.device).triu(1)
        for layer in self.transformer.get_submodule("resblocks").children():
            x = layer(x, mask)
        ends = self.ln_final(x)[torch.arange(x.shape[0]), input_ids.argmax(-1)]
        return _Embeds(text_embeds=ends @ self.text_projection)


def build_tower(name: str, model: Mapping[str, Any], state: Mapping[str, Tensor], module_id: str) -> nn.Module:
    """Returns a tower with its weights, set to inference.

    Args:
        name: `VisionTower` or `TextTower`.
        model: `model_cfg` of an open_clip_config.json.
        state: The tower's weights.
        module_id: For the errors.

    Raises:
        ModuleFailedError: The configuration lacks something, or weights are missing or of another shape.
    """
    try:
        has_stages = isinstance(model["vision_cfg"].get("layers"), list)
        vision = ModifiedResNet if has_stages else VisionTransformer
        with torch.device("meta"):  # it takes the tensors of the state themselves
            tower: nn.Module = {"VisionTower": vision, "TextTower": TextTower}[name](model)
    except (KeyError, TypeError, ValueError, AssertionError, RuntimeError) as error:
        raise ModuleFailedError(f"module {module_id}: open_clip_config.json: {error!r}"[:300]) from error
    counts = {key: torch.zeros((), dtype=torch.long) for key in tower.state_dict() if key.endswith(_COUNT)}
    fill(tower, counts | {key: tensor.float() for key, tensor in state.items() if not key.endswith(_COUNT)}, module_id)
    return tower
