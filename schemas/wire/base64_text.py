"""Reads base64 in the forms that tools, browsers and devices write. Pure."""

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

__all__ = ["decode_base64", "file_in"]

_BLANKS = str.maketrans("", "", " \t\r\n\f\v")
_URL_SAFE = str.maketrans("-_", "+/")
#: How base64 begins where a file was expected. So many bytes of no picture and no sound are all of this alphabet.
_BEGINNING = re.compile(rb"(?:\xef\xbb\xbf)?[\s\"']*(?:data:|begin-base64 |[A-Za-z0-9+/_\-\s]{64})", re.IGNORECASE)
#: What JSON inside JSON and editors leave around a text.
_AROUND = " \t\r\n\f\v\"'\ufeff"
#: First line of what certutil and uuencode write; the last one is `-----END …` or `====`.
_ARMOUR = re.compile(r"(?:-----BEGIN |begin-base64 )[^\r\n]{0,200}[\r\n]")


def decode_base64(text: str) -> tuple[bytes, str | None]:
    """Returns the bytes that a text stands for, and the media type if the text is a `data:` URL that names one.

    Line breaks and blanks (RFC 2045), the URL-safe alphabet (RFC 4648, section 5), missing padding, quotes around it
    and the first and last line of certutil and uuencode are accepted, and so is a `data:` URL (RFC 2397) with base64 or
    percent-encoded data.

    Raises:
        ValueError: The text has other characters, or its length cannot be that of base64.
    """
    media_type = None
    text = text.strip(_AROUND)
    if armour := _ARMOUR.match(text):
        text = text[armour.end() :].partition("-----END")[0]
    if text[:5].lower() == "data:":
        head, comma, text = text[5:].partition(",")
        if not comma:
            raise ValueError("a data: URL without a comma")
        media_type, _, is_base64 = head.rpartition(";") if head.lower().endswith(";base64") else (head, "", "")
        media_type = media_type.strip() or None
        if not is_base64:
            return unquote_to_bytes(text), media_type
        if "%" in text:  # a URL may spell +, / and = so
            text = unquote_to_bytes(text).decode("latin-1")
    digits = text.translate(_BLANKS).translate(_URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True), media_type
    except binascii.Error as error:
        raise ValueError(str(error)) from error


def file_in(data: bytes) -> tuple[bytes, str | None]:
    """Returns the file that a payload stands for, and its media type if the payload is a `data:` URL that names one.

    A payload that is base64 text from beginning to end is decoded; any other is the file itself.
    """
    if _BEGINNING.match(data) is None:
        return data, None
    try:
        return decode_base64(data.decode())
    except ValueError:
        return data, None
