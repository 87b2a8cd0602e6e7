"""Classes `ssd-detector` and `face-detector`: what is where in a picture, by weights that come with this package."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from pydantic import Field
from torch import nn

from s2m3.agents.media.pictures import check_ratio, decode_with_size, on_white
from s2m3.agents.modules.boxes import box_outputs, keep_best
from s2m3.agents.modules.casting import put_into
from s2m3.agents.modules.ports import Config, port, read_config
from s2m3.agents.modules.ranking import Floats
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.modules.state_dicts import fill, nbytes_of, read_safetensors
from s2m3.agents.serving.module import MANY
from s2m3.agents.zoo import blazeface, ssd_mobilenet
from s2m3.agents.zoo.wheels import shipped_weights
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["OPEN_IMAGES", "ShippedDetector", "load_face_detector", "load_ssd_detector"]

#: The labels of the 24 scores of a box, in their order; the first is the background. Open Images V4's names, in small.
OPEN_IMAGES = (
    "", "bicycle", "boot", "laptop", "person", "chair", "cattle", "desk", "cat", "computer mouse", "computer monitor",
    "box", "mug", "coffee cup", "stationary bicycle", "table", "bottle", "high heels", "vehicle", "footwear", "dog",
    "book", "camera", "car",
)  # fmt: skip
#: A picture is decoded at so many times the pixels that the network looks at, at least.
_DECODED = 2
#: Intersection over union from which the worse of two boxes of one label goes, and boxes of one label at most.
_OVERLAP, _MOST = 0.5, 50


class DetectorConfig(Config):
    """The least score of a box, and the labels that are answered."""

    threshold: float = Field(ge=0, le=1)
    labels: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class _Item:
    """Pixels (3, side, side) uint8, and (width, height) of the picture that was sent."""

    pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    size: tuple[int, int]


class ShippedDetector:
    """`image` (one picture) to `boxes`, best first, and `label` and `score` of the best; an empty label without a box.

    Args:
        network: (pictures, 3, side, side) from -1 to 1 to logits (pictures, boxes, labels) and corners.
        side: Pixels per side of what the network takes.
        names: Label -> its column of the logits.
        threshold: The least score of a box.
        fits: Whether a picture keeps its ratio, with black beside it; else it is squeezed into the square. As the
            network was trained.
    """

    light = False
    #: Measured: on one thread four pictures at once gain nothing.
    max_batch = 1
    prepares_at_once = MANY
    repeatable = True

    def __init__(
        self, network: nn.Module, side: int, names: Mapping[str, int], threshold: float, *, fits: bool
    ) -> None:
        self._network = network
        self._fits = fits
        self._side = side
        self._names = names
        self._threshold = threshold
        self.nbytes = nbytes_of(network)

    def prepare(self, inputs: Mapping[str, Value]) -> _Item:
        """Returns the item's pixels.

        Raises:
            BadInputError: No picture, or one that cannot be read.
        """
        picture, size = decode_with_size(
            port(inputs, "image", "image"), _DECODED * self._side, on_white, longer=self._fits
        )
        check_ratio(picture)
        side = (self._side, self._side)
        bilinear = Image.Resampling.BILINEAR
        square = ImageOps.pad(picture, side, bilinear) if self._fits else picture.resize(side, bilinear)
        return _Item(np.asarray(square, np.uint8).transpose(2, 0, 1), size)

    def run(self, batch: Sequence[_Item], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns the wanted outputs of each item."""
        return [self._found(item, wanted) for item in batch]

    def _found(self, item: _Item, wanted: frozenset[str]) -> dict[str, Value]:
        between_slices()
        scores, corners = self._scores(item)
        corners = _in_pixels(corners, item.size, fits=self._fits)
        rows = [
            (float(scores[at, column]), label, corners[at].tolist())
            for label, column in self._names.items()
            for at in keep_best(corners, scores[:, column], self._threshold, _OVERLAP, _MOST)
        ]
        rows.sort(key=lambda row: -row[0])
        return box_outputs([row[1] for row in rows], [row[0] for row in rows], [row[2] for row in rows], wanted)

    @torch.inference_mode()
    def _scores(self, item: _Item) -> tuple[Floats, Floats]:
        pixels = torch.from_numpy(item.pixels.astype(np.float32) / 127.5 - 1)[None]
        logits, corners = self._network(pixels.contiguous(memory_format=torch.channels_last))
        return logits[0].sigmoid().numpy(), corners[0].numpy()


def _in_pixels(corners: Floats, size: tuple[int, int], *, fits: bool) -> Floats:
    """Returns corners of the square that the network saw as pixels of the picture in the square's middle."""
    inner = np.array(size * 2, np.float32)
    outer = np.full(4, max(size), np.float32) if fits else inner
    found: Floats = np.clip(corners * outer - (outer - inner) / 2, 0, inner)
    return found


def _filled(network: nn.Module, spec: ModuleSpec) -> nn.Module:
    weights = read_safetensors(shipped_weights(spec.prefix), lambda _: True)
    fill(network, {name: tensor.float() for name, tensor in weights.items()}, spec.id)
    put_into(network, spec.dtype)
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def load_ssd_detector(spec: ModuleSpec) -> ShippedDetector:
    """Builds class `ssd-detector`: SSD MobileNetV2 of the labels in OPEN_IMAGES.

    Raises:
        ModuleFailedError: The weights do not fit, or a label is none of those.
    """
    with torch.device("meta"):
        network = ssd_mobilenet.SsdMobileNet(len(OPEN_IMAGES))
    return _detector(spec, network, ssd_mobilenet.SIDE, OPEN_IMAGES, fits=False)


def load_face_detector(spec: ModuleSpec) -> ShippedDetector:
    """Builds class `face-detector`: BlazeFace, of the one label `face`.

    Raises:
        ModuleFailedError: The weights do not fit, or another label is named.
    """
    with torch.device("meta"):
        network = blazeface.BlazeFace()
    return _detector(spec, network, blazeface.SIDE, ("face",), fits=True)


def _detector(spec: ModuleSpec, network: nn.Module, side: int, known: Sequence[str], *, fits: bool) -> ShippedDetector:
    """Fills a network whose scores are of the known labels, in their order; an empty one is the background."""
    config = read_config(spec, DetectorConfig)
    if unknown := [label for label in config.labels if not label or label not in known]:
        listed = ", ".join(filter(None, known))
        raise ModuleFailedError(f"module {spec.id}: {unknown[0][:60]!r} is none of: {listed}")
    names = {label: known.index(label) for label in config.labels}
    return ShippedDetector(_filled(network, spec), side, names, config.threshold, fits=fits)
