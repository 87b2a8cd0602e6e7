"""EfficientNet-Lite as a vision encoder: pictures to features. Its classifier is a head of its own (imagenet.py).

Here is what is done before and behind the network; torch's network is in efficientnet_torch.py.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from s2m3.agents.media.pictures import square_pixels
from s2m3.agents.modules.ports import Config, port, read_config
from s2m3.agents.modules.slices import between_slices
from s2m3.agents.runtimes.exported import ExportedPart
from s2m3.agents.runtimes.network import Network
from s2m3.agents.serving.module import MANY
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["MAX_PICTURES", "EfficientNetConfig", "VisionEncoder", "load_exported"]

#: Pictures of one item.
MAX_PICTURES = 32
#: Pictures of one forward pass: four at once gain x1.4 on two threads and nothing on one; eight gain no more. With ONNX
#: Runtime on one thread one goes at a time: its activations take 25 MB.
_PICTURES_AT_ONCE = 4


class EfficientNetConfig(Config):
    """Which variant, and the side of the square it looks at."""

    kind: Literal["lite0", "lite1", "lite2"]
    pixels: int = Field(ge=64, le=512)


class VisionEncoder:
    """Class `efficientnet-lite`: `image` (1 to 32 picture files) to `features` (pictures, 1280) float32."""

    light = False
    max_batch = _PICTURES_AT_ONCE
    #: pictures of one forward pass; an accelerator takes more (devices.py)
    rows_at_once: int = _PICTURES_AT_ONCE
    prepares_at_once = MANY
    repeatable = True

    def __init__(self, network: Network, side: int) -> None:
        self.network = network
        self.side = side
        self.nbytes = network.nbytes

    def prepare(self, inputs: Mapping[str, Value]) -> npt.NDArray[np.uint8]:
        """Returns the item's pictures as (pictures, side, side, 3) uint8."""
        pictures = port(inputs, "image", "images")
        if len(pictures) > MAX_PICTURES:
            raise BadInputError(f"{len(pictures)} pictures; at most {MAX_PICTURES}")
        return np.stack([self._square(data) for data in pictures])

    def _square(self, data: bytes) -> npt.NDArray[np.uint8]:
        between_slices()
        return square_pixels(data, self.side)

    def run(self, batch: Sequence[npt.NDArray[np.uint8]], wanted: frozenset[str]) -> list[dict[str, Value]]:
        """Returns `features` of each item; the pictures of all items run together."""
        if "features" not in wanted:
            return [{} for _ in batch]
        features = self._features(np.concatenate(batch))
        ends = np.cumsum([len(pictures) for pictures in batch])
        return [{"features": part} for part in np.split(features, ends[:-1])]

    def _features(self, pictures: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        rows = []
        for start in range(0, len(pictures), self.rows_at_once):
            between_slices()
            rows += self.network(pixels=pictures[start : start + self.rows_at_once])
        return np.concatenate(rows)


def load_exported(part: ExportedPart) -> VisionEncoder:
    """Builds class `efficientnet-lite` on the exported network.

    Raises:
        ModuleFailedError: The file cannot be run.
    """
    from s2m3.agents.runtimes.onnx import exported_network, threads  # noqa: PLC0415  # torch agents need not have it

    config = read_config(part.spec, EfficientNetConfig)
    encoder = VisionEncoder(exported_network(part, "model.onnx"), config.pixels)
    if threads() == 1:
        encoder.rows_at_once = 1
    return encoder
