"""The v5 properties of data plane messages, validated before use."""

import re
from collections.abc import Mapping

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.request_ids import REQUEST_ID_BYTES

__all__ = [
    "CONTENT_TYPE",
    "attempt_of",
    "check_content_type",
    "checked_request_id",
    "is_piece",
    "is_stop",
    "is_working",
    "number_in",
    "traceparent_of",
]

CONTENT_TYPE = "application/vnd.s2m3.v1+msgpack"
#: W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_DIGITS = 15


def number_in(user: Mapping[str, str], name: str, default: int) -> int:
    """Returns an integer user property; the default if it is absent.

    Raises:
        BadInputError: The property is not a non-negative integer of at most 15 digits.
    """
    text = user.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        raise BadInputError(f"user property {name}={text[:40]!r} is not a small whole number")
    return int(text)


def checked_request_id(correlation: bytes | None) -> bytes:
    """Returns the Correlation Data as request id.

    Raises:
        BadInputError: It is absent or does not have the length of a request id.
    """
    if correlation is None or len(correlation) != REQUEST_ID_BYTES:
        raise BadInputError(f"correlation data must be {REQUEST_ID_BYTES} bytes")
    return correlation


def check_content_type(given: str | None) -> None:
    """Checks a Content Type. None is accepted; case and parameters do not matter (RFC 9110, section 8.3.1).

    Raises:
        BadInputError: It is another content type.
    """
    if given is None or given == CONTENT_TYPE or given.partition(";")[0].strip().lower() == CONTENT_TYPE:
        return
    raise BadInputError(f"content type {given[:80]!r} is not {CONTENT_TYPE}")


def attempt_of(user: Mapping[str, str]) -> int:
    """Returns the attempt in a message's user properties; 1 if it is absent or invalid."""
    try:
        return number_in(user, "attempt", 1)
    except BadInputError:
        return 1


def traceparent_of(user: Mapping[str, str]) -> str | None:
    """Returns the trace context in a message's user properties; None if it is absent or malformed."""
    value = user.get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) else None


def is_piece(user: Mapping[str, str]) -> bool:
    """Returns whether a message to a client's inbox is a piece of streamed text; otherwise it is an answer."""
    return "seq" in user


def is_working(user: Mapping[str, str]) -> bool:
    """Returns whether a message to a client's inbox says that a node is computing a work; it carries no payload."""
    return "working" in user


def is_stop(user: Mapping[str, str]) -> bool:
    """Returns whether a message to a module's topic stops a work; otherwise it is work."""
    return "stop" in user
