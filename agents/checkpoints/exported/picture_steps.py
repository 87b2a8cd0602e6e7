"""What a checkpoint's image processor does to pictures, with Pillow and numpy alone.

The operations and their order are those of transformers' PilBackend, so that the pixels are equal bit for bit; an
export is refused where they are not (pictures_export.py).
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
from PIL import Image

from s2m3.agents.modules.ports import Config
from s2m3.agents.runtimes.network import Array
from s2m3.schemas.errors import BadInputError

__all__ = ["PictureSteps", "Side"]

#: (height, width), pixels.
Side = tuple[int, int]


class PictureSteps(Config):
    """The steps from a picture in RGB to a network's pixels; a step that is None is left out.

    Args:
        shortest: Pixels of the shorter side after resizing; the ratio of the sides stays.
        longest: Pixels of the longer side that this does not exceed: the shorter side is then shorter.
        resized: (height, width) after resizing, whatever the ratio was.
        resample: Pillow's number of the way of resizing.
        crop: (height, width) of what is cut out of the middle; what is too small gets a black frame.
        scale: Factor on the bytes.
        mean: Of each channel, subtracted.
        deviation: Of each channel, divided by.
    """

    shortest: int | None = None
    longest: int | None = None
    resized: Side | None = None
    resample: int = int(Image.Resampling.BILINEAR)
    crop: Side | None = None
    scale: float | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None

    @property
    def size(self) -> Side | None:
        """(height, width) of every prepared picture; None if it depends on the picture."""
        return self.crop or self.resized

    def __call__(self, pictures: Sequence[Image.Image]) -> Array:
        """Returns the pixels of pictures in RGB, (pictures, 3, height, width), float32 if scaled.

        Raises:
            BadInputError: A picture of which nothing is left, or pictures that become different in size.
        """
        try:
            return np.stack([self._pixels(picture) for picture in pictures])
        except (ValueError, ZeroDivisionError) as error:
            raise BadInputError(f"the picture cannot be prepared: {error}"[:200]) from error

    def _pixels(self, picture: Image.Image) -> Array:
        target = self.resized
        if self.shortest is not None:
            target = (
                _bounded(picture, self.shortest, self.longest) if self.longest else _shortened(picture, self.shortest)
            )
        if target is not None:
            picture = picture.resize((target[1], target[0]), Image.Resampling(self.resample))
        pixels = np.moveaxis(np.array(picture), -1, 0)
        pixels = pixels if self.crop is None else _cropped(pixels, *self.crop)
        if self.scale is not None:
            pixels = (pixels.astype(np.float64) * self.scale).astype(np.float32)
        if self.mean is None or self.deviation is None:
            return pixels
        pixels = pixels if np.issubdtype(pixels.dtype, np.floating) else pixels.astype(np.float32)
        mean, deviation = (np.array(given, pixels.dtype)[:, None, None] for given in (self.mean, self.deviation))
        normalised: Array = (pixels - mean) / deviation
        return normalised


def _resized(picture: Image.Image, shortest: int, longest: int | None) -> Side:
    """Returns the (height, width) of a picture whose sides are to have so many pixels; see PictureSteps."""
    return _shortened(picture, shortest) if longest is None else _bounded(picture, shortest, longest)


def _shortened(picture: Image.Image, shortest: int) -> Side:
    """Returns the (height, width) of a picture whose shorter side is to have so many pixels."""
    short, long = min(picture.size), max(picture.size)
    longest = int(shortest * long / short)
    return (longest, shortest) if picture.width <= picture.height else (shortest, longest)


def _bounded(picture: Image.Image, shortest: int, longest: int) -> Side:
    """Returns the (height, width) of a picture both of whose sides are bounded, rounded as transformers rounds it."""
    short, long = float(min(picture.size)), float(max(picture.size))
    exact = float(shortest)
    if long / short * shortest > longest:
        exact = longest * short / long
        shortest = round(exact)
    if min(picture.size) == shortest:
        return picture.height, picture.width
    other = int(exact * max(picture.size) / min(picture.size))
    return (other, shortest) if picture.width < picture.height else (shortest, other)


def _cropped(pixels: Array, height: int, width: int) -> Array:
    """Returns the middle of pixels (channels, rows, columns), in a black frame where they are too few."""
    channels, rows, columns = pixels.shape
    top, left = (rows - height) // 2, (columns - width) // 2
    if top >= 0 and left >= 0:
        return pixels[:, top : top + height, left : left + width]
    framed = np.zeros((channels, max(height, rows), max(width, columns)), pixels.dtype)
    above, before = ceil((framed.shape[1] - rows) / 2), ceil((framed.shape[2] - columns) / 2)
    framed[:, above : above + rows, before : before + columns] = pixels
    top, left = top + above, left + before
    return framed[:, max(0, top) : top + height, max(0, left) : left + width]
