"""Compatibility of releases: the protocol number, the number that introduced each later field, and extensible lists.

Additions to documents are marked here: a new field as `Annotated[..., Since(2)]`, a new value of a closed list as
`ClosedList((("int4", 2),))`. Then encoding for an older reader omits the field, `needs` tells which readers understand
a document, and a test requires an entry in docs/protocol.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationInfo, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, ValidationError, core_schema

__all__ = ["FROM_THE_BUS", "PROTOCOL", "UNKNOWN", "ClosedList", "Since", "is_from_the_bus", "needs", "newer_fields"]

#: The protocol number of this release. A sender without a number has 0, like every release before the number existed.
PROTOCOL = 1
#: The value that stands for values of a closed list that only newer releases know.
UNKNOWN = "unknown"
#: The pydantic validation context for everything from the bus. Without it (files, our own code) validation is strict.
FROM_THE_BUS: Mapping[str, bool] = {"from the bus": True}


def is_from_the_bus(info: ValidationInfo) -> bool:
    """Returns whether the validated value came from the bus and is to be read tolerantly."""
    return info.context is FROM_THE_BUS


@dataclass(frozen=True, slots=True)
class Since:
    """Marks a field with the protocol number that introduced it.

    Args:
        protocol: That number. The field is omitted for older readers.
        needed: Whether a reader that does not know the field must not get a document in which it is set.
    """

    protocol: int
    needed: bool = False


@dataclass(frozen=True, slots=True)
class ClosedList:
    """Marks a Literal to which later releases may add values; its last value must be "unknown".

    A value from the bus that is not in the list is read as "unknown". Elsewhere only values of the list are valid.

    Args:
        since: (value, protocol number) of the values that later protocol numbers introduced.
    """

    since: tuple[tuple[str, int], ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        known = [value for value in get_args(source) if value != UNKNOWN]
        if len(known) == len(get_args(source)):
            raise TypeError(f"{source} is no closed list: it has no value {UNKNOWN!r}")
        schema, text = core_schema.literal_schema(known), core_schema.simple_ser_schema("str")
        return core_schema.with_info_wrap_validator_function(_known_or_unknown, schema, serialization=text)

    def needs(self, value: object) -> int:
        """Returns the lowest protocol number whose readers know a value."""
        return max((number for known, number in self.since if known == value), default=0)


def _known_or_unknown(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(value)
    except ValidationError:
        if is_from_the_bus(info):
            return UNKNOWN
        raise


def newer_fields(value: object, reader: int) -> Any:
    """Returns the fields to omit for a reader, in the form of pydantic's `exclude`; empty if it knows all fields.

    Args:
        value: A document, or a list or mapping of documents.
        reader: The reader's protocol number.
    """
    if reader >= PROTOCOL:
        return {}
    found: dict[Any, Any] = {}
    for name, inner, mark in _parts(value):
        if mark is not None and mark.protocol > reader:
            found[name] = True
        elif below := newer_fields(inner, reader):
            found[name] = below
    return found


def _parts(value: object) -> Iterator[tuple[Any, object, Since | None]]:
    if isinstance(value, BaseModel):
        for name, field in type(value).model_fields.items():
            yield name, getattr(value, name), next((m for m in field.metadata if isinstance(m, Since)), None)
    elif isinstance(value, Mapping):
        yield from ((key, inner, None) for key, inner in value.items())
    elif isinstance(value, list | tuple):
        yield from ((index, inner, None) for index, inner in enumerate(value))


def needs(document: BaseModel) -> int:
    """Returns the lowest protocol number whose readers understand a document."""
    return max(_needs_of(document), default=0)


def _needs_of(document: BaseModel) -> Iterator[int]:
    for name, field in type(document).model_fields.items():
        value = getattr(document, name)
        for mark in field.metadata:
            if isinstance(mark, Since) and mark.needed and value != field.get_default(call_default_factory=True):
                yield mark.protocol
        yield from _values(Annotated[field.annotation, 0, *field.metadata], value)


def _values(annotation: Any, value: object) -> Iterator[int]:
    if isinstance(value, BaseModel):
        yield from _needs_of(value)
        return
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        yield from (mark.needs(value) for mark in arguments if isinstance(mark, ClosedList))
        yield from _values(arguments[0], value)
    elif origin in (Union, UnionType):
        for one in arguments:
            yield from _values(one, value)
    elif isinstance(value, Mapping) and len(arguments) == 2:  # noqa: PLR2004  # types of keys and of values
        for key, inner in value.items():
            yield from _values(arguments[0], key)
            yield from _values(arguments[1], inner)
    elif isinstance(value, list | tuple) and arguments:
        for inner in value:
            yield from _values(arguments[0], inner)
