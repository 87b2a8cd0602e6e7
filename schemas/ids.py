"""Names on the bus: the syntax of node, module, task and client ids, and what is shown of request ids."""

import hashlib
import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.request_ids import CONTENT_BYTES

__all__ = ["ID_PATTERN", "Id", "check_id", "is_id", "shown_id"]

_LONGEST = 64
#: For bulk validation. Python's `re` and pydantic's engine differ only in `$`, which is why `is_id` uses fullmatch.
ID_PATTERN = rf"^[a-z0-9][a-z0-9-]{{0,{_LONGEST - 1}}}$"
_ID = re.compile(ID_PATTERN)


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


def shown_id(request: bytes) -> str:
    """Returns what plain answers and events show of a request's id: 32 hexadecimal digits, of which 16 are the id's.

    The other 16 are a hash. With the id itself, whoever reads the pieces of another's answer could send work under it
    while the request is under way, and its answer would be taken.
    """
    return (request[:CONTENT_BYTES] + hashlib.blake2b(request, digest_size=CONTENT_BYTES).digest()).hex()
