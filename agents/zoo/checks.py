"""What a module is given, checked against what it takes: its configuration and the values of its input ports."""

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from schemas.definitions import ModuleSpec
from schemas.errors import BadInputError, ModuleFailedError
from schemas.values import Kind, Tensor, Value, check_kind

__all__ = ["Config", "port", "read_config", "tensor_port"]


class Config(BaseModel):
    """A module's configuration table: every key is known."""

    model_config = ConfigDict(frozen=True, extra="forbid")


_C = TypeVar("_C", bound=Config)


def read_config(spec: ModuleSpec, kind: type[_C]) -> _C:
    """Returns the spec's configuration as the class's own type.

    Raises:
        ModuleFailedError: A key is unknown or its value is out of range.
    """
    try:
        return kind.model_validate(spec.config)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ModuleFailedError(f"module {spec.id}: config.{where}: {first['msg']}") from error


def port(inputs: Mapping[str, Value], name: str, kind: Kind) -> Value:
    """Returns the value of an input port as its kind wants it.

    Raises:
        BadInputError: The value is missing or of another kind.
    """
    if name not in inputs:
        raise BadInputError(f"input {name!r} is missing")
    return check_kind(name, kind, inputs[name])


def tensor_port(inputs: Mapping[str, Value], name: str, shape: tuple[int | None, ...]) -> Tensor:
    """Returns the tensor of an input port.

    Args:
        inputs: The item.
        name: The port.
        shape: The length of each dimension; None is any length from 1.

    Raises:
        BadInputError: Missing, not a tensor, not float32, of another shape, or not finite throughout.
    """
    value: Tensor = port(inputs, name, "tensor")
    fits = len(value.shape) == len(shape) and all(
        have == want or (want is None and have > 0) for have, want in zip(value.shape, shape, strict=True)
    )
    if value.dtype.name != "float32" or not fits:
        wanted = " x ".join("n" if n is None else str(n) for n in shape)
        have = " x ".join(map(str, value.shape))
        raise BadInputError(f"input {name!r} takes a float32 tensor of {wanted}, not {value.dtype.name} of {have}")
    if not np.isfinite(value).all():
        raise BadInputError(f"input {name!r} holds numbers that are not finite")
    return value
