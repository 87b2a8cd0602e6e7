"""The rows of image classifiers: split before the one linear layer that is their head, or whole without one."""

import io
from collections.abc import Callable, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import transformers as t
from PIL import Image

from tests.families.family import Family
from tests.zoo.samples import sample

__all__ = ["IMAGE_CLASSIFICATION"]

_LABELS = {"id2label": {0: "cat", 1: "dog", 2: "cup"}, "label2id": {"cat": 0, "dog": 1, "cup": 2}}
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_VIT = {**_TOWER, "image_size": 32, "patch_size": 8}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
_LEVIT = {"image_size": 64, "hidden_sizes": [16, 24, 32], "num_attention_heads": [2, 2, 2], "depths": [1, 1, 1]}
_SEGFORMER = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 2, 4]}
_WORDS = {**_TOWER, "vocab_size": 40, "max_position_embeddings": 16}


def _square(side: int) -> dict[str, Any]:
    size = {"height": side, "width": side}
    return {"size": size, "crop_size": size}


def _make(folder: Path, kind: str, config: Any, processor: str, size: Mapping[str, Any]) -> None:
    """Saves a network whose outputs depend on the picture: matrices keep the size of what goes through them."""
    network = getattr(t, kind)(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            is_scale = weight.dim() == 1 and name.endswith("weight")
            deviation = 1 / float(weight[0].numel()) ** 0.5 if weight.dim() > 1 else 0.2
            weight.normal_(float(is_scale), deviation, generator=generator)
    network.eval().save_pretrained(folder)
    getattr(t, f"{processor}Pil")(**size).save_pretrained(folder)


@cache
def _pipeline(folder: Path) -> Any:
    return t.pipeline("image-classification", model=str(folder), image_processor=str(folder))


def _classified(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """transformers' pipeline."""
    ranking = _pipeline(folder)(Image.open(io.BytesIO(inputs["image"])))
    return {"label": ranking[0]["label"], "score": ranking[0]["score"], "ranking": ranking}


def _row(name: str, kind: str, config: Callable[[], Any], processor: str, size: Mapping[str, Any]) -> Family:
    def make(folder: Path) -> None:
        _make(folder, kind, config(), processor, size)

    asks = [{"image": sample("chelsea.jpg")}, {"image": sample("coffee.jpg")}]
    return Family(name, "classification", make, asks, _classified)


IMAGE_CLASSIFICATION = [
    _row(
        "dinov2",
        "Dinov2ForImageClassification",
        partial(t.Dinov2Config, **_VIT, **_LABELS),
        "BitImageProcessor",
        _square(32),
    ),
    _row(
        "swin",
        "SwinForImageClassification",
        partial(t.SwinConfig, **_SWIN, **_LABELS),
        "ViTImageProcessor",
        _square(32),
    ),
    _row(
        "siglip-classes",
        "SiglipForImageClassification",
        partial(t.SiglipConfig, vision_config=_VIT, text_config=_WORDS, **_LABELS),
        "SiglipImageProcessor",
        {"size": {"height": 32, "width": 32}},
    ),
    _row(
        "deit-distilled",
        "DeiTForImageClassificationWithTeacher",
        partial(t.DeiTConfig, **_VIT, **_LABELS),
        "DeiTImageProcessor",
        _square(32),
    ),
    _row(
        "levit",
        "LevitForImageClassificationWithTeacher",
        partial(t.LevitConfig, **_LEVIT, key_dim=[8, 8, 8], **_LABELS),
        "LevitImageProcessor",
        {"size": {"shortest_edge": 64}, "crop_size": {"height": 64, "width": 64}},
    ),
    _row(
        "swiftformer",
        "SwiftFormerForImageClassification",
        partial(t.SwiftFormerConfig, image_size=64, depths=[1, 1, 1, 1], embed_dims=[8, 12, 16, 20], **_LABELS),
        "ViTImageProcessor",
        {"size": {"height": 64, "width": 64}},
    ),
    _row(
        "segformer-classes",
        "SegformerForImageClassification",
        partial(t.SegformerConfig, **_SEGFORMER, decoder_hidden_size=16, **_LABELS),
        "SegformerImageProcessor",
        {"size": {"height": 64, "width": 64}},
    ),
]
