"""Class `image-classifier`: a picture to the checkpoint's labels, by a whole network."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from s2m3.agents.checkpoints.labels import Labels, read_labels
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.pictures.reading import prepared, read_picture
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_image_processor
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.serving.module import MANY
from s2m3.schemas.wire.values import Value

__all__ = ["ImageClassifier", "load_image_classifier"]


class ImageClassifier:
    """`image` to `label`, `score` (see labels.py), `ranking` (the best five) and `logits` (1, classes)."""

    light = False
    max_batch = 1  # processors give pictures of several sizes, and masks with them
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Any, processor: Any, labels: Labels) -> None:
        self._network = network
        self._processor = processor
        self._labels = labels
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> dict[str, torch.Tensor]:
        """Returns the item's pixels, and whatever else the processor says of them."""
        picture, _ = read_picture(port(inputs, "image", "image"))
        return prepared(self._processor, images=picture, return_tensors="pt")

    @torch.inference_mode()
    def run(self, batch: Sequence[dict[str, torch.Tensor]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        results = []
        for given in batch:
            between_slices()
            results.append(self._labels.answer(self._network(**given).logits.float().numpy(), wanted))
        return results


def load_image_classifier(opened: CheckpointPart) -> ImageClassifier:
    """Builds class `image-classifier`.

    Raises:
        ModuleFailedError: Weights, preprocessing or labels do not fit; the text names them.
    """
    network = build_network(opened)
    return ImageClassifier(network, read_image_processor(opened), read_labels(opened, network.config.num_labels))
