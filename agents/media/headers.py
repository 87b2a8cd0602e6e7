"""What the header of a picture file says, and whether that may be decoded: sizes, passes, memory. Pure."""

import struct
from collections.abc import Callable
from dataclasses import dataclass, field

from s2m3.agents.media.jpeg import Jpeg, read_jpeg
from s2m3.schemas.errors import BadInputError

__all__ = [
    "MAX_PASSES",
    "MAX_PIXELS",
    "MAX_SCALED_PIXELS",
    "PictureFacts",
    "check_picture",
    "decoding_bytes",
    "picture_facts",
    "scale_of",
    "shorter_side",
]

#: Largest picture that is decoded whole, and largest JPEG that is decoded at a part of its size.
MAX_PIXELS, MAX_SCALED_PIXELS = 52_000_000, 120_000_000
#: Scans of a JPEG: encoders write 1 to about 20. Pixels x scans: 10 scans of the largest picture, about 3 s.
MAX_PASSES, _MAX_WORK = 64, 600_000_000
#: Bytes per pixel that each format's decoder takes at its highest, the finished picture included. Measured.
_BYTES = {"JPEG": 4.0, "PNG": 4.0, "GIF": 2.0, "BMP": 4.0, "TIFF": 8.0, "WEBP": 16.0, "AVIF": 12.0, "HEIC": 10.0}
_COEFFICIENT_BYTES = 2.0
#: Bytes of the oldest BMP header, and sizes that are looked at in one AVIF or HEIC file.
_OS2_HEADER, _MAX_SIZES = 12, 1_000
_SCALES = (8, 4, 2)
_MB = 1_000_000


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """What a picture's header says.

    Args:
        form: The format's name.
        width: Pixels.
        height: Pixels.
        passes: How often a decoder goes over the picture: scans of a JPEG, 1 of other formats.
        kept: Bytes per pixel that a decoder keeps besides the picture: coefficients of a JPEG of several scans.
        decodings: How often the picture is decoded: a JPEG without its end marker three times (jpeg.py).
        jpeg: What the markers of a JPEG say; None of other formats.
    """

    form: str
    width: int
    height: int
    passes: int = 1
    kept: float = 0.0
    decodings: int = 1
    jpeg: Jpeg | None = field(default=None, compare=False)


def picture_facts(data: bytes, form: str) -> PictureFacts | None:
    """Returns the facts of a picture file; None of a TIFF, whose header Pillow reads without decoding anything.

    Raises:
        BadInputError: The header is cut off or damaged.
    """
    if form not in _READERS:
        return None
    try:
        found = _READERS[form](data)
    except (struct.error, IndexError) as error:
        raise BadInputError(f"the picture cannot be decoded: the header of the {form} file is cut off") from error
    if found is None:
        raise BadInputError(f"the picture cannot be decoded: the header of the {form} file is damaged")
    return found


def scale_of(width: int, height: int, need: int) -> int:
    """Returns 1, 2, 4 or 8: by how much both sides can be divided and still have `need` pixels."""
    fits = min(width, height) // max(1, need)
    return next((scale for scale in _SCALES if scale <= fits), 1)


def shorter_side(width: int, height: int, longer: int) -> int:
    """Returns the pixels of a picture's shorter side, rounded up, once its longer side has `longer` pixels."""
    return max(1, -(-longer * min(width, height) // max(width, height, 1)))


def decoding_bytes(facts: PictureFacts, need: int) -> int:
    """Returns what decoding takes at its highest, in bytes.

    Args:
        facts: Of the header.
        need: Pixels per side that are enough (see `scale_of`).
    """
    pixels, scale = facts.width * facts.height, scale_of(facts.width, facts.height, need)
    small = pixels / scale**2 * 4 * facts.decodings
    if facts.form == "JPEG":
        return int(small + pixels * facts.kept)
    return int(pixels * (_BYTES.get(facts.form, 8.0) + facts.kept) + small)


def check_picture(facts: PictureFacts, need: int, room_bytes: int) -> None:
    """Refuses a picture that must not be decoded.

    Args:
        facts: Of the header.
        need: Pixels per side that are enough.
        room_bytes: What decoding may take.

    Raises:
        BadInputError: Too many pixels, too many scans, or more memory than there is room for; the text has the numbers.
    """
    pixels, size = facts.width * facts.height, f"{facts.width} x {facts.height} pixels"
    scaled = facts.form == "JPEG" and facts.kept == 0 and scale_of(facts.width, facts.height, need) > 1
    most = MAX_SCALED_PIXELS if scaled else MAX_PIXELS
    if pixels > most:
        megapixels = f"{pixels / _MB:.0f} megapixels"
        raise BadInputError(f"the picture is too large: {size} ({megapixels}); at most {most // _MB} megapixels")
    if facts.passes > MAX_PASSES:
        raise BadInputError(f"the picture has {facts.passes} scans or more; at most {MAX_PASSES}")
    if pixels * facts.passes * facts.decodings > _MAX_WORK:
        raise BadInputError(
            f"the picture has {facts.passes} scans of {size}; at most {_MAX_WORK // _MB} million pixels in all scans"
        )
    if (takes := decoding_bytes(facts, need)) > room_bytes:
        raise BadInputError(
            f"the picture is too large for this node: {size} take {takes // _MB} MB to decode, "
            f"{room_bytes // _MB} MB can be had"
        )


def _jpeg(data: bytes) -> PictureFacts:
    found = read_jpeg(data)
    several = found.progressive or found.scans > 1
    kept = found.samples * _COEFFICIENT_BYTES if several else 0.0
    return PictureFacts("JPEG", found.width, found.height, max(1, found.scans), kept, 1 if found.ended else 3, found)


def _png(data: bytes) -> PictureFacts:
    width, height = struct.unpack_from(">II", data, 16)
    return PictureFacts("PNG", width, height)


def _gif(data: bytes) -> PictureFacts:
    width, height = struct.unpack_from("<HH", data, 6)
    return PictureFacts("GIF", width, height)


def _bmp(data: bytes) -> PictureFacts:
    old = struct.unpack_from("<I", data, 14)[0] == _OS2_HEADER
    width, height = struct.unpack_from("<HH" if old else "<ii", data, 18)
    return PictureFacts("BMP", abs(width), abs(height))


def _webp(data: bytes) -> PictureFacts | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width, height = (1 + int.from_bytes(data[at : at + 3], "little") for at in (24, 27))
    elif kind == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
    else:
        return None
    return PictureFacts("WEBP", width, height)


def _iso(form: str, data: bytes) -> PictureFacts | None:
    """AVIF and HEIC: the largest of the `ispe` properties (of the picture, its tiles, its thumbnail)."""
    sizes: list[tuple[int, int]] = []
    at = data.find(b"ispe")
    while at >= 0 and len(sizes) < _MAX_SIZES:
        sizes.append(struct.unpack_from(">II", data, at + 8))
        at = data.find(b"ispe", at + 4)
    if not sizes:
        return None
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return PictureFacts(form, width, height)


_READERS: dict[str, Callable[[bytes], PictureFacts | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
    "WEBP": _webp,
    "AVIF": lambda data: _iso("AVIF", data),
    "HEIC": lambda data: _iso("HEIC", data),
}
