"""What a bound message says: a payload becomes a task's inputs, as it is or by JMESPath. Pure."""

import json
from collections.abc import Mapping
from typing import Any

import jmespath
from jmespath.exceptions import JMESPathError

from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Kind

__all__ = ["Extract"]

_FILES: frozenset[Kind] = frozenset({"image", "images", "audio"})
_TEXTS: frozenset[Kind] = frozenset({"text", "texts"})


class Extract:
    """Makes inputs of payloads.

    Args:
        binding: Which payloads, which inputs.

    Raises:
        BadInputError: A path is not JMESPath.
    """

    def __init__(self, binding: Binding) -> None:
        self._input = binding.input
        self._inputs = binding.inputs
        self._paths = {name: _compiled(path) for name, path in binding.paths.items()}
        self._where = None if binding.where is None else _compiled(binding.where)

    def inputs(self, payload: bytes, kinds: Mapping[str, Kind]) -> dict[str, Any] | None:
        """Returns a request's inputs; None for a message that `where` passes over.

        Args:
            payload: Of the message.
            kinds: What the task takes; empty while that is not known.

        Raises:
            BadInputError: The payload is not JSON though paths look into it, or a path finds nothing.
        """
        if self._input is not None:
            return {**self._inputs, self._input: payload}
        if not self._paths and self._where is None:
            return dict(self._inputs)
        document = _json(payload)
        if self._where is not None and not _true(self._search(self._where, document)):
            return None
        found = {name: self._search(path, document) for name, path in self._paths.items()}
        if nothing := next((name for name, value in found.items() if value is None), None):
            raise BadInputError(f"input {nothing!r}: the payload has nothing at {self._paths[nothing].expression!r}")
        return {**self._inputs, **{name: _of_kind(kinds.get(name), value) for name, value in found.items()}}

    def _search(self, path: Any, document: Any) -> Any:
        try:
            return path.search(document)
        except JMESPathError as error:
            raise BadInputError(f"path {path.expression!r}: {error}") from error


def _compiled(path: str) -> Any:
    try:
        return jmespath.compile(path)
    except JMESPathError as error:
        raise BadInputError(f"path {path!r} is not JMESPath: {' '.join(str(error).split())}") from error


def _json(payload: bytes) -> Any:
    try:
        return json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"the payload is not JSON: {error}") from error


def _true(value: Any) -> bool:
    """JMESPath's own truth: 0 is true, what is empty or missing is not."""
    return value is True or (value is not False and value is not None and value not in ("", [], {}))


def _of_kind(kind: Kind | None, value: Any) -> Any:
    """A string is a file's base64 where the task takes a file; a number is its digits where it takes text."""
    if isinstance(value, list):
        return [_of_kind(kind, item) for item in value]
    if kind in _FILES and isinstance(value, str):
        return {"base64": value.partition(",")[2] if value.startswith("data:") else value}
    if kind in _TEXTS and isinstance(value, bool | int | float):
        return json.dumps(value)
    return value
