"""Class `image-encoder`: pictures to what a vision tower makes of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from s2m3.agents.checkpoints.networks import build_network
from s2m3.agents.checkpoints.outputs import Asked, asked_outputs, needs_layers, take
from s2m3.agents.checkpoints.part import CheckpointPart
from s2m3.agents.checkpoints.preprocessing import read_image_processor
from s2m3.agents.media.pictures import decode_picture, without_alpha
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["ImageEncoder", "load_image_encoder"]

#: Pictures of one item, and of one forward pass.
_MAX_PICTURES, _AT_ONCE = 32, 8
#: Pixels per side up to which a picture is decoded at its full size, as the checkpoint's own preprocessing gives it; of
#: one with twice as many on both sides a half is enough (12 megapixels from a camera stay whole, 50 do not).
_FULL = 2_048


class ImageEncoder:
    """`image` (1 to 32 picture files) to the table's outputs, one row per picture."""

    light = False
    max_batch = _AT_ONCE

    def __init__(self, network: Any, processor: Any, asked: Mapping[str, Asked]) -> None:
        self._network = network
        self._processor = processor
        self._asked = asked
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> torch.Tensor:
        """Returns the item's pixels, (pictures, 3, height, width)."""
        pictures = port(inputs, "image", "images")
        if len(pictures) > _MAX_PICTURES:
            raise BadInputError(f"{len(pictures)} pictures; at most {_MAX_PICTURES}")
        decoded = [_decoded(data) for data in pictures]
        try:
            pixels: torch.Tensor = self._processor(decoded, return_tensors="pt").pixel_values
        except ValueError as error:  # e.g. one pixel wide: the processor cannot tell its channels
            raise BadInputError(f"the picture cannot be prepared: {error}"[:200]) from error
        return pixels

    @torch.inference_mode()
    def run(self, batch: Sequence[torch.Tensor], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item; the pictures of all items run together."""
        rows: dict[str, list[Any]] = {name: [] for name in wanted if name in self._asked}
        layers = {"output_hidden_states": True} if needs_layers(self._asked, wanted) else {}
        for pixels in torch.split(torch.cat(list(batch)), _AT_ONCE):
            between_slices()
            result = self._network(pixel_values=pixels, **layers)
            for name, found in take(self._asked, result, rows).items():
                rows[name].append(found)
        ends = np.cumsum([len(pixels) for pixels in batch])[:-1]
        parts = {name: np.split(np.concatenate(found), ends) for name, found in rows.items()}
        return [{name: part[i] for name, part in parts.items()} for i in range(len(batch))]


def _decoded(data: bytes) -> Image.Image:
    between_slices()
    return decode_picture(data, _FULL, without_alpha)


def load_image_encoder(opened: CheckpointPart) -> ImageEncoder:
    """Builds class `image-encoder`.

    Raises:
        ModuleFailedError: Weights or preprocessing do not fit; the text names them.
    """
    return ImageEncoder(build_network(opened), read_image_processor(opened), asked_outputs(opened))
