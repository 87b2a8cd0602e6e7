"""Pictures of the history: small JPEGs, with the size of the original picture."""

from dataclasses import dataclass

import structlog

from s2m3.schemas import extras
from s2m3.schemas.errors import BadInputError

__all__ = ["SmallPicture", "small_picture"]

_log = structlog.get_logger(__name__)
#: Most pixels of the longer side, and most bytes: enough for a phone, and Mosquitto 2.0.11 delays larger messages on a
#: websocket.
_SIDE, _BYTES = 800, 56_000


@dataclass(frozen=True, slots=True)
class SmallPicture:
    """A JPEG, and (width, height) in pixels of the picture that it was made of; None if that is not known."""

    file: bytes
    size: tuple[int, int] | None


def small_picture(picture: bytes) -> SmallPicture | None:
    """Returns a small JPEG of a picture file; None if it cannot be decoded.

    Without Pillow (the extra `draw`) a file that is small already stays as it is, and larger ones are not kept.
    """
    if extras.missing("draw"):
        return SmallPicture(picture, None) if len(picture) <= _BYTES else None
    from s2m3.agents.media.thumbnails import thumbnail  # noqa: PLC0415  # Pillow, where there are pictures

    try:
        return SmallPicture(*thumbnail(picture, _SIDE, _BYTES))
    except BadInputError as error:
        _log.warning("picture_not_kept", because=str(error))
        return None
