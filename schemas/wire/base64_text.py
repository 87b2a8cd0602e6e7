"""Reads base64 in the forms that tools, browsers and devices write. Pure."""

import base64
import binascii
from urllib.parse import unquote_to_bytes

__all__ = ["decode_base64"]

_BLANKS = str.maketrans("", "", " \t\r\n\f\v")
_URL_SAFE = str.maketrans("-_", "+/")


def decode_base64(text: str) -> tuple[bytes, str | None]:
    """Returns the bytes that a text stands for, and the media type if the text is a `data:` URL that names one.

    Line breaks and blanks (RFC 2045), the URL-safe alphabet (RFC 4648, section 5) and missing padding are accepted, and
    so is a `data:` URL (RFC 2397) with base64 or percent-encoded data.

    Raises:
        ValueError: The text has other characters, or its length cannot be that of base64.
    """
    media_type = None
    if text[:5].lower() == "data:":
        head, comma, text = text[5:].partition(",")
        if not comma:
            raise ValueError("a data: URL without a comma")
        media_type, _, is_base64 = head.rpartition(";") if head.lower().endswith(";base64") else (head, "", "")
        media_type = media_type.strip() or None
        if not is_base64:
            return unquote_to_bytes(text), media_type
    digits = text.translate(_BLANKS).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True), media_type
    except binascii.Error as error:
        raise ValueError(str(error)) from error
