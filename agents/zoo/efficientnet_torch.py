"""EfficientNet-Lite's network in torch, and modules of class `efficientnet-lite` on it.

Architecture: Tan & Le, EfficientNet, ICML 2019; the Lite variants leave out squeeze-and-excitation and use ReLU6.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from s2m3.agents.modules.casting import put_into
from s2m3.agents.modules.ports import read_config
from s2m3.agents.modules.state_dicts import fill, read_pth
from s2m3.agents.runtimes.export_plan import Export, ExportedNetwork
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.agents.zoo.efficientnet import EfficientNetConfig, VisionEncoder
from s2m3.agents.zoo.same_conv import SameConv
from s2m3.agents.zoo.wheels import wheel_file
from s2m3.schemas.definitions import ModuleSpec

__all__ = ["EfficientNetLite", "export_encoder", "load_encoder"]

#: Stages of MBConv blocks: repeats, kernel, stride, expansion, channels out.
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
#: Width and depth multipliers.
_SCALES = {"lite0": (1.0, 1.0), "lite1": (1.0, 1.1), "lite2": (1.1, 1.2)}
_STEM, _FEATURES = 32, 1280


def _round_channels(channels: int, width: float) -> int:
    """Returns scaled channels: a multiple of 8, never more than a tenth below what was asked for."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def _norm(channels: int) -> nn.Module:
    return nn.BatchNorm2d(channels, eps=1e-3)


class _MBConv(nn.Module):
    """An inverted residual block: widen, filter each channel by itself, narrow, add."""

    def __init__(self, inside: int, outside: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        middle = inside * expansion
        self.widens, self.adds = expansion != 1, stride == 1 and inside == outside
        if self.widens:
            self._expand_conv, self._bn0 = SameConv(inside, middle, 1, bias=False), _norm(middle)
        self._depthwise_conv, self._bn1 = SameConv(middle, middle, kernel, stride, middle, bias=False), _norm(middle)
        self._project_conv, self._bn2 = SameConv(middle, outside, 1, bias=False), _norm(outside)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu6(self._bn0(self._expand_conv(x))) if self.widens else x
        y = F.relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return torch.add(x, y) if self.adds else y


class EfficientNetLite(nn.Module):
    """Normalised pixels (pictures, 3, side, side) to features (pictures, 1280). Names are the checkpoint's."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        width, depth = _SCALES[kind]
        self._conv_stem, self._bn0 = SameConv(3, _STEM, 3, 2, bias=False), _norm(_STEM)
        blocks, channels = [], _STEM
        for number, (repeats, kernel, stride, expansion, out) in enumerate(_STAGES):
            outside = _round_channels(out, width)
            # The first and the last stage are not deepened in the Lite variants.
            deep = repeats if number in (0, len(_STAGES) - 1) else math.ceil(depth * repeats)
            for repeat in range(deep):
                blocks.append(_MBConv(channels, outside, kernel, 1 if repeat else stride, expansion))
                channels = outside
        self._blocks = nn.ModuleList(blocks)
        self._conv_head, self._bn1 = SameConv(channels, _FEATURES, 1, bias=False), _norm(_FEATURES)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the features."""
        x = F.relu6(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        return F.relu6(self._bn1(self._conv_head(x))).mean((2, 3))


_PAIRS = {
    EfficientNetLite: (("_conv_stem", "_bn0"), ("_conv_head", "_bn1")),
    _MBConv: (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")),
}


def _fold_norms(network: nn.Module) -> None:
    """Folds each batch norm into the convolution before it: the same function, a quarter faster with channels last."""
    for layer in list(network.modules()):
        for conv, norm in _PAIRS.get(type(layer), ()):
            if hasattr(layer, conv):
                setattr(layer, conv, fuse_conv_bn_eval(getattr(layer, conv), getattr(layer, norm)))
                setattr(layer, norm, nn.Identity())


class _OnPixels(nn.Module):
    """The network with what is done to pixels before it: (pictures, side, side, 3) uint8 to (pictures, 1280)."""

    def __init__(self, network: EfficientNetLite) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the features."""
        normalised = (pixels.permute(0, 3, 1, 2).float() - 127.0) / 128.0
        found: Tensor = self.network(normalised.contiguous(memory_format=torch.channels_last))
        return found


def load_encoder(spec: ModuleSpec) -> VisionEncoder:
    """Builds class `efficientnet-lite` from the checkpoint's weights without its `_fc`.

    Raises:
        ModuleFailedError: The checkpoint is missing, damaged, or of another variant.
    """
    config = read_config(spec, EfficientNetConfig)
    with torch.device("meta"):
        network = EfficientNetLite(config.kind)
    fill(network, read_pth(wheel_file(spec.source, "models/*.pth"), lambda key: not key.startswith("_fc.")), spec.id)
    _fold_norms(network)
    put_into(network, spec.dtype)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return VisionEncoder(TorchNetwork(_OnPixels(network), ["pixels"], ["features"]), config.pixels)


def export_encoder(module: VisionEncoder) -> Export:
    """Returns what goes into the module's exported part."""
    random = np.random.default_rng(0)
    samples = [random.integers(0, 256, (n, module.side, module.side, 3), np.uint8) for n in (1, 3)]
    network: TorchNetwork = module.network  # type: ignore[assignment]  # built above
    return Export({"model": ExportedNetwork(network, [{"pixels": one} for one in samples], {"pixels": [0]})})
