"""Picture files to pixels: one file, checked and bounded before it is decoded, as one small square of RGB bytes."""

import io
import struct
import warnings
import zlib

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from s2m3.schemas.errors import BadInputError

__all__ = ["MAX_PIXELS", "decode_picture", "square_pixels"]

Image.init()  # else Pillow does not know all of its formats by name
#: What cameras, phones and browsers write. Pillow's other plugins are not offered bytes from strangers.
_FORMATS = tuple(name for name in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF") if name in Image.OPEN)
#: Largest picture decoded: a 50-megapixel photograph is 150 MB of RGB.
MAX_PIXELS = 50_000_000
#: Room left around the picture: its longer side fills this part of the square.
_FILL = 1 / 1.1
_WHITE = (255, 255, 255)
#: What Pillow's decoders raise for files that are cut off or damaged.
_BROKEN = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error, zlib.error)


def _open(data: bytes, need: int) -> Image.Image:
    """Opens a file and decodes its first frame, a JPEG at a scale that still has `need` pixels on each side."""
    image: Image.Image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise BadInputError(
            f"the picture is {image.width} x {image.height} pixels; at most {MAX_PIXELS // 1_000_000} megapixels"
        )
    image.draft("RGB", (need, need))
    image.load()
    return ImageOps.exif_transpose(image)


def _rgb(image: Image.Image) -> Image.Image:
    """Returns the picture in RGB: transparent parts white, 16-bit greys scaled to 8."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = Image.new("RGBA", image.size, (*_WHITE, 255))
        layered.alpha_composite(image.convert("RGBA"))
        return layered.convert("RGB")
    return image.convert("RGB")


def decode_picture(data: bytes, need: int) -> Image.Image:
    """Returns the first frame of a picture file, upright, in RGB.

    Args:
        data: The file.
        need: Pixels per side that are enough: a larger JPEG is decoded at a half, quarter or eighth of its size, as
            long as that is no smaller than this.

    Raises:
        BadInputError: Not a picture, cut off, damaged, or over MAX_PIXELS (found before decoding).
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _rgb(_open(data, need))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadInputError(f"the picture is too large: {error}") from error
    except UnidentifiedImageError as error:
        known = ", ".join(_FORMATS)
        raise BadInputError(f"not a picture: {len(data)} bytes that are none of {known}") from error
    except _BROKEN as error:
        raise BadInputError(f"the picture cannot be decoded: {error}") from error


def square_pixels(data: bytes, side: int) -> npt.NDArray[np.uint8]:
    """Returns a picture file as (side, side, 3) uint8: fitted whole into a white square, with a margin.

    Shrinking first and then padding keeps the memory bounded: a square as wide as a 50000 x 1000 panorama would take
    7 GB. The margin was measured to do better on EfficientNet-Lite than a centre crop.

    Raises:
        BadInputError: As decode_picture.
    """
    image = decode_picture(data, 2 * side)
    scale = side * _FILL / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    square = Image.new("RGB", (side, side), _WHITE)
    fitted = image.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(fitted, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)
