"""What a Python caller gives as the inputs of a request, and errors about them in Python's terms."""

from pathlib import Path
from typing import Any

from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.wire.plain import NotAFileError
from s2m3.schemas.wire.values import Value

__all__ = ["in_words_of_python", "with_files_read"]

#: Most characters of a caller's own text in an error.
_LONGEST_SHOWN = 80


def with_files_read(value: Any) -> Value:
    """Returns a value with files (`Path`) read; the dispatcher validates it against the task's inputs.

    Raises:
        OSError: A file cannot be read.
    """
    if isinstance(value, Path):
        return value.read_bytes()
    if isinstance(value, list | tuple):
        return [with_files_read(item) for item in value]
    return value


def in_words_of_python(error: S2M3Error) -> S2M3Error:
    """Returns the error of a request in the terms of a Python caller; the dispatcher knows those of the bus alone."""
    if isinstance(error, NotAFileError):
        is_text = isinstance(error.given, str)
        given = f"the text {str(error.given)[:_LONGEST_SHOWN]!r}" if is_text else type(error.given).__name__
        error.detail = f"input {error.name!r} takes a file, as bytes or as a pathlib.Path, not {given}"
        error.args = (error.detail,)
    return error
