"""Class `image-encoder`: pictures to what a vision tower makes of them."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch

from s2m3.agents.checkpoints.networks.loading import build_network, taken_by
from s2m3.agents.checkpoints.networks.outputs import Asked, asked_outputs, needs_layers, take
from s2m3.agents.checkpoints.pictures.reading import prepared, read_pictures
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_image_processor
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.agents.serving.module import MANY
from s2m3.agents.transfers import joined
from s2m3.schemas.wire.values import Value

__all__ = ["ImageEncoder", "load_image_encoder"]

#: Pictures of one item, and of one forward pass.
_MAX_PICTURES, _AT_ONCE = 32, 8
#: What an image processor makes: `pixel_values`, and masks and shapes where it makes them; a row per picture.
Pixels = dict[str, torch.Tensor]


class ImageEncoder:
    """`image` (1 to 32 picture files) to the table's outputs, one row per picture."""

    light = False
    max_batch = _AT_ONCE
    #: pictures of one forward pass; an accelerator takes more (devices.py)
    rows_at_once = _AT_ONCE
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Any, processor: Any, asked: Mapping[str, Asked]) -> None:
        self._network = network
        self._processor = processor
        self._asked = asked
        self._takes = taken_by(network)
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> Pixels:
        """Returns what the processor makes of the item's pictures and the network takes, one row per picture.

        Raises:
            BadInputError: Too many pictures, or one that cannot be read or prepared.
        """
        pictures = read_pictures(port(inputs, "image", "images"), _MAX_PICTURES)
        made = prepared(self._processor, pictures, return_tensors="pt")
        return {name: made[name] for name in made if name in self._takes}

    @torch.inference_mode()
    def run(self, batch: Sequence[Pixels], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item; pictures of all items that have one shape run together."""
        rows: dict[str, list[Any]] = {name: [] for name in wanted if name in self._asked}
        layers = {"output_hidden_states": True} if needs_layers(self._asked, wanted) else {}
        for pixels in _passes(batch, self.rows_at_once):
            between_slices()
            result = self._network(**pixels, **layers)
            for name, found in take(self._asked, result, rows).items():
                rows[name].extend(found)
        ends = np.cumsum([len(pixels["pixel_values"]) for pixels in batch])
        return [
            {name: np.stack(found[end - len(pixels["pixel_values"]) : end]) for name, found in rows.items()}
            for pixels, end in zip(batch, ends, strict=True)
        ]


def _passes(batch: Sequence[Pixels], at_once: int) -> Iterator[Pixels]:
    """Yields the rows of all items in their order, at most so many together, those of other shapes apart."""
    for _, same in groupby(batch, lambda pixels: [tensor.shape[1:] for tensor in pixels.values()]):
        items = list(same)
        rows = {name: joined([pixels[name] for pixels in items]) for name in items[0]}
        for start in range(0, len(rows["pixel_values"]), at_once):
            yield {name: tensor[start : start + at_once] for name, tensor in rows.items()}


def load_image_encoder(opened: CheckpointPart) -> ImageEncoder:
    """Builds class `image-encoder`.

    Raises:
        ModuleFailedError: Weights or preprocessing do not fit; the text names them.
    """
    return ImageEncoder(build_network(opened), read_image_processor(opened), asked_outputs(opened))
