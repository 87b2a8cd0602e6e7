"""Reads a checkpoint's JSON files; what is wrong with one is told by its name."""

import json
from pathlib import Path
from typing import Any

from s2m3.schemas.errors import BadInputError

__all__ = ["read_json", "read_json_list"]


def read_json(path: Path) -> dict[str, Any]:
    """Returns the object in a JSON file.

    Raises:
        BadInputError: The file cannot be read, or holds no JSON object; the text names the file.
    """
    found = _read(path)
    if not isinstance(found, dict):
        raise BadInputError(f"{path.name} holds no object")
    return found


def read_json_list(path: Path) -> list[dict[str, Any]]:
    """Returns the list of objects in a JSON file.

    Raises:
        BadInputError: The file cannot be read, or holds something else; the text names the file.
    """
    found = _read(path)
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise BadInputError(f"{path.name} holds no list of objects")
    return found


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadInputError(f"{path.name} cannot be read: {error}") from error
