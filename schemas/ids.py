"""Names on the bus: the syntax of node, module, task and client ids, and request ids."""

import hashlib
import os
import re
import secrets
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

from s2m3.schemas.errors import BadInputError

__all__ = [
    "CONTENT_BYTES",
    "ID_PATTERN",
    "REQUEST_ID_BYTES",
    "Id",
    "check_id",
    "content_of",
    "is_id",
    "new_request_id",
    "request_id_of",
    "shown_id",
]

_LONGEST = 64
#: For bulk validation. Python's `re` and pydantic's engine differ only in `$`, which is why `is_id` uses fullmatch.
ID_PATTERN = rf"^[a-z0-9][a-z0-9-]{{0,{_LONGEST - 1}}}$"
_ID = re.compile(ID_PATTERN)
REQUEST_ID_BYTES = 16
#: Bytes of a plain request's id that are equal for equal requests.
CONTENT_BYTES = 8


def is_id(value: str) -> bool:
    """Whether a name is an id."""
    return _ID.fullmatch(value) is not None


def check_id(value: str, what: str = "id") -> str:
    """Returns a valid id unchanged: at most 64 lower-case letters, digits and dashes, which make one topic level.

    Raises:
        BadInputError: The name has other characters, e.g. `+ # /`, or is empty or too long; `what` names it.
    """
    if not is_id(value):
        shown = value[:_LONGEST] + ("…" if len(value) > _LONGEST else "")
        near = re.sub(r"[^a-z0-9]+", "-", value.lower())[:_LONGEST].strip("-")
        hint = f"; {near!r} would be one" if near else ""
        raise BadInputError(
            f"{what} {shown!r} is not an id: lower-case letters, digits and dashes, at most {_LONGEST}{hint}"
        )
    return value


def _validated(value: str) -> str:
    try:
        return check_id(value)
    except BadInputError as error:
        raise ValueError(error.detail) from error


_SCHEMA = {"type": "string", "pattern": ID_PATTERN}
Id = Annotated[str, StringConstraints(max_length=_LONGEST), AfterValidator(_validated), WithJsonSchema(_SCHEMA)]


#: Ids that are drawn and not used yet. They come from the system, so that nobody can predict another caller's id; they
#: are drawn together, because a system call costs more than the rest of a request's id.
_drawn: list[bytes] = []
_AT_ONCE = 64
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_drawn.clear)


def request_id_of(content: bytes) -> bytes:
    """Returns a request id whose first half says what the request asks, and whose second half is random.

    Args:
        content: 8 bytes, equal for equal requests. Nobody without the site's key may be able to compute them.
    """
    return content + new_request_id()[CONTENT_BYTES:]


def content_of(request: bytes) -> bytes:
    """Returns the first half of a request id: equal for equal plain requests, random for those of a Client."""
    return request[:CONTENT_BYTES]


def shown_id(request: bytes) -> str:
    """Returns what plain answers and events show of a request's id: 32 hexadecimal digits, of which 16 are the id's.

    The other 16 are a hash. With the id itself, whoever reads the pieces of another's answer could send work under it
    while the request is under way, and its answer would be taken.
    """
    return (request[:CONTENT_BYTES] + hashlib.blake2b(request, digest_size=CONTENT_BYTES).digest()).hex()


def new_request_id() -> bytes:
    """Returns 16 random bytes, the Correlation Data of all messages of a request."""
    try:
        return _drawn.pop()
    except IndexError:
        drawn = secrets.token_bytes(REQUEST_ID_BYTES * _AT_ONCE)
        _drawn.extend(drawn[at : at + REQUEST_ID_BYTES] for at in range(REQUEST_ID_BYTES, len(drawn), REQUEST_ID_BYTES))
        return drawn[:REQUEST_ID_BYTES]
