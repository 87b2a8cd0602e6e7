"""Values <-> msgpack: what may travel, and tensors that are checked before use. Knows no message."""

from collections.abc import Mapping
from typing import Any, NoReturn

import msgpack
import numpy as np

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value, is_packed_tensor, pack_tensor, unpack_tensor

__all__ = ["pack", "restore", "unpack"]

_MAX_DEPTH = 16


def _pack_special(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return pack_tensor(value)
    if isinstance(value, np.generic):
        return value.item()
    raise BadInputError(f"{type(value).__name__} does not travel")


def pack(document: Mapping[str, Any]) -> bytes:
    """Returns a document as msgpack; arrays travel as tensors.

    Raises:
        BadInputError: There is something in it that does not travel.
    """
    try:
        packed: bytes = msgpack.packb(document, default=_pack_special, use_bin_type=True)
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise BadInputError(f"this does not travel: {error}") from error
    return packed


def _no_extensions(code: int, _data: bytes) -> NoReturn:
    raise BadInputError(f"msgpack extension type {code} is not part of this protocol")


def restore(value: Any, depth: int = 0) -> Value:
    """Turns packed tensors back into arrays, at any depth.

    Raises:
        BadInputError: A tensor whose length does not fit its shape, or something that is no value.
    """
    if isinstance(value, str | bytes | int | float | type(None)):
        return value
    if depth >= _MAX_DEPTH:
        raise BadInputError(f"values nest deeper than {_MAX_DEPTH}")
    if isinstance(value, list):
        return [restore(item, depth + 1) for item in value]
    if is_packed_tensor(value):
        return unpack_tensor(value)
    if isinstance(value, dict):
        if not all(isinstance(key, str) for key in value):  # msgpack's strict_map_key lets binary ones through
            raise BadInputError("a map with a key that is not text is not part of this protocol")
        return {key: restore(item, depth + 1) for key, item in value.items()}
    raise BadInputError(f"{type(value).__name__} is not part of this protocol")


def unpack(payload: bytes) -> Any:
    """Returns what is in a payload, its tensors still packed: see `restore`.

    Raises:
        BadInputError: It is not msgpack, or holds an extension.
    """
    try:
        # strict_map_key: only strings as keys; timestamps (extension -1) come as a value that `restore` refuses
        return msgpack.unpackb(payload, raw=False, strict_map_key=True, ext_hook=_no_extensions)
    except BadInputError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise BadInputError(f"not msgpack of this protocol: {error}") from error
