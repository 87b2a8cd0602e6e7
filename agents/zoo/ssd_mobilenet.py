"""The network of SSD MobileNetV2: a picture to the scores and the corners of 1,917 possible boxes.

Liu et al., SSD, ECCV 2016; Sandler et al., MobileNetV2, CVPR 2018; as TensorFlow's object detection builds the two.
"""

import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

from s2m3.agents.zoo.same_conv import SameConv

__all__ = ["SIDE", "SsdMobileNet"]

#: Pixels per side of what the network takes.
SIDE = 300
#: Stages of inverted residual blocks: repeats, stride of the first, expansion, channels out.
_STAGES = ((1, 1, 1, 16), (2, 2, 6, 24), (3, 2, 6, 32), (4, 2, 6, 64), (3, 1, 6, 96), (3, 2, 6, 160), (1, 1, 6, 320))
_STEM, _LAST = 32, 1280
#: The block whose widened channels the first pair of predictors reads.
_TAP = 13
#: The layers behind the last: channels between, channels out.
_EXTRAS = ((256, 512), (128, 256), (128, 256), (64, 128))
#: The layers that predictors read: channels, possible boxes per place, places per side.
_READ = ((576, 3, 19), (1280, 6, 10), (512, 6, 5), (256, 6, 3), (256, 6, 2), (128, 6, 1))
#: Sizes of possible boxes as parts of the picture's side: of the first layer, and of the last.
_SMALLEST, _LARGEST = 0.2, 0.95
_SMALL_SQUARE = 0.1
_RATIOS = (1.0, 2.0, 0.5, 3.0, 0.3333)
#: By how much the network's corrections of a possible box are scaled: of its centre, of its size.
_CENTRE, _SIZE = 10.0, 5.0


class _Block(nn.Module):
    """An inverted residual block whose norms are folded into its convolutions."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inside * expansion
        self.adds = stride == 1 and inside == outside
        self.widens = expansion > 1
        if self.widens:
            self.expand = SameConv(inside, middle, 1)
        self.depthwise = SameConv(middle, middle, 3, stride, middle)
        self.project = SameConv(middle, outside, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the widened channels before they are filtered, and the block's output."""
        wide = F.relu6(self.expand(x)) if self.widens else x
        y = self.project(F.relu6(self.depthwise(wide)))
        return wide, torch.add(x, y) if self.adds else y


class _Extra(nn.Module):
    """A layer behind the last, of half the size of the one before it."""

    def __init__(self, inside: int, between: int, outside: int) -> None:
        super().__init__()
        self.narrow = SameConv(inside, between, 1)
        self.widen = SameConv(between, outside, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu6(self.widen(F.relu6(self.narrow(x))))


class SsdMobileNet(nn.Module):
    """Pixels (pictures, 3, 300, 300) from -1 to 1 to logits (pictures, 1917, classes) and boxes (pictures, 1917, 4).

    Class 0 is the background. A box is left, top, right, bottom, as parts of the picture's sides.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._classes = classes
        self.stem = SameConv(3, _STEM, 3, 2)
        blocks: list[_Block] = []
        channels = _STEM
        for repeats, stride, expansion, out in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(channels, out, 1 if repeat else stride, expansion))
                channels = out
        self.blocks = nn.ModuleList(blocks)
        self.last = SameConv(channels, _LAST, 1)
        extras, channels = [], _LAST
        for between, out in _EXTRAS:
            extras.append(_Extra(channels, between, out))
            channels = out
        self.extras = nn.ModuleList(extras)
        self.boxes = nn.ModuleList(SameConv(read, 4 * each, 1) for read, each, _ in _READ)
        self.labels = nn.ModuleList(SameConv(read, classes * each, 1) for read, each, _ in _READ)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns logits, and corners of boxes."""
        layers = self._layers(x)
        corrections = [_flat(read(layer), 4) for read, layer in zip(self.boxes, layers, strict=True)]
        logits = [_flat(read(layer), self._classes) for read, layer in zip(self.labels, layers, strict=True)]
        return torch.cat(logits, 1), _corners(torch.cat(corrections, 1))

    def _layers(self, x: Tensor) -> list[Tensor]:
        found = []
        x = F.relu6(self.stem(x))
        for number, block in enumerate(self.blocks):
            wide, x = block(x)
            if number == _TAP:
                found.append(wide)
        x = F.relu6(self.last(x))
        found.append(x)
        for extra in self.extras:
            x = extra(x)
            found.append(x)
        return found


def _flat(x: Tensor, width: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(len(x), -1, width)


def _anchors() -> Tensor:
    """Returns (1917, 4): centre x, centre y, width, height of the possible boxes, as parts of the picture's sides."""
    steps = len(_READ) - 1
    scales = [_SMALLEST + (_LARGEST - _SMALLEST) * step / steps for step in range(steps + 1)]
    found = []
    for number, (_, _, places) in enumerate(_READ):
        scale, following = scales[number], scales[number + 1] if number < steps else 1.0
        shapes = [(ratio, scale) for ratio in _RATIOS] + [(1.0, (scale * following) ** 0.5)]
        if number == 0:
            shapes = [(1.0, _SMALL_SQUARE), (2.0, scale), (0.5, scale)]
        found += [
            ((x + 0.5) / places, (y + 0.5) / places, size * ratio**0.5, size / ratio**0.5)
            for y in range(places)
            for x in range(places)
            for ratio, size in shapes
        ]
    return torch.tensor(found)


def _corners(corrections: Tensor) -> Tensor:
    """Returns corners of corrected possible boxes; a correction is of y, x, height, width."""
    anchors = _anchors()
    centre = corrections[..., [1, 0]] / _CENTRE * anchors[:, 2:] + anchors[:, :2]
    half = torch.exp(corrections[..., [3, 2]] / _SIZE) * anchors[:, 2:] / 2
    return torch.cat([centre - half, centre + half], -1)
