"""Makes a small JPEG of a picture file, for people to look at. It decides nothing."""

import io

from PIL import Image

from s2m3.agents.media.pictures import decode_with_size
from s2m3.schemas.errors import BadInputError

__all__ = ["thumbnail"]

#: Qualities of the JPEG, tried one after the other until the file is small enough.
_QUALITIES = (82, 70, 55, 40)
#: Pixels of the longer side of the smallest JPEG that is tried.
_SMALLEST = 16


def thumbnail(picture: bytes, side: int, most_bytes: int) -> tuple[bytes, tuple[int, int]]:
    """Returns a JPEG of a picture file, upright, and (width, height) of the upright picture in the file, pixels.

    Args:
        picture: The file.
        side: Most pixels of the JPEG's longer side.
        most_bytes: Most bytes of the JPEG.

    Raises:
        BadInputError: As decode_picture; or no JPEG of it is small enough.
    """
    image, size = decode_with_size(picture, side, longer=True)
    while max(image.size) >= _SMALLEST:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in _QUALITIES:
            file = io.BytesIO()
            image.save(file, "JPEG", quality=quality, optimize=True)
            if file.tell() <= most_bytes:
                return file.getvalue(), size
        side = max(image.size) // 2
    raise BadInputError(f"no JPEG of the picture has at most {most_bytes} bytes")
