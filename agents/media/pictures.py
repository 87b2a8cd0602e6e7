"""Picture files to pixels: one file, checked and bounded before it is decoded, as one small square of RGB bytes."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.util import find_spec

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageChops, UnidentifiedImageError

from s2m3.agents.media.formats import PICTURES, format_of, told_as_text, unwrapped
from s2m3.agents.media.headers import (
    PictureFacts,
    check_picture,
    decoding_bytes,
    picture_facts,
    scale_of,
    shorter_side,
)
from s2m3.agents.media.jpeg import Jpeg, endings
from s2m3.agents.memory import reserved_for_decoding
from s2m3.schemas.errors import BadInputError

__all__ = ["check_ratio", "decode_picture", "decode_with_size", "on_white", "square_pixels", "without_alpha"]

Image.init()  # else Pillow does not know all of its formats by name
#: What is too large is refused before Pillow opens it (headers.py), by rules that know the format.
Image.MAX_IMAGE_PIXELS = None
#: Pillow's names of what differs from ours. Its other plugins are not offered bytes from strangers.
_PILLOW = {"HEIC": "HEIF"}
#: Room left around the picture: its longer side fills this part of the square.
_FILL = 1 / 1.1
_WHITE = (255, 255, 255)
#: Most pixels of one side per pixel of the other where a processor makes the shorter side as long as a network wants.
_RATIO = 200
#: Pixels that are put on white and made smaller at once.
_STRIP = 250_000
#: What Pillow's decoders raise for files that are cut off or damaged.
_BROKEN = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error, zlib.error, UnidentifiedImageError)
#: EXIF orientation -> what puts the picture upright.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Of these, the ones that exchange width and height.
_ON_ITS_SIDE = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))


@dataclass(frozen=True, slots=True)
class _Decoding:
    """How one picture is decoded: its format, pixels per side that are enough, bytes that may be taken, way to RGB."""

    form: str
    need: int
    room: int
    facts: PictureFacts | None
    to_rgb: Callable[[Image.Image], Image.Image]


def on_white(image: Image.Image) -> Image.Image:
    """Returns a picture in RGB: transparent parts white, 16-bit greys scaled to 8."""
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = Image.new("RGBA", image.size, (*_WHITE, 255))
        layered.alpha_composite(image.convert("RGBA"))
        return layered.convert("RGB")
    return image.convert("RGB")


def without_alpha(image: Image.Image) -> Image.Image:
    """Returns a picture in RGB as transformers' load_image does: the colours under the alpha, 16-bit greys clipped.

    The picture that is given loses what it says of transparency: Pillow would warn that this is lost.
    """
    image.info.pop("transparency", None)
    return image.convert("RGB")


def decode_picture(
    data: bytes, need: int, to_rgb: Callable[[Image.Image], Image.Image] = on_white, *, longer: bool = False
) -> Image.Image:
    """Returns the first frame of a picture file, upright, in RGB.

    Args:
        data: The file; blank bytes and MIME headers before it are passed over.
        need: Pixels per side that are enough: a larger picture comes at a half, quarter or eighth of its size, as long
            as that is no smaller than this.
        to_rgb: Makes RGB of a part of the picture, of whichever mode the file has.
        longer: Whether `need` counts for the longer side alone: the picture is fitted whole into a square.

    Raises:
        BadInputError: Not a picture, cut off, damaged, of a format whose package is missing; or (found before decoding)
            of more pixels, scans or memory than headers.py allows.
    """
    return decode_with_size(data, need, to_rgb, longer=longer)[0]


def decode_with_size(
    data: bytes, need: int, to_rgb: Callable[[Image.Image], Image.Image] = on_white, *, longer: bool = False
) -> tuple[Image.Image, tuple[int, int]]:
    """Returns what decode_picture returns, and (width, height) of the upright picture in the file, pixels.

    Args:
        data: As of decode_picture.
        need: As of decode_picture.
        to_rgb: As of decode_picture.
        longer: As of decode_picture.

    Raises:
        BadInputError: As decode_picture.
    """
    file = unwrapped(data)
    form = format_of(file)
    if form not in PICTURES:
        known = ", ".join(PICTURES)
        raise BadInputError(f"not a picture: {len(data)} bytes that are none of {known}{told_as_text(data)}")
    _need_decoder(form)
    facts = picture_facts(file, form)
    if longer and facts is not None:
        need = shorter_side(facts.width, facts.height, need)
    with reserved_for_decoding(decoding_bytes(facts, need) if facts is not None else None) as room:
        job = _Decoding(form, need, room, facts, to_rgb)
        if facts is not None:
            check_picture(facts, need, room)
        try:
            jpeg = facts.jpeg if facts is not None else None
            return _decoded(file, job) if jpeg is None else _whole_jpeg(file, jpeg, job)
        except _BROKEN as error:
            raise BadInputError(f"the picture cannot be decoded: {_reason(error)}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):  # its text holds the address of our buffer
        return "its header is damaged"
    return str(error)


def _need_decoder(form: str) -> None:
    """Makes Pillow know the format.

    Raises:
        BadInputError: The package that decodes it is not installed.
    """
    if form == "HEIC" and "HEIF" not in Image.OPEN:
        if find_spec("pillow_heif") is None:
            raise BadInputError("a HEIC picture is read with the package pillow-heif (pip install s2m3[agent])")
        import_module("pillow_heif").register_heif_opener()
    if _PILLOW.get(form, form) not in Image.OPEN:
        raise BadInputError(f"the Pillow that is installed here does not read {form} pictures")


def _whole_jpeg(data: bytes, found: Jpeg, job: _Decoding) -> tuple[Image.Image, tuple[int, int]]:
    """Decodes a JPEG; one without its end marker must come out the same whatever follows."""
    if found.ended:
        return _decoded(data, job)
    first, *others = endings(data, found)
    picture, size = _decoded(first, job)
    for other in others:
        if ImageChops.difference(picture, _decoded(other, job)[0]).getbbox() is not None:
            raise BadInputError("the picture cannot be decoded: it is truncated, the last part of the JPEG is missing")
    return picture, size


def _decoded(data: bytes, job: _Decoding) -> tuple[Image.Image, tuple[int, int]]:
    image: Image.Image = Image.open(io.BytesIO(data), formats=(_PILLOW.get(job.form, job.form),))
    facts = job.facts or PictureFacts(job.form, image.width, image.height)
    # once more: a frame may be larger than the file's header says
    check_picture(replace(facts, width=image.width, height=image.height), job.need, job.room)
    written = image.size
    is_drafted = image.draft("RGB", (job.need, job.need)) is not None
    image.load()
    width, height = written if is_drafted else image.size  # load turns a TIFF
    orientation = image.getexif().get(ExifTags.Base.Orientation)  # after load, which turns a TIFF and says so there
    upright = _TURNS.get(orientation) if isinstance(orientation, int) else None
    small = _reduced(image, job)
    if upright is None:
        return small, (width, height)
    return small.transpose(upright), (height, width) if upright in _ON_ITS_SIDE else (width, height)


def _reduced(image: Image.Image, job: _Decoding) -> Image.Image:
    """Returns the picture in RGB, smaller where the job allows, made strip by strip: no second copy of a large one."""
    factor = scale_of(image.width, image.height, job.need)
    if factor == 1 and image.mode == "RGB":
        return image
    small = Image.new("RGB", (-(-image.width // factor), -(-image.height // factor)))
    rows = max(1, _STRIP // (image.width * factor)) * factor
    for top in range(0, image.height, rows):
        strip = job.to_rgb(image.crop((0, top, image.width, min(image.height, top + rows))))
        small.paste(strip if factor == 1 else strip.reduce(factor), (0, top // factor))
    return small


def check_ratio(image: Image.Image) -> None:
    """Refuses a picture that is a line: a processor that enlarges its shorter side would take gigabytes.

    Raises:
        BadInputError: One side is more than 200 times the other.
    """
    if max(image.size) > _RATIO * min(image.size):
        raise BadInputError(f"the picture of {image.width} x {image.height} pixels is a line, and cannot be prepared")


def square_pixels(data: bytes, side: int) -> npt.NDArray[np.uint8]:
    """Returns a picture file as (side, side, 3) uint8: fitted whole into a white square, with a margin.

    Shrinking first and then padding keeps the memory bounded: a square as wide as a 50000 x 1000 panorama would take
    7 GB. The margin was measured to do better on EfficientNet-Lite than a centre crop.

    Raises:
        BadInputError: As decode_picture.
    """
    image = decode_picture(data, 2 * side, longer=True)
    scale = side * _FILL / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    square = Image.new("RGB", (side, side), _WHITE)
    fitted = image.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(fitted, ((side - width) // 2, (side - height) // 2))
    return np.asarray(square)
