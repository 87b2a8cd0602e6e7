"""Draws boxes and their labels on a picture file. It decides nothing: which boxes there are is an answer's business."""

import io
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import ImageDraw, ImageFont

from s2m3.agents.media.pictures import decode_with_size
from s2m3.schemas.errors import BadInputError

__all__ = ["FORMATS", "draw_boxes"]

#: Suffix of a file -> Pillow's name of its format.
FORMATS: Mapping[str, str] = {".jpg": "JPEG", ".jpeg": "JPEG", ".png": "PNG", ".webp": "WEBP"}
_QUALITY = 90
#: Colours of labels, one after the other: seen on most pictures and, with black letters on them, read.
_COLOURS = ("#ffd400", "#3ddc84", "#4db8ff", "#ff7fb0", "#ff9f40", "#c9a0ff", "#7fe5e5", "#c5e84d")
#: Shorter side of a picture per pixel of a line's width and of a letter's height, and the least of each.
_LINE, _THINNEST, _LETTER, _SMALLEST = 200, 2, 30, 11
#: Boxes that are drawn, the best first: more hide the picture.
_MOST = 100


def draw_boxes(picture: bytes, boxes: Sequence[Mapping[str, Any]], form: str = "JPEG", need: int = 1 << 16) -> bytes:
    """Returns a picture file with boxes on it, upright.

    Args:
        picture: The file that was sent.
        boxes: As the kind `boxes` has them (schemas/wire/values.py), in pixels of that picture.
        form: The format of the new file: a value of FORMATS.
        need: Pixels per side that are enough, as of decode_picture: a larger picture comes smaller.

    Raises:
        BadInputError: As decode_picture.
    """
    image, (width, height) = decode_with_size(picture, need)
    draw = ImageDraw.Draw(image)
    line = max(_THINNEST, min(image.size) // _LINE)
    font = ImageFont.load_default(max(_SMALLEST, min(image.size) // _LETTER))
    colours: dict[str, str] = {}
    scale = (image.width / width, image.height / height)
    for box in reversed(boxes[:_MOST]):  # the best one last, on top of the others
        colour = colours.setdefault(box["label"], _COLOURS[len(colours) % len(_COLOURS)])
        corners = _within(box["box"], scale, image.size)
        draw.rectangle(corners, outline=colour, width=line)
        _write(draw, f"{box['label']} {box['score']:.2f}", corners, colour, font)
    file = io.BytesIO()
    try:
        image.save(file, form, quality=_QUALITY)
    except (OSError, ValueError) as error:  # e.g. a JPEG of more than 65535 pixels a side
        raise BadInputError(f"the picture cannot be written as {form}: {error}") from error
    return file.getvalue()


def _within(
    box: Sequence[float], scale: tuple[float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Returns the corners in pixels of the smaller picture: within it, left of right and top above bottom."""
    across = sorted(min(max(x * scale[0], 0.0), size[0] - 1.0) for x in (box[0], box[2]))
    down = sorted(min(max(y * scale[1], 0.0), size[1] - 1.0) for y in (box[1], box[3]))
    return across[0], down[0], across[1], down[1]


def _write(
    draw: ImageDraw.ImageDraw,
    text: str,
    corners: tuple[float, float, float, float],
    colour: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """Writes a label on its box's upper edge; below that edge where there is no room above."""
    plain = "".join(letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.combining(letter))
    shown = plain.encode("ascii", errors="replace").decode()  # what Pillow's own font has letters for
    left, top, right, bottom = draw.textbbox((0, 0), shown, font=font)
    height = bottom - top + 4
    x, y = corners[0], corners[1] - height if corners[1] >= height else corners[1]
    draw.rectangle((x, y, x + right - left + 6, y + height), fill=colour)
    draw.text((x + 3 - left, y + 2 - top), shown, fill="black", font=font)
