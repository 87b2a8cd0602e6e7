"""Checks the descriptions of tools in a request. Pure."""

from collections.abc import Mapping
from typing import Any

from s2m3.schemas.errors import BadInputError

__all__ = ["function_tools"]


def function_tools(given: object) -> list[dict[str, Any]]:
    """Returns descriptions of functions in the form that chat templates take, which is OpenAI's.

    Raises:
        BadInputError: One of them is no function with a name.
    """
    if given is None:
        return []
    found = []
    for tool in given if isinstance(given, list) else [None]:
        function = tool.get("function") if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise BadInputError('tools is a list of {"type": "function", "function": {"name": …, …}}')
        found.append({"type": "function", "function": dict(function)})
    return found
