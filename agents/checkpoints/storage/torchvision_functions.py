"""Image processors that transformers has for the package torchvision alone, without that package.

torchvision does not import beside every torch. The processors call a few functions of it, which torch has itself: those
are here, number for number. tests/families/test_torchvision.py holds them against torchvision.
"""

import platform
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from importlib import import_module
from itertools import pairwise
from types import ModuleType
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import image_processing_backends as backends

__all__ = ["class_over_torch"]

_Tensor = torch.Tensor
_FUNCTIONAL = "torchvision.transforms.v2.functional"
#: Instruction sets and machines with which torch resizes bytes bilinearly as bytes.
_BYTEWISE, _ARM = ("AVX2", "AVX512"), ("aarch64", "arm64")


class InterpolationMode(Enum):
    """torchvision's names of torch's ways of resizing."""

    NEAREST_EXACT = "nearest-exact"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    #: transformers asks whether it is this one, and takes BICUBIC instead.
    LANCZOS = "lanczos"


def class_over_torch(name: str) -> Any:
    """Returns the class of an image processor of OVER_TORCH, which transformers hides where torchvision is missing."""
    with _in_the_place_of_torchvision():
        home = transformers._class_to_module[name]  # noqa: SLF001  # where the hidden class is
        return getattr(import_module(f"transformers.{home}"), name)


@contextmanager
def _in_the_place_of_torchvision() -> Iterator[None]:
    """Context in which a module of transformers may import the functions below as torchvision's."""
    made: Any = ModuleType(_FUNCTIONAL)
    for function in (resize, normalize, pad, crop, pil_to_tensor):
        setattr(made, function.__name__, function)
    made.InterpolationMode = InterpolationMode
    if backends.pil_torch_interpolation_mapping is None:
        shared = [mode.name for mode in InterpolationMode if mode.name in Image.Resampling.__members__]
        ways = {Image.Resampling[name]: InterpolationMode[name] for name in shared}
        backends.pil_torch_interpolation_mapping = {Image.Resampling.NEAREST: InterpolationMode.NEAREST_EXACT, **ways}
        backends.torch_pil_interpolation_mapping = {v: k for k, v in backends.pil_torch_interpolation_mapping.items()}
        backends.tvF = made
    names = ["torchvision", "torchvision.transforms", "torchvision.transforms.v2"]
    parents = {name: ModuleType(name) for name in names}
    inner = [*parents.values(), made]
    for holder, child in pairwise(inner):
        setattr(holder, child.__name__.rpartition(".")[2], child)
    sys.modules |= {**parents, _FUNCTIONAL: made}
    try:
        yield
    finally:
        for name in (*names, _FUNCTIONAL):
            del sys.modules[name]


def resize(
    image: _Tensor,
    size: Sequence[int],
    interpolation: InterpolationMode = InterpolationMode.BILINEAR,
    *,
    antialias: bool = True,
) -> _Tensor:
    """Returns pictures (…, channels, height, width) at another (height, width)."""
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    smooth = interpolation in (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)
    same = image.is_floating_point() or (image.dtype == torch.uint8 and _takes_bytes(interpolation))
    given = image if same else image.float()
    found = torch.nn.functional.interpolate(
        given.reshape(-1, *image.shape[-3:]),
        list(size),
        mode=interpolation.value,
        align_corners=False if smooth else None,
        antialias=antialias and smooth,
    )
    return (found if same else found.clamp(0, 255).round().to(image.dtype)).reshape(*image.shape[:-2], *size)


def _takes_bytes(interpolation: InterpolationMode) -> bool:
    """Whether torch resizes bytes as bytes; bilinearly it does so for some processors alone."""
    is_fast = torch.backends.cpu.get_cpu_capability() in _BYTEWISE or platform.machine() in _ARM
    return is_fast or interpolation is not InterpolationMode.BILINEAR


def normalize(image: _Tensor, mean: Any, std: Any, *, inplace: bool = False) -> _Tensor:
    """Returns pictures of floats with each channel's mean taken off, divided by its deviation."""
    less, by = (torch.as_tensor(given, dtype=image.dtype, device=image.device) for given in (mean, std))
    less, by = (one.view(-1, 1, 1) if one.ndim == 1 else one for one in (less, by))
    return (image.sub_(less) if inplace else image.sub(less)).div_(by)


def pad(
    image: _Tensor, padding: Sequence[int], fill: float | Sequence[float] | None = 0, padding_mode: str = "constant"
) -> _Tensor:
    """Returns pictures with (left, top, right, bottom) more pixels of one value, or of one for each channel."""
    left, top, right, bottom = padding
    if padding_mode != "constant":
        raise ValueError(f"a picture is padded with {padding_mode}, which needs the package torchvision")
    if isinstance(fill, Sequence) and len(fill) > 1:
        channels = zip(torch.split(image, 1, dim=-3), fill, strict=True)
        return torch.cat([pad(channel, padding, value) for channel, value in channels], dim=-3)
    value = float((fill[0] if isinstance(fill, Sequence) else fill) or 0)
    flat = image.reshape(-1, *image.shape[-3:])
    found = torch.nn.functional.pad(flat, [left, right, top, bottom], value=value)
    return found.reshape(*image.shape[:-2], *found.shape[-2:])


def crop(image: _Tensor, top: int, left: int, height: int, width: int) -> _Tensor:
    """Returns a rectangle of pictures, which lies inside them."""
    return image[..., top : top + height, left : left + width]


def pil_to_tensor(picture: Image.Image) -> _Tensor:
    """Returns a picture in RGB as bytes, (3, height, width)."""
    return (
        torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
        .view(picture.height, picture.width, 3)
        .permute(2, 0, 1)
    )
