"""Extracts a task's inputs from a bound message's payload, as a whole or by JMESPath. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from s2m3.bindings.jmespath_bounded import Budget, Expression
from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Kind

__all__ = ["Extract", "Found", "PassedOver"]

_FILES: frozenset[Kind] = frozenset({"image", "images", "audio"})
_TEXTS: frozenset[Kind] = frozenset({"text", "texts", "chat"})
#: Most levels of a JSON payload: devices send fewer than ten, and later encoders (JSON, msgpack) recurse.
_DEEPEST = 64
_MOST_VALUES = 100_000
#: Most digits of a number that every reader of msgpack takes; longer numbers stay text.
_MOST_DIGITS = 18


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A message that asks nothing."""

    why: str


@dataclass(frozen=True, slots=True)
class Found:
    """The inputs in a message: input name -> value as it was found, not yet converted to the task's kinds."""

    values: Mapping[str, Any]
    #: size of the payload, bytes
    size: int

    def __len__(self) -> int:
        return self.size


class Extract:
    """Makes inputs from payloads.

    Args:
        binding: The binding, whose paths and constants are used.

    Raises:
        BadInputError: A path is not JMESPath.
    """

    def __init__(self, binding: Binding) -> None:
        self._input = binding.input
        self._inputs = binding.inputs
        self._paths = {name: Expression(path) for name, path in binding.paths.items()}
        self._where = None if binding.where is None else Expression(binding.where)

    def find(self, payload: bytes) -> Found | PassedOver:
        """Returns the inputs in a message, or the reason why it asks nothing.

        A message asks nothing when it is empty (a retained topic that is cleared), when `where` is not true of it, or
        when there is nothing at a path: missing, null or empty.

        Raises:
            BadInputError: The payload is not JSON although there are paths, or it is too large or too deep for them.
        """
        if not payload.strip():
            return PassedOver("it is empty")
        if self._input is not None:
            return Found({self._input: payload}, len(payload))
        if not self._paths and self._where is None:
            return Found({}, len(payload))
        document = _json(payload)
        budget = Budget(len(payload))
        if self._where is not None and not _true(self._where.search(document, budget)):
            return PassedOver("the condition is not true of it")
        found = {name: path.search(document, budget) for name, path in self._paths.items()}
        for name, value in found.items():
            _check(name, value)
        if nothing := next((name for name, value in found.items() if _is_nothing(value)), None):
            return PassedOver(f"nothing at {self._paths[nothing].text!r}")
        return Found(found, len(payload))

    def made_of(self, found: Found, kinds: Mapping[str, Kind]) -> dict[str, Any]:
        """Returns a request's inputs.

        Args:
            found: The inputs in a message.
            kinds: Input name -> kind of the task; {} while it is unknown.
        """
        if self._input is not None:
            return {**self._inputs, **found.values}
        return {**self._inputs, **{name: _of_kind(kinds.get(name), value) for name, value in found.values.items()}}

    def inputs(self, payload: bytes, kinds: Mapping[str, Kind]) -> dict[str, Any] | None:
        """Returns a request's inputs; None for a message that asks nothing. See `find` and `made_of`."""
        found = self.find(payload)
        return None if isinstance(found, PassedOver) else self.made_of(found, kinds)


def _json(payload: bytes) -> Any:
    """Parses a payload.

    Raises:
        BadInputError: The payload is not JSON, has too many values, or is nested too deep.
    """
    if sum(payload.count(mark) for mark in (b",", b"[", b"{")) > _MOST_VALUES:
        raise BadInputError(f"the payload has more than {_MOST_VALUES:,} values")
    try:
        document = json.loads(payload, parse_int=_number, parse_constant=_no_number)
    except RecursionError as error:
        raise BadInputError(f"the payload is not JSON of at most {_DEEPEST} levels") from error
    except ValueError as error:
        raise BadInputError(f"the payload is not JSON: {error}") from error
    if _is_deep(document):
        raise BadInputError(f"the payload is nested more than {_DEEPEST} levels deep")
    return document


def _number(digits: str) -> int | str:
    return int(digits) if len(digits) <= _MOST_DIGITS else digits


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON number")


def _is_deep(value: Any) -> bool:
    """Whether a value has too many levels. It goes level by level and does not recurse."""
    level = [value]
    for _ in range(_DEEPEST + 1):
        level = [item for found in level if isinstance(found, list | dict) for item in _items(found)]
        if not level:
            return False
    return True


def _items(found: "list[Any] | dict[str, Any]") -> list[Any]:
    return list(found.values()) if isinstance(found, dict) else found


def _true(value: Any) -> bool:
    """Whether a value is true by JMESPath's rules: 0 is true, empty and missing values are not."""
    return value is True or (value is not False and value is not None and value not in ("", [], {}))


def _is_nothing(value: Any) -> bool:
    """Whether a value, or any item of a list, is missing or empty."""
    if isinstance(value, str):
        return not value.strip() or (value[:5].lower() == "data:" and value.endswith(","))
    if isinstance(value, list):
        return not value or any(_is_nothing(item) for item in value)
    if isinstance(value, dict):
        return not value or (value.keys() == {"base64"} and _is_nothing(value["base64"]))
    return value is None


def _check(name: str, value: Any) -> None:
    """Checks that a value can be encoded.

    Raises:
        BadInputError: It is nested too deep, or a text has half a character (JSON can spell a lone surrogate).
    """
    if _is_deep(value):
        raise BadInputError(f"input {name!r} is nested more than {_DEEPEST} levels deep")
    waiting = [value]
    while waiting:
        match waiting.pop():
            case list() as found:
                waiting += found
            case dict() as found:
                waiting += [*found.keys(), *found.values()]
            case str() as found if not _is_text(found):
                raise BadInputError(f"input {name!r} has half a character (a lone surrogate)")


def _is_text(found: str) -> bool:
    if found.isascii():
        return True
    try:
        found.encode()
    except UnicodeEncodeError:
        return False
    return True


def _of_kind(kind: Kind | None, value: Any) -> Any:
    """Returns a value of the task's kind: a string becomes a file's base64, a number becomes its digits as text."""
    if isinstance(value, list):
        return [_of_kind(kind, item) for item in value]
    if kind in _FILES and isinstance(value, str):
        return {"base64": value}
    if kind in _TEXTS and isinstance(value, bool | int | float):
        return json.dumps(value)
    return value
