"""Names on the bus: what a node, module, task or client may be called, and request ids."""

import os
import random
import re
import secrets
from typing import Annotated

from pydantic import AfterValidator, StringConstraints, WithJsonSchema

from s2m3.schemas.errors import BadInputError

__all__ = ["ID_PATTERN", "REQUEST_ID_BYTES", "Id", "check_id", "is_id", "new_request_id"]

_LONGEST = 64
#: For what checks many: Python's `re` and pydantic's engine read it alike, but for `$` (see is_id).
ID_PATTERN = rf"^[a-z0-9][a-z0-9-]{{0,{_LONGEST - 1}}}$"
_ID = re.compile(ID_PATTERN)
REQUEST_ID_BYTES = 16


def is_id(value: str) -> bool:
    """Returns whether a name is an id."""
    return _ID.fullmatch(value) is not None


def check_id(value: str, what: str = "id") -> str:
    """Returns the id if it is one: lower-case letters, digits and dashes, at most 64, so it is one topic level.

    Raises:
        BadInputError: `+ # /`, control characters, capitals, spaces, or nothing at all.
    """
    if not is_id(value):
        shown = value[:_LONGEST] + ("…" if len(value) > _LONGEST else "")
        raise BadInputError(f"{what} {shown!r} is not an id: lower-case letters, digits and dashes, at most {_LONGEST}")
    return value


def _validated(value: str) -> str:
    try:
        return check_id(value)
    except BadInputError as error:
        raise ValueError(error.detail) from error


_SCHEMA = {"type": "string", "pattern": ID_PATTERN}
Id = Annotated[str, StringConstraints(max_length=_LONGEST), AfterValidator(_validated), WithJsonSchema(_SCHEMA)]


#: Ids have to be unique, not secret: seeded once from the system, for asking it each time took 70 us a request.
_rng = random.Random(secrets.token_bytes(32))  # noqa: S311
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _rng.seed(secrets.token_bytes(32)))


def new_request_id() -> bytes:
    """Returns 16 random bytes: the Correlation Data of a request's every message."""
    return _rng.randbytes(REQUEST_ID_BYTES)
