"""Class `picture-features`: pictures to the tokens that a vision-language model puts into its prompt."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import torch

from s2m3.agents.checkpoints.multimodal.processor import PictureHalf
from s2m3.agents.checkpoints.networks.loading import build_network
from s2m3.agents.checkpoints.pictures.reading import read_pictures
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.modules.ports import port
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import nbytes_of
from s2m3.schemas.wire.values import Value

__all__ = ["MOST_PICTURES", "PICTURE_FIELDS", "PictureFeatures", "load_picture_features"]

#: Fields of `get_image_features` that language models read.
PICTURE_FIELDS = ("pooler_output", "deepstack_features")
#: Pictures of one item.
MOST_PICTURES = 8


@dataclass(frozen=True)
class _Item:
    pixels: Mapping[str, Any]
    sizes: dict[str, Value]
    count: int


class PictureFeatures:
    """`image` (1 to 8 picture files) to `features`: a map of the pictures' tokens, and of what the text half must know.

    The pictures of one item run together, as transformers runs those of one prompt; items run one after another.
    """

    light = False
    max_batch = 1
    prepares_at_once = 1
    repeatable = True

    def __init__(self, network: Any, half: PictureHalf) -> None:
        self._network = network
        self._half = half
        self._takes = frozenset(signature(network.base_model.get_image_features).parameters)
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's pictures as the vision part takes them."""
        pictures = read_pictures(port(inputs, "image", "images"), MOST_PICTURES)
        made, sizes = self._half(pictures)
        pixels = {name: value for name, value in made.items() if name in self._takes}
        return _Item(pixels, sizes, len(pictures))

    @torch.inference_mode()
    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `features` of each item: `pictures` (their number), `sizes`, and fields of `get_image_features`."""
        results: list[dict[str, Value]] = []
        for item in batch:
            between_slices()
            if "features" not in wanted:
                results.append({})
                continue
            found = self._network.base_model.get_image_features(**self._typed(item.pixels), return_dict=True)
            fields = {name: _arrays(found[name]) for name in PICTURE_FIELDS if found.get(name) is not None}
            results.append({"features": {"pictures": item.count, "sizes": item.sizes, **fields}})
        return results

    def _typed(self, pixels: Mapping[str, Any]) -> dict[str, Any]:
        dtype = self._network.dtype
        return {
            name: value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
            for name, value in pixels.items()
        }


def _arrays(value: Any) -> Value:
    """Returns a tensor, or the tensors of a list, as float32 arrays."""
    if isinstance(value, torch.Tensor):
        return value.float().numpy()
    return [_arrays(item) for item in value]


def load_picture_features(opened: CheckpointPart) -> PictureFeatures:
    """Builds class `picture-features`.

    Raises:
        ModuleFailedError: Weights or processor do not fit; the text names them.
    """
    return PictureFeatures(build_network(opened), PictureHalf(opened))
