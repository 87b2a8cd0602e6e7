"""The network of BlazeFace for near faces: a picture to the scores and the corners of 896 possible faces.

Bazarevsky et al., BlazeFace, 2019; as MediaPipe's face detection (short range) has it.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from s2m3.agents.zoo.same_conv import SameConv, pad_same

__all__ = ["SIDE", "BlazeFace"]

#: Pixels per side of what the network takes.
SIDE = 128
_STEM = 24
#: Channels out and stride of the blocks, and the block whose output is the first that predictors read.
_BLOCKS = ((24, 1), (28, 1), (32, 2), (36, 1), (42, 1), (48, 2), (56, 1), (64, 1), (72, 1), (80, 1), (88, 1),
           (96, 2), (96, 1), (96, 1), (96, 1), (96, 1))  # fmt: skip
_TAP = 10
#: The layers that predictors read: channels, possible faces per place, places per side.
_READ = ((88, 2, 16), (96, 6, 8))
#: Numbers of a face: centre x and y, width, height in pixels; x and y of six points, which are not used.
_NUMBERS = 16
#: Limit of a logit: what MediaPipe clips at.
_MOST = 100.0


class _Block(nn.Module):
    """Each channel filtered by itself, mixed, and added to what came in."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self._more, self._stride = outside - inside, stride
        self.depthwise = SameConv(inside, inside, 3, stride, inside)
        self.mix = SameConv(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mix(self.depthwise(x))
        if self._stride > 1:
            x = F.max_pool2d(pad_same(x, 2, 2, float("-inf")), 2)
        return F.relu(F.pad(x, [0, 0, 0, 0, 0, self._more]) + y)


class BlazeFace(nn.Module):
    """Pixels (pictures, 3, 128, 128) from -1 to 1 to logits (pictures, 896, 1) and boxes (pictures, 896, 4).

    A box is left, top, right, bottom, as parts of the picture's sides.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = SameConv(3, _STEM, 5, 2)
        channels = [_STEM, *(out for out, _ in _BLOCKS)]
        self.blocks = nn.ModuleList(
            _Block(inside, out, stride) for inside, (out, stride) in zip(channels, _BLOCKS, strict=False)
        )
        self.boxes = nn.ModuleList(SameConv(read, _NUMBERS * each, 1) for read, each, _ in _READ)
        self.labels = nn.ModuleList(SameConv(read, each, 1) for read, each, _ in _READ)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits, and corners of boxes."""
        x = F.relu(self.stem(x))
        layers = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number == _TAP:
                layers.append(x)
        layers.append(x)
        found = [_flat(read(layer), _NUMBERS) for read, layer in zip(self.boxes, layers, strict=True)]
        logits = [_flat(read(layer), 1) for read, layer in zip(self.labels, layers, strict=True)]
        return torch.cat(logits, 1).clamp(-_MOST, _MOST), _corners(torch.cat(found, 1)[..., :4] / SIDE)


def _flat(x: Tensor, width: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, width)


def _corners(found: Tensor) -> Tensor:
    centres = torch.tensor(
        [
            ((x + 0.5) / places, (y + 0.5) / places)
            for _, each, places in _READ
            for y in range(places)
            for x in range(places)
            for _ in range(each)
        ]
    )
    centre, half = found[..., :2] + centres, found[..., 2:] / 2
    return torch.cat([centre - half, centre + half], -1)
