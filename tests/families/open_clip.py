"""The row of open_clip's vision transformers: the numbers of a CLIP of transformers, written in open_clip's format."""

import io
import json
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers as t
from PIL import Image
from safetensors.torch import save_file

from tests.families.dual import PICTURES, clip_words, ranked, scaled
from tests.families.family import Family

__all__ = ["OPEN_CLIP"]

_MEAN, _STD = [0.5, 0.4, 0.3], [0.3, 0.3, 0.2]
#: Beside the layers: name in transformers -> name in open_clip's format; `.T`: stored the other way round.
_NAMES = {
    "vision_model.embeddings.class_embedding": "visual.class_embedding",
    "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
    "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
    "vision_model.pre_layrnorm": "visual.ln_pre",
    "vision_model.post_layernorm": "visual.ln_post",
    "visual_projection.weight": "visual.proj.T",
    "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
    "text_model.embeddings.position_embedding.weight": "positional_embedding",
    "text_model.final_layer_norm": "ln_final",
    "text_projection.weight": "text_projection.T",
    "logit_scale": "logit_scale",
}
_LAYER = {
    "self_attn.out_proj": "attn.out_proj",
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
}


def _make(folder: Path) -> None:
    words, begin, end = clip_words(folder, 40)
    tower = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "hidden_act": "quick_gelu"}
    vision = {**tower, "num_attention_heads": 1, "image_size": 32, "patch_size": 8}
    text = {**tower, "num_attention_heads": 4, "vocab_size": words, "max_position_embeddings": 40}
    marks = {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end}
    config = t.CLIPConfig(vision_config=vision, text_config={**text, **marks}, projection_dim=16)
    network = t.CLIPModel(config)
    scaled(network, folder / "transformers")
    save_file(_written(network.state_dict()), folder / "open_clip_model.safetensors")
    model = {
        "embed_dim": 16,
        "quick_gelu": True,
        "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
        "text_cfg": {"context_length": 40, "vocab_size": words, "width": 64, "heads": 4, "layers": 2},
    }
    given = {"model_cfg": model, "preprocess_cfg": {"mean": _MEAN, "std": _STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(given))


def _written(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = {}
    for theirs, ours in _NAMES.items():
        for name in (name for name in state if name == theirs or name.startswith(f"{theirs}.")):
            tensor, turned = state[name], ours.endswith(".T")
            found[ours.removesuffix(".T") + name[len(theirs) :]] = (tensor.T if turned else tensor).contiguous()
    for tower, at in (("vision_model", "visual.transformer"), ("text_model", "transformer")):
        for number in range(2):
            there, here = f"{tower}.encoder.layers.{number}", f"{at}.resblocks.{number}"
            for kind in ("weight", "bias"):
                rows = [state[f"{there}.self_attn.{name}_proj.{kind}"] for name in "qkv"]
                found[f"{here}.attn.in_proj_{kind}"] = torch.cat(rows)
                found |= {f"{here}.{ours}.{kind}": state[f"{there}.{theirs}.{kind}"] for theirs, ours in _LAYER.items()}
    return found


@cache
def _whole(folder: Path) -> Any:
    return t.CLIPModel.from_pretrained(folder / "transformers").eval()


def _open_clip_vit(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    words = t.AutoTokenizer.from_pretrained(folder)(inputs["text"], truncation=True, padding=True, return_tensors="pt")
    sizes = {"size": {"shortest_edge": 32}, "crop_size": {"height": 32, "width": 32}}
    processor = t.CLIPImageProcessorPil(**sizes, image_mean=_MEAN, image_std=_STD)
    pixels = processor(images=Image.open(io.BytesIO(inputs["image"])).convert("RGB"), return_tensors="pt")
    return ranked(inputs["text"], _whole(folder)(**words, **pixels).logits_per_image.softmax(dim=1)[0])


OPEN_CLIP = [Family("open-clip-vit", "dual", _make, PICTURES, _open_clip_vit)]
