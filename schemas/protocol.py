"""Which release can read what: the protocol's number, the number that brought each later field, lists that may grow.

Whoever adds something to a document marks it here and nowhere else: a field as `Annotated[..., Since(2)]`, a value of a
closed list as `ClosedList((("int4", 2),))`. Encoding for an older reader then leaves the field out, `needs` keeps from
an older node what it could not understand, and a test asks for the entry in docs/protocol.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler, ValidationInfo, ValidatorFunctionWrapHandler
from pydantic_core import CoreSchema, ValidationError, core_schema

__all__ = ["FROM_THE_BUS", "PROTOCOL", "UNKNOWN", "ClosedList", "Since", "is_from_the_bus", "needs", "newer_fields"]

#: What this release speaks. A party that says no number speaks 0, as every release before the number existed.
PROTOCOL = 1
#: What a value of a closed list is taken as that a newer release has added to it.
UNKNOWN = "unknown"
#: The validation context of everything that comes off the bus. Without it (files, our own code) readers are strict.
FROM_THE_BUS: Mapping[str, bool] = {"from the bus": True}


def is_from_the_bus(info: ValidationInfo) -> bool:
    """Returns whether what is validated came off the bus, and is to be read tolerantly."""
    return info.context is FROM_THE_BUS


@dataclass(frozen=True, slots=True)
class Since:
    """Marks a field with the protocol number that brought it.

    Args:
        protocol: That number. For older readers the field is left out.
        needed: A reader that does not know the field must not be given a document that sets it.
    """

    protocol: int
    needed: bool = False


@dataclass(frozen=True, slots=True)
class ClosedList:
    """Marks a Literal whose values may become more; its last value is "unknown".

    Off the bus, any value that is not in the list is taken as "unknown". Elsewhere only the list's values are valid.

    Args:
        since: Values that later numbers brought, each with its number.
    """

    since: tuple[tuple[str, int], ...] = ()

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        known = [value for value in get_args(source) if value != UNKNOWN]
        if len(known) == len(get_args(source)):
            raise TypeError(f"{source} is no closed list: it has no value {UNKNOWN!r}")
        schema, text = core_schema.literal_schema(known), core_schema.simple_ser_schema("str")
        return core_schema.with_info_wrap_validator_function(_known_or_unknown, schema, serialization=text)

    def needs(self, value: object) -> int:
        """Returns the number that a reader of a value must have."""
        return max((number for known, number in self.since if known == value), default=0)


def _known_or_unknown(value: Any, handler: ValidatorFunctionWrapHandler, info: ValidationInfo) -> Any:
    try:
        return handler(value)
    except ValidationError:
        if is_from_the_bus(info):
            return UNKNOWN
        raise


def newer_fields(value: object, reader: int) -> Any:
    """Returns what to leave out for a reader, in the form of pydantic's `exclude`; empty where it can read all.

    Args:
        value: A document, or a list or mapping of documents.
        reader: The protocol number of whoever is to read it.
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
    """Returns the least protocol number with which a reader understands a document."""
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
    elif isinstance(value, Mapping) and len(arguments) == 2:  # noqa: PLR2004  # of keys and of values
        for key, inner in value.items():
            yield from _values(arguments[0], key)
            yield from _values(arguments[1], inner)
    elif isinstance(value, list | tuple) and arguments:
        for inner in value:
            yield from _values(arguments[0], inner)
