"""Class `object-detector` on exported networks: transformers' two ways from logits and boxes to what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from s2m3.agents.checkpoints.exported.picture_steps import PictureSteps
from s2m3.agents.checkpoints.pictures.reading import Size, read_picture
from s2m3.agents.modules.boxes import box_outputs
from s2m3.agents.modules.ports import Config, port
from s2m3.agents.modules.ranking import Floats, sigmoid, softmax
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import Array, Network
from s2m3.agents.runtimes.onnx import exported_network
from s2m3.agents.serving.module import MANY
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["BoxSettings", "ExportedObjectDetector", "load_exported_detector"]

#: Pixels per side of a prepared picture: of less nothing is left behind the first layer.
_LEAST = 16


class BoxSettings(Config):
    """How a detector's outputs become boxes.

    Args:
        way: `softmax`: each box has its likeliest class, the last class is nothing; `sigmoid`: each class of each box
            has a score of its own.
        most: Boxes that stay at most.
        threshold: Least score of a box.
        labels: The names of the classes.
    """

    way: Literal["softmax", "sigmoid"]
    most: int
    threshold: float
    labels: tuple[str, ...]

    def found(self, logits: Floats, boxes: Floats, size: Size) -> tuple[Floats, Array, Floats]:
        """Returns the scores, classes and corners (left, top, right, bottom; pixels) of what was found, best first.

        Args:
            logits: (boxes, classes).
            boxes: (boxes, 4): centre, width and height, as shares of the picture.
            size: (height, width) of the picture.
        """
        if self.way == "softmax":
            all_scores = softmax(logits)[:, :-1]
            classes = all_scores.argmax(-1)
            scores, rows = all_scores.max(-1), np.arange(len(logits))
        else:
            scores = sigmoid(logits).ravel()
            rows, classes = np.divmod(np.arange(scores.size), logits.shape[1])
        best = np.argsort(-scores, kind="stable")[: self.most]
        best = best[scores[best] > self.threshold]
        centre, half = boxes[rows[best], :2], boxes[rows[best], 2:] / 2
        height, width = size
        corners = np.concatenate([centre - half, centre + half], -1) * np.array([width, height] * 2, np.float32)
        return scores[best], classes[best], corners


@dataclass(frozen=True)
class _Item:
    pixels: Array
    size: Size


class ExportedObjectDetector:
    """`image` (one picture) to `boxes`, best first, `label`, `score`. Each picture runs alone, at its own size."""

    light = False
    max_batch = 1
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Network, steps: PictureSteps, boxes: BoxSettings) -> None:
        self._network, self._steps, self._boxes = network, steps, boxes
        self.nbytes = network.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's pixels, and the size of the picture that was sent.

        Raises:
            BadInputError: The picture cannot be read or prepared, or is too thin.
        """
        picture, (height, width) = read_picture(port(inputs, "image", "image"))
        pixels = self._steps([picture])
        if min(pixels.shape[-2:]) < _LEAST:
            raise BadInputError(
                f"the picture of {width} x {height} pixels is too thin: prepared, one side is below {_LEAST}"
            )
        return _Item(pixels, (height, width))

    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item: without any box, `label` is empty and `score` 0."""
        results = []
        for item in batch:
            between_slices()
            logits, boxes = self._network(pixel_values=item.pixels)
            scores, classes, corners = self._boxes.found(logits[0], boxes[0], item.size)
            labels = [self._boxes.labels[number] for number in classes]
            results.append(box_outputs(labels, scores.tolist(), corners.tolist(), wanted))
        return results


def load_exported_detector(part: ExportedPart) -> ExportedObjectDetector:
    """Builds class `object-detector` on the exported network.

    Raises:
        ModuleFailedError: A file is missing, or cannot be run.
    """
    network = exported_network(part, "model.onnx")
    return ExportedObjectDetector(network, part.settings("picture", PictureSteps), part.settings("boxes", BoxSettings))
