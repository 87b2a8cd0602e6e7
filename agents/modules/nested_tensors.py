"""Tensors inside what a network takes and gives: tuples, lists, maps and dataclasses of them. Imports no torch."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass, replace
from typing import Any

__all__ = ["with_tensors"]


def with_tensors(value: Any, change: Callable[[Any], Any]) -> Any:
    """Returns a value with each of its tensors changed; anything else in it stays as it is."""
    if hasattr(value, "is_floating_point") and hasattr(value, "device"):
        return change(value)
    match value:
        case tuple() if hasattr(value, "_fields"):
            return type(value)(*(with_tensors(item, change) for item in value))
        case tuple() | list():
            return type(value)(with_tensors(item, change) for item in value)
        case dict():  # a result of transformers is one, and keeps its class
            for key in list(value):
                value[key] = with_tensors(value[key], change)
            return value
        case _ if is_dataclass(value) and not isinstance(value, type):
            return replace(value, **{f.name: with_tensors(getattr(value, f.name), change) for f in fields(value)})
        case _:
            return value
