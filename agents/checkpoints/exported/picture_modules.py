"""Classes `image-encoder` and `image-classifier` on exported networks. What is done to pictures is picture_steps.py."""

from collections.abc import Mapping, Sequence

import numpy as np

from s2m3.agents.checkpoints.exported.picture_steps import PictureSteps
from s2m3.agents.checkpoints.labels import Labels, noted_labels
from s2m3.agents.checkpoints.pictures.reading import read_pictures
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import Array, Network
from s2m3.agents.runtimes.onnx import exported_network
from s2m3.agents.serving.module import MANY
from s2m3.schemas.wire.values import Value

__all__ = ["ExportedImageClassifier", "ExportedImageEncoder", "load_exported_classifier", "load_exported_encoder"]

#: Pictures of one item, and of one forward pass.
_MAX_PICTURES, _AT_ONCE = 32, 8


class ExportedImageEncoder:
    """`image` (1 to 32 picture files) to the part's outputs, one row per picture."""

    light = False
    max_batch = _AT_ONCE
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Network, steps: PictureSteps) -> None:
        self._network = network
        self._steps = steps
        self.nbytes = network.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> Array:
        """Returns the pixels of the item's pictures, (pictures, 3, height, width).

        Raises:
            BadInputError: Too many pictures, or one that cannot be read or prepared.
        """
        return self._steps(read_pictures(port(inputs, "image", "images"), _MAX_PICTURES))

    def run(self, batch: Sequence[Array], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item; the pictures of all items run together."""
        names = [name for name in self._network.outputs if name in wanted]
        pixels, rows = np.concatenate(batch), [list[Array]() for _ in names]
        for start in range(0, len(pixels), _AT_ONCE):
            between_slices()
            found = self._network.some(names, pixel_values=pixels[start : start + _AT_ONCE])
            for row, array in zip(rows, found, strict=True):
                row.append(array)
        whole = [np.concatenate(row) for row in rows]
        ends = np.cumsum([len(one) for one in batch])
        return [
            {name: array[end - len(one) : end] for name, array in zip(names, whole, strict=True)}
            for one, end in zip(batch, ends, strict=True)
        ]


class ExportedImageClassifier:
    """`image` to `label`, `score` (see labels.py), `ranking` (the best five) and `logits` (1, classes)."""

    light = False
    max_batch = _AT_ONCE
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Network, steps: PictureSteps, labels: Labels) -> None:
        self._network = network
        self._steps = steps
        self._labels = labels
        self.nbytes = network.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> Array:
        """Returns the pixels of the item's picture, (1, 3, height, width)."""
        return self._steps(read_pictures([port(inputs, "image", "image")], 1))

    def run(self, batch: Sequence[Array], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item; the pictures of all items run together."""
        between_slices()
        (logits,) = self._network(pixel_values=np.concatenate(batch))
        return [self._labels.answer(row[None], wanted) for row in logits]


def load_exported_encoder(part: ExportedPart) -> ExportedImageEncoder:
    """Builds class `image-encoder` on the exported network.

    Raises:
        ModuleFailedError: A file is missing, or cannot be run.
    """
    return ExportedImageEncoder(exported_network(part, "model.onnx"), part.settings("picture", PictureSteps))


def load_exported_classifier(part: ExportedPart) -> ExportedImageClassifier:
    """Builds class `image-classifier` on the exported network.

    Raises:
        ModuleFailedError: A file is missing, or cannot be run.
    """
    network = exported_network(part, "model.onnx")
    return ExportedImageClassifier(network, part.settings("picture", PictureSteps), noted_labels(part))
