"""Classes `depth-estimator` and `image-segmenter`: a picture to a picture of what each of its pixels is, as a PNG."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from s2m3.agents.checkpoints.labels import labels_of
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.pictures.reading import Size, prepared, read_picture
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_image_processor
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.serving.module import MANY
from s2m3.schemas.wire.values import Value

__all__ = ["PictureMap", "load_depth_estimator", "load_segmenter"]

#: Most bytes of what a network says of all pixels, at the size of the picture: a map of a larger one is smaller.
_MOST_BYTES = 400_000_000
_BYTES = 4
#: Numbers per pixel while a depth becomes a picture.
_DEPTH_PLANES = 4
#: Classes whose numbers fit in a PNG of 8 bits.
_EIGHT_BITS = 256


@dataclass(frozen=True)
class _Item:
    """What the network takes (one picture), and (height, width) of the picture sent."""

    inputs: dict[str, Any]
    size: Size


class PictureMap:
    """`image` to a PNG and what is said of it, by a whole network.

    Args:
        network: The network.
        processor: Of its pictures.
        read: (the network's result, height and width of the picture sent) -> outputs.
    """

    light = False
    max_batch = 1
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Any, processor: Any, read: Callable[[Any, Size], dict[str, Value]]) -> None:
        self._network = network
        self._processor = processor
        self._read = read
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's pixels as the network takes them."""
        picture, size = read_picture(port(inputs, "image", "image"))
        return _Item(prepared(self._processor, images=picture, return_tensors="pt"), size)

    @torch.inference_mode()
    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        results = []
        for item in batch:
            between_slices()
            outputs = self._read(self._network(**item.inputs), item.size)
            results.append({name: value for name, value in outputs.items() if name in wanted})
        return results


def _size_within(size: Size, planes: int) -> Size:
    """Returns the size of a map: the picture's, or smaller where so many numbers per pixel would take too much."""
    scale = min(1.0, (_MOST_BYTES / (_BYTES * planes * size[0] * size[1])) ** 0.5)
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def _png(pixels: npt.NDArray[Any]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _depth_of(processor: Any, result: Any, size: Size) -> dict[str, Value]:
    # by its place: the processors of transformers call the argument source_sizes or target_sizes
    (found,) = processor.post_process_depth_estimation(result, [_size_within(size, _DEPTH_PLANES)])
    depth = found["predicted_depth"].float().numpy()
    least, most = float(depth.min()), float(depth.max())
    shown = (depth - depth.min()) / (depth.max() - depth.min()) if most > least else np.zeros_like(depth)
    return {"depth": _png((shown * 255).astype(np.uint8)), "least": least, "most": most}


def _segments_of(processor: Any, labels: Sequence[str], result: Any, size: Size) -> dict[str, Value]:
    sizes = [_size_within(size, len(labels))]
    (found,) = processor.post_process_semantic_segmentation(result, target_sizes=sizes)
    classes = found.numpy().astype(np.uint8 if len(labels) <= _EIGHT_BITS else np.uint16)
    numbers, counts = np.unique(classes, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    segments = [
        {"label": labels[numbers[i]], "class": int(numbers[i]), "share": float(counts[i] / classes.size)} for i in order
    ]
    return {"segments": segments, "map": _png(classes)}


def load_depth_estimator(opened: CheckpointPart) -> PictureMap:
    """Builds class `depth-estimator`: `depth`, a PNG of 8 bits grey, black at `least` and white at `most`.

    Raises:
        ModuleFailedError: Weights or preprocessing do not fit; the text names them.
    """
    processor = read_image_processor(opened)
    return PictureMap(build_network(opened), processor, lambda result, size: _depth_of(processor, result, size))


def load_segmenter(opened: CheckpointPart) -> PictureMap:
    """Builds class `image-segmenter`: `segments` [{label, class, share of the pixels}], the largest first, and `map`.

    The map is a PNG whose pixels are the numbers of the classes, of 8 bits, or of 16 where there are more than 256.

    Raises:
        ModuleFailedError: Weights, preprocessing or labels do not fit; the text names them.
    """
    processor, network = read_image_processor(opened), build_network(opened)
    labels = labels_of(opened, network.config.num_labels)
    return PictureMap(network, processor, lambda result, size: _segments_of(processor, labels, result, size))
