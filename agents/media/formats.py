"""Which picture or sound format a file has, by its first bytes, and where it begins in what a stream left. Pure."""

import re

__all__ = ["PICTURES", "format_of", "told_as_text", "unwrapped"]

#: First bytes -> format.
_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"fLaC", "FLAC"),
    (b"OggS", "Ogg"),
    (b"ID3", "MP3"),
    (b"FORM", "AIFF"),
    (b".snd", "AU"),
    (b"caff", "CAF"),
    (b"\x1aE\xdf\xa3", "WebM"),
    (b"#!AMR", "AMR"),
)
#: Formats inside RIFF, by the four bytes behind its length.
_RIFF = {b"WAVE": "WAV", b"WEBP": "WEBP"}
#: Brands of ISO base media files that are pictures; any other brand is an MP4 (m4a, 3gp).
_AVIF, _HEIC = {b"avif", b"avis"}, {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
PICTURES = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIC")
#: The first two bytes of a frame: twelve (MPEG 2.5: eleven) set bits; of AAC the layer is 0, of others it is not.
_AAC_FRAME, _MPEG_FRAME = re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), re.compile(rb"\xff[\xe2-\xe7\xf2-\xf7\xfa-\xff]")
#: Where the brand of an ISO base media file stands.
_ISO_BRAND = 4
#: Bytes of what is no file that are looked at.
_LOOKED_AT = 200
#: Bytes in front of a file that are looked through.
_HEAD = 8192
_BLANK = re.compile(rb"(?:\xef\xbb\xbf)?[\0\t\n\r ]*")
#: What stands before a file that was cut out of an HTTP stream: a boundary, a status line, a chunk's length, headers.
_HEADERS = re.compile(
    rb"(?P<boundary>--[^\r\n]{1,200}\r?\n)?(?:HTTP/1\.[01] [^\r\n]{1,200}\r?\n)?(?:[0-9A-Fa-f]{1,8}\r\n)?"
    rb"(?:[A-Za-z][A-Za-z0-9-]{0,60}:[^\r\n]{0,1000}\r?\n)*\r?\n|[0-9A-Fa-f]{1,8}\r\n"
)


def format_of(data: bytes) -> str | None:
    """Returns the format of a file; None for one that is not known."""
    for magic, name in _MAGIC:
        if data.startswith(magic):
            return name
    if data[:4] in (b"RIFF", b"RF64", b"BW64"):
        return _RIFF.get(data[8:12])
    if data.startswith(b"ftyp", _ISO_BRAND):
        return _iso_format(data)
    if _AAC_FRAME.match(data):
        return "AAC"
    return "MP3" if _MPEG_FRAME.match(data) else None


def told_as_text(data: bytes) -> str:
    """Returns the words that say which kind of text came instead of a file; none where it is no text.

    The text itself is not quoted: more people read errors than what was sent.
    """
    try:
        beginning = data[:_LOOKED_AT].decode()
    except UnicodeDecodeError as error:
        beginning = data[: error.start].decode() if error.reason == "unexpected end of data" else ""
    text = "".join(beginning.split())
    if not text or not text.isprintable():
        return ""
    if text[0] in "{[":
        return "; they are JSON, which goes to request/<task>"
    return "; they are HTML, as a camera's error page is" if text[0] == "<" else "; they are text"


def _iso_format(data: bytes) -> str:
    end = min(int.from_bytes(data[:4]), 256)
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, end, 4))}
    if brands & _AVIF:
        return "AVIF"
    return "HEIC" if data[8:12] in _HEIC or (brands & _HEIC and not data.startswith(b"M4A", 8)) else "MP4"


def unwrapped(data: bytes) -> bytes:
    """Returns a file without blank bytes, MIME or HTTP headers before it, and without the boundary behind it.

    A file whose format is known by its first bytes, and one of no known format, is returned as it is.
    """
    head, at, boundary = data[:_HEAD], 0, b""
    while at < len(head):
        if (start := _start(head, at)) is not None:
            return _without_boundary(data[start:], boundary) if start else data
        at = _blank_end(head, at)
        headers = _HEADERS.match(head, at)
        if headers is None:
            return data
        boundary = headers["boundary"] or boundary
        at = headers.end()
    return data


def _start(head: bytes, at: int) -> int | None:
    """Returns where a file of a known format begins, blank bytes passed over; None: not here."""
    blank = _blank_end(head, at)
    # the first bytes of an ISO base media file (its length) are blank themselves
    for start in (at, blank, head.find(b"ftyp", blank, blank + _ISO_BRAND + 1) - _ISO_BRAND):
        if at <= start <= blank and format_of(head[start:]):
            return start
    return None


def _blank_end(head: bytes, at: int) -> int:
    found = _BLANK.match(head, at)
    return found.end() if found else at


def _without_boundary(data: bytes, boundary: bytes) -> bytes:
    if not boundary:
        return data
    end = data.rfind(boundary.strip())
    return data[:end].removesuffix(b"\n").removesuffix(b"\r") if end > 0 else data
