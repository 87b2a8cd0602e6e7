"""The rows of networks that say something of each pixel: depth and classes."""

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import transformers as t
from PIL import Image

from tests.families.detection import LABELS, save
from tests.families.family import Family
from tests.zoo.samples import sample

__all__ = ["PICTURE_MAPS"]

_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_SEGFORMER = {"depths": [1, 1, 1, 1], "hidden_sizes": [8, 16, 24, 32], "num_attention_heads": [1, 2, 2, 4]}


def _depth_anything(folder: Path) -> None:
    sizes = {**_TOWER, "num_hidden_layers": 4, "image_size": 28, "patch_size": 14}
    backbone = t.Dinov2Config(**sizes, out_indices=[1, 2, 3, 4], apply_layernorm=True, reshape_hidden_states=False)
    config = t.DepthAnythingConfig(
        backbone_config=backbone,
        reassemble_hidden_size=32,
        patch_size=14,
        neck_hidden_sizes=[8, 8, 16, 16],
        fusion_hidden_size=8,
        head_hidden_size=8,
    )
    save(t.DepthAnythingForDepthEstimation(config), folder)
    size = {"height": 56, "width": 56}
    t.DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)


def _glpn(folder: Path) -> None:
    config = t.GLPNConfig(**_SEGFORMER, decoder_hidden_size=16)
    save(t.GLPNForDepthEstimation(config), folder)
    t.GLPNImageProcessorPil(size_divisor=32).save_pretrained(folder)


@cache
def _pipeline(folder: Path, task: str) -> Any:
    return t.pipeline(task, model=str(folder), image_processor=str(folder))


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def _depth(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """transformers' pipeline; a PNG of its picture, and the range of its numbers."""
    found = _pipeline(folder, "depth-estimation")(Image.open(io.BytesIO(inputs["image"])))
    numbers = found["predicted_depth"]
    return {"depth": _png(found["depth"]), "least": numbers.min().item(), "most": numbers.max().item()}


def _segformer(folder: Path) -> None:
    config = t.SegformerConfig(**_SEGFORMER, decoder_hidden_size=16, **LABELS)
    network = t.SegformerForSemanticSegmentation(config)
    save(network, folder, network.decode_head.classifier, seed=3)
    t.SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)


def _upernet(folder: Path) -> None:
    backbone = t.ConvNextConfig(
        hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], out_features=["stage1", "stage2", "stage3", "stage4"]
    )
    config = t.UperNetConfig(
        backbone_config=backbone,
        hidden_size=16,
        pool_scales=[1, 2],
        use_auxiliary_head=False,
        auxiliary_in_channels=16,
        **LABELS,
    )
    save(t.UperNetForSemanticSegmentation(config), folder)
    t.SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)


def _segmented(folder: Path, inputs: dict[str, Any]) -> dict[str, Any]:
    """transformers' pipeline: its mask of each class."""
    found = _pipeline(folder, "image-segmentation")(Image.open(io.BytesIO(inputs["image"])))
    masks = {part["label"]: np.asarray(part["mask"]) == 255 for part in found}
    names = {name: number for number, name in LABELS["id2label"].items()}
    classes = np.zeros(found[0]["mask"].size[::-1], np.uint8)
    for label, mask in masks.items():
        classes[mask] = names[label]
    segments = [
        {"label": label, "class": names[label], "share": float(mask.mean())}
        for label, mask in sorted(masks.items(), key=lambda item: -float(item[1].mean()))
    ]
    return {"segments": segments, "map": _png(Image.fromarray(classes))}


_ASKS = [{"image": sample("chelsea.jpg")}, {"image": sample("coffee.jpg")}]
PICTURE_MAPS = [
    Family("depth-anything", "detection", _depth_anything, _ASKS, _depth),
    Family("glpn", "detection", _glpn, _ASKS, _depth),
    Family("segformer", "detection", _segformer, _ASKS, _segmented),
    Family("upernet", "detection", _upernet, _ASKS, _segmented),
]
