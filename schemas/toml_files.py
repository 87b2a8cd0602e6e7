"""Definition files of people: read strictly, and what is wrong with one is said in a line that names file and key."""

import tomllib
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from s2m3.schemas.errors import BadDefinitionError

__all__ = ["first_error", "read_toml"]


def read_toml(path: Path) -> dict[str, Any]:
    """Returns what a file holds.

    Raises:
        BadDefinitionError: It cannot be read or is no TOML; the text names the file, and the line where there is one.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise BadDefinitionError(f"{path.name}: cannot be read: {error}") from error
    except tomllib.TOMLDecodeError as error:  # its text names the line and column
        raise BadDefinitionError(f"{path.name}: {error}") from error


def first_error(error: ValidationError, key: str = "") -> str:
    """Returns the first of a validation's errors as `key: what is wrong`.

    Args:
        error: Of a table of the file.
        key: Of that table; empty: the file's top level.
    """
    first = error.errors()[0]
    return f"{'.'.join([key, *map(str, first['loc'])]).lstrip('.')}: {first['msg']}"
