"""The v5 properties of the data plane: what each message says beside its payload, checked before use."""

import re
from collections.abc import Mapping

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.ids import REQUEST_ID_BYTES

__all__ = [
    "CONTENT_TYPE",
    "attempt_of",
    "check_content_type",
    "checked_request_id",
    "is_piece",
    "is_stop",
    "number_in",
    "traceparent_of",
]

CONTENT_TYPE = "application/vnd.s2m3.v1+msgpack"
#: W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_DIGITS = 15


def number_in(user: Mapping[str, str], name: str, default: int) -> int:
    """Returns the whole number that a user property says; the default where it is absent.

    Raises:
        BadInputError: It is no small whole number.
    """
    text = user.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        raise BadInputError(f"user property {name}={text[:40]!r} is not a small whole number")
    return int(text)


def checked_request_id(correlation: bytes | None) -> bytes:
    """Returns the request id that a message's Correlation Data is.

    Raises:
        BadInputError: It is none.
    """
    if correlation is None or len(correlation) != REQUEST_ID_BYTES:
        raise BadInputError(f"correlation data must be {REQUEST_ID_BYTES} bytes")
    return correlation


def check_content_type(given: str | None) -> None:
    """Checks a Content Type. Absent is taken for ours; case and parameters do not matter (RFC 9110, section 8.3.1).

    Raises:
        BadInputError: It is another one.
    """
    if given is None or given == CONTENT_TYPE or given.partition(";")[0].strip().lower() == CONTENT_TYPE:
        return
    raise BadInputError(f"content type {given[:80]!r} is not {CONTENT_TYPE}")


def attempt_of(user: Mapping[str, str]) -> int:
    """Returns the attempt that a message's user properties name; 1 where they make no sense."""
    try:
        return number_in(user, "attempt", 1)
    except BadInputError:
        return 1


def traceparent_of(user: Mapping[str, str]) -> str | None:
    """Returns the trace context among a message's user properties; None where there is none that is well-formed."""
    value = user.get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) else None


def is_piece(user: Mapping[str, str]) -> bool:
    """Returns whether a message to a client's inbox is a piece of a text, by its user properties; else an answer."""
    return "seq" in user


def is_stop(user: Mapping[str, str]) -> bool:
    """Returns whether a message to a module's topic ends a work, by its user properties; else it is one."""
    return "stop" in user
