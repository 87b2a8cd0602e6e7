"""Picture files of a request to what a checkpoint's own processor takes and makes. No torch of its own."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from PIL import Image

from s2m3.agents.media.pictures import check_ratio, decode_with_size, without_alpha
from s2m3.agents.modules.slices import between_slices
from s2m3.schemas.errors import BadInputError

__all__ = ["Size", "prepared", "read_picture", "read_pictures"]

#: Pixels per side up to which a picture is decoded at its full size, as the checkpoint's own preprocessing gives it; of
#: one with twice as many on both sides a half is enough (12 megapixels from a camera stay whole, 50 do not).
_FULL = 2_048
#: (height, width), pixels.
Size = tuple[int, int]


def read_picture(data: bytes) -> tuple[Image.Image, Size]:
    """Returns a picture in RGB as transformers' load_image gives it, and the size of the upright picture in the file.

    Raises:
        BadInputError: It cannot be decoded, or is a line.
    """
    between_slices()
    picture, (width, height) = decode_with_size(data, _FULL, without_alpha)
    check_ratio(picture)
    return picture, (height, width)


def read_pictures(files: Sequence[bytes], most: int) -> list[Image.Image]:
    """Returns several pictures as `read_picture` gives them.

    Raises:
        BadInputError: They are more than `most`, or as read_picture.
    """
    if len(files) > most:
        raise BadInputError(f"{len(files)} pictures; at most {most}")
    return [read_picture(data)[0] for data in files]


def prepared(read: Callable[..., Mapping[str, Any]], *pictures: Any, **how: Any) -> dict[str, Any]:
    """Returns what a processor makes of pictures.

    Args:
        read: The processor.
        pictures: Its arguments.
        how: Further ones.

    Raises:
        BadInputError: It makes nothing of them.
    """
    try:
        return dict(read(*pictures, **how))
    except (ValueError, ZeroDivisionError) as error:  # e.g. one pixel wide: nothing is left of that side
        raise BadInputError(f"the picture cannot be prepared: {error}"[:200]) from error
