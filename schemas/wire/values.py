"""The values between steps: bytes of image and sound files, texts, numbers, tensors. Nothing is ever unpickled."""

from collections.abc import Mapping
from math import isfinite
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.protocol import UNKNOWN, ClosedList
from s2m3.schemas.wire.chat import is_chat

__all__ = ["Kind", "Tensor", "Value", "boxes_in", "check_kind", "is_boxes", "pack_tensor", "unpack_tensor"]

#: "unknown" is a kind of a newer release: its values are passed on unchecked, and the module checks them.
Kind = Annotated[
    Literal["image", "images", "audio", "text", "texts", "tensor", "number", "data", "boxes", "chat", "unknown"],
    ClosedList((("boxes", 1), ("chat", 1))),
]
Tensor = npt.NDArray[Any]
#: bytes (an image or sound file), str, numbers, None, Tensor, and lists and string-keyed dicts of these.
Value = Any

_DTYPES = {
    name: np.dtype(name)
    for name in ("float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool", "float64")
}
_MAX_DIMS = 8
#: Numbers of a box: left, top, right, bottom.
_CORNERS = 4
_TENSOR_KEYS = frozenset({"dtype", "shape", "bytes"})


def pack_tensor(array: Tensor) -> dict[str, Any]:
    """Returns the wire form of an array: {dtype, shape, bytes}, the bytes row-major and little-endian.

    Raises:
        BadInputError: The protocol has no such dtype.
    """
    if array.dtype.name not in _DTYPES:
        raise BadInputError(f"tensors of dtype {array.dtype} do not travel; one of {', '.join(_DTYPES)}")
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return {"dtype": array.dtype.name, "shape": list(array.shape), "bytes": np.ascontiguousarray(little).tobytes()}


def is_packed_tensor(value: object) -> bool:
    """Returns whether a decoded map is a packed tensor: it has exactly the three keys, and `bytes` is binary."""
    return isinstance(value, dict) and value.keys() == _TENSOR_KEYS and isinstance(value["bytes"], bytes)


def unpack_tensor(packed: Mapping[str, Any]) -> Tensor:
    """Returns the array of a wire form, read-only and without a copy.

    Raises:
        BadInputError: The dtype is unknown, the shape is not a short list of non-negative integers, or the number of
            bytes does not fit the shape.
    """
    dtype = _DTYPES.get(packed["dtype"]) if isinstance(packed["dtype"], str) else None
    if dtype is None:
        raise BadInputError(f"tensor dtype {str(packed['dtype'])[:40]!r} is not one of {', '.join(_DTYPES)}")
    shape = packed["shape"]
    if not isinstance(shape, list) or len(shape) > _MAX_DIMS or any(type(n) is not int or n < 0 for n in shape):
        raise BadInputError(
            f"tensor shape {str(shape)[:80]} is not a list of at most {_MAX_DIMS} non-negative integers"
        )
    need = dtype.itemsize
    for n in shape:
        need *= n
    if need != len(packed["bytes"]):
        raise BadInputError(f"a {packed['dtype']} tensor of shape {shape} is {need} bytes, not {len(packed['bytes'])}")
    try:
        return np.frombuffer(packed["bytes"], dtype=dtype.newbyteorder("<")).reshape(shape)
    except ValueError as error:  # one dimension is 0, and the product of the others is too large for numpy
        raise BadInputError(f"a tensor cannot have the shape {shape}") from error


def is_boxes(value: object) -> bool:
    """Returns whether a value is a list of boxes: what is where in a picture, the best score first.

    A box is {label: text, score: number, box: [x1, y1, x2, y2]}: left, top, right and bottom in pixels of the picture
    that was sent, as people see the picture (upright by its EXIF orientation). Nothing found is an empty list.
    """
    return isinstance(value, list) and all(_is_box(item) for item in value)


def boxes_in(outputs: Mapping[str, Value]) -> list[dict[str, Any]] | None:
    """Returns the boxes among an answer's outputs; an empty list if nothing was found, else None."""
    found = [value for value in outputs.values() if is_boxes(value)]
    return next((boxes for boxes in found if boxes), found[0] if found else None)


def _is_box(item: object) -> bool:
    if not isinstance(item, dict) or not isinstance(item.get("label"), str) or not _is_number(item.get("score")):
        return False
    corners = item.get("box")
    return isinstance(corners, list) and len(corners) == _CORNERS and all(map(_is_finite, corners))


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_list_of(value: Value, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def check_kind(name: str, kind: Kind, value: Value) -> Value:
    """Returns the value in the form of its kind: one text or image becomes a list where the kind is a list.

    Raises:
        BadInputError: The value is of another kind.
    """
    if kind in ("texts", "images") and isinstance(value, str if kind == "texts" else bytes):
        value = [value]
    if kind in ("text", "image") and isinstance(value, list) and len(value) == 1:
        value = value[0]
    if kind == "chat" and _is_list_of(value, str) and len(value) == 1:
        value = value[0]
    fits = {
        "image": isinstance(value, bytes),
        "audio": isinstance(value, bytes),
        "images": _is_list_of(value, bytes),
        "text": isinstance(value, str),
        "texts": _is_list_of(value, str),
        "tensor": isinstance(value, np.ndarray),
        "number": _is_number(value),
        "data": True,
        "boxes": is_boxes(value),
        "chat": isinstance(value, str) or is_chat(value),
        UNKNOWN: True,
    }
    if not fits[kind]:
        raise BadInputError(f"input {name!r} takes {_WANTED[kind]}, not {_described(value)}")
    return value


def _described(value: object) -> str:
    """Returns what a value is, in JSON's words; of a list also what its items are."""
    if isinstance(value, list):
        items = sorted({_described(item) for item in value[:_MOST_DESCRIBED]})
        return f"a list of {', '.join(items)}" if items else "an empty list"
    return "null" if value is None else _NAMES.get(type(value), type(value).__name__)


_NAMES: dict[type, str] = {
    str: "a text",
    bool: "true or false",
    int: "a number",
    float: "a number",
    bytes: "bytes",
    dict: "an object",
    np.ndarray: "a tensor",
}
#: Items of a list that an error text looks at.
_MOST_DESCRIBED = 100
_WANTED: dict[Kind, str] = {
    "image": "the bytes of one picture file",
    "images": "the bytes of one or more picture files",
    "audio": "the bytes of one sound file",
    "text": "one text",
    "texts": "one or more texts",
    "tensor": "a tensor",
    "number": "a number",
    "data": "plain data",
    "boxes": "a list of {label, score, box: [x1, y1, x2, y2]}",
    "chat": "one text, or chat messages: a list of {role, content}",
}
