"""Walks pydantic models: full samples of them, every level where a key may be added, every closed list in them.

Nothing here names a document: whatever model a later release adds is walked like those of today.
"""

import itertools
from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

__all__ = ["Path", "at", "closed_lists", "full", "levels", "models_in", "without"]

#: Where something is in a JSON document: keys and indices.
Path = tuple[str | int, ...]
_KEY = "x1"


def full(model: type[BaseModel]) -> dict[str, Any]:
    """Returns the fullest valid document of a model: every field, less those that may not stand beside another."""
    every = {
        _name(name, field): field.examples[0] if field.examples else _sample(field.annotation, field.metadata)
        for name, field in model.model_fields.items()
    }
    optional = [_name(name, field) for name, field in model.model_fields.items() if not field.is_required()]
    for count in range(4):
        for left_out in itertools.combinations(optional, count):
            document = {key: value for key, value in every.items() if key not in left_out}
            if _is_valid(model, document):
                return document
    raise AssertionError(f"no valid {model.__name__} was found")


def _is_valid(model: type[BaseModel], document: dict[str, Any]) -> bool:
    try:
        model.model_validate(document)
    except ValidationError:
        return False
    return True


def _name(name: str, field: Any) -> str:
    return str(field.serialization_alias or field.alias or name)


def _sample(annotation: Any, marks: Any = ()) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, Union, UnionType):
        return _sample(arguments[0], [*marks, *arguments[1:]])
    if origin is Literal:
        return arguments[0]
    if origin in (list, tuple):
        return [_sample(arguments[0]), _sample(arguments[0])]
    if origin is dict:
        return {_KEY: _sample(arguments[1])}
    return full(annotation) if _is_model(annotation) else _simple(annotation, marks)


def _simple(annotation: Any, marks: Any) -> Any:
    if examples := [mark.examples[0] for mark in marks if isinstance(mark, FieldInfo) and mark.examples]:
        return examples[0]
    if annotation in (int, float):
        least: list[Any] = [mark.ge for mark in marks if isinstance(mark, annotated_types.Ge)]
        return max(least, default=1) or 1
    return {str: _KEY, bool: True, Any: [_KEY]}[annotation]


def levels(model: type[BaseModel], document: Any) -> list[Path]:
    """Returns where the keys of a document are those of a model."""
    return [path for annotation, path in _places(model, document) if _is_model(annotation)]


def models_in(model: type[BaseModel]) -> set[type[BaseModel]]:
    """Returns a model and those of its levels."""
    return {annotation for annotation, _ in _places(model, full(model)) if _is_model(annotation)}


def closed_lists(model: type[BaseModel], document: Any) -> list[Path]:
    """Returns where a document has values of closed lists."""
    return [path for annotation, path in _places(model, document) if get_origin(annotation) is Literal]


def _places(annotation: Any, document: Any, path: Path = ()) -> Iterator[tuple[Any, Path]]:
    """Returns what each place of a document is declared as, at every depth."""
    yield annotation, path
    for inner, key in _inside(annotation, document):
        yield from _places(inner, document if key is None else document[key], path if key is None else (*path, key))


def _inside(annotation: Any, document: Any) -> Iterator[tuple[Any, str | int | None]]:
    """Returns what is declared one step further in, and at which key (None: at the same place)."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Annotated, Union, UnionType):
        yield arguments[0], None
    elif origin in (list, tuple):
        yield from ((arguments[0], index) for index in range(len(document)))
    elif origin is dict:
        yield from ((arguments[1], key) for key in document)
    elif _is_model(annotation):
        for name, field in annotation.model_fields.items():
            if (key := _name(name, field)) in document:
                yield field.annotation, key


def _is_model(annotation: Any) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def at(document: Any, path: Path) -> Any:
    """Returns what is at a place."""
    for key in path:
        document = document[key]
    return document


def without(document: dict[str, Any], path: Path) -> None:
    """Takes away what is at a place."""
    del at(document, path[:-1])[path[-1]]
