"""A convolution as TensorFlow pads it, for networks that were trained there."""

import math

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn

__all__ = ["SameConv", "pad_same"]


def pad_same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Returns (…, height, width) with TensorFlow's SAME padding, which is lopsided at stride 2."""
    tall, wide = _padding(x, kernel, stride)
    return F.pad(x, [wide // 2, wide - wide // 2, tall // 2, tall - tall // 2], value=value)


def _padding(x: Tensor, kernel: int, stride: int) -> tuple[int, int]:
    """Returns the rows and the columns that are added; an export has them as constants, and so may fold them."""
    tall, wide = (max((math.ceil(int(n) / stride) - 1) * stride + kernel - int(n), 0) for n in x.shape[-2:])
    return tall, wide


class SameConv(nn.Conv2d):
    """A convolution with TensorFlow's SAME padding."""

    def __init__(
        self, inside: int, outside: int, kernel: int, stride: int = 1, groups: int = 1, *, bias: bool = True
    ) -> None:
        super().__init__(inside, outside, kernel, stride, groups=groups, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the convolved pictures."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        tall, wide = _padding(x, kernel, stride)
        if tall % 2 or wide % 2:
            x, tall, wide = pad_same(x, kernel, stride), 0, 0
        # the convolution pads by itself where both sides get the same: no copy of what it takes
        return F.conv2d(x, self.weight, self.bias, stride, (tall // 2, wide // 2), groups=self.groups)
