"""Values to msgpack and back, with validated tensors. Independent of message types."""

from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import msgpack
import numpy as np

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value, is_packed_tensor, pack_tensor, unpack_tensor

__all__ = ["pack", "pack_map", "restore", "unpack", "values_of"]

_MAX_DEPTH = 16


def _pack_special(value: object) -> Any:
    if isinstance(value, np.ndarray):
        return pack_tensor(value)
    if isinstance(value, np.generic):
        return value.item()
    raise BadInputError(f"{type(value).__name__} does not travel")


def pack(document: Mapping[str, Any]) -> bytes:
    """Returns a document as msgpack, with arrays as packed tensors.

    Raises:
        BadInputError: The document contains a value of a type that the protocol does not have.
    """
    try:
        packed: bytes = msgpack.packb(document, default=_pack_special, use_bin_type=True)
    except (ValueError, OverflowError, TypeError, RecursionError) as error:
        raise BadInputError(f"this does not travel: {error}") from error
    return packed


def _no_extensions(code: int, _data: bytes) -> NoReturn:
    raise BadInputError(f"msgpack extension type {code} is not part of this protocol")


def restore(value: Any, depth: int = 0) -> Value:
    """Returns a value with its packed tensors turned into arrays, at any depth.

    Raises:
        BadInputError: A tensor's length does not fit its shape, or a type is not part of the protocol.
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
        if not all(isinstance(key, str) for key in value):  # msgpack's strict_map_key also accepts binary keys
            raise BadInputError("a map with a key that is not text is not part of this protocol")
        return {key: restore(item, depth + 1) for key, item in value.items()}
    raise BadInputError(f"{type(value).__name__} is not part of this protocol")


def unpack(payload: bytes) -> Any:
    """Returns the contents of a payload, with tensors still packed (see `restore`).

    Raises:
        BadInputError: The payload is not msgpack, or contains an extension type.
    """
    try:
        # strict_map_key: string keys only; timestamps (extension -1) are decoded to a value that `restore` rejects
        return msgpack.unpackb(payload, raw=False, strict_map_key=True, ext_hook=_no_extensions)
    except BadInputError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError, msgpack.UnpackException) as error:
        raise BadInputError(f"not msgpack of this protocol: {error}") from error


def values_of(packed: bytes) -> dict[str, bytes]:
    """Returns each key of a packed map with its value's bytes unchanged, to pass on keys that this release ignores.

    Args:
        packed: A msgpack map that `unpack` has accepted.
    """
    unpacker = msgpack.Unpacker(raw=False, strict_map_key=True, max_buffer_size=len(packed))
    unpacker.feed(packed)
    found = {}
    for _ in range(unpacker.read_map_header()):
        key = unpacker.unpack()
        begins = unpacker.tell()
        unpacker.skip()
        found[key] = packed[begins : unpacker.tell()]
    return found


def pack_map(values: Iterable[tuple[str, bytes]]) -> bytes:
    """Returns a msgpack map of values that are already packed."""
    parts = [part for key, value in values for part in (msgpack.packb(key), value)]
    header: bytes = msgpack.Packer().pack_map_header(len(parts) // 2)
    return b"".join([header, *parts])
