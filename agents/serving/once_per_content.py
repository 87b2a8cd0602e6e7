"""Computes equal inputs to a module once: the hash of inputs, and a cache of outputs by that hash. Pure."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Protocol

import numpy as np
from cachetools import LRUCache

from s2m3.agents.serving.payloads import payload_bytes
from s2m3.schemas.wire.values import Value

__all__ = ["RememberedOutputs", "content_of_inputs"]

#: Most bytes of one item's outputs in the cache: hidden states of a sound or of a whole picture are larger.
_MOST_OF_ONE = 512_000
#: Bytes that each entry counts for beside its outputs.
_ENTRY = 500


class _Hash(Protocol):
    def update(self, data: Any, /) -> None:
        """Adds bytes."""


def content_of_inputs(inputs: Mapping[str, Value], rounded: Collection[str] = ()) -> bytes | None:
    """Returns 32 bytes that are equal for equal inputs; None for inputs with a value of no known type.

    Args:
        inputs: Name -> value.
        rounded: The names of those that are going to be widened before the module reads them.
    """
    digest = hashlib.sha256()
    try:
        _add(digest, inputs)
        _add(digest, sorted(rounded))
    except TypeError:
        return None
    return digest.digest()


def _add(digest: _Hash, value: Value) -> None:
    match value:
        case bytes():
            digest.update(b"b%d:" % len(value))
            digest.update(value)
        case str():
            data = value.encode(errors="surrogatepass")
            digest.update(b"s%d:" % len(data))
            digest.update(data)
        case np.ndarray():
            digest.update(f"t{value.dtype.str}{value.shape}:".encode())
            digest.update(np.ascontiguousarray(value).data.cast("B") if value.size else b"")
        case Mapping():
            digest.update(b"m%d:" % len(value))
            for name in sorted(value):
                _add(digest, name)
                _add(digest, value[name])
        case list() | tuple():
            digest.update(b"l%d:" % len(value))
            for inner in value:
                _add(digest, inner)
        case None | bool() | int() | float():
            digest.update(f"n{type(value).__name__}{value!r};".encode())
        case _:
            raise TypeError(type(value).__name__)


class RememberedOutputs:
    """The outputs of finished items by module and content; the least recently used are forgotten first.

    Args:
        most_bytes: Bytes of all outputs together.
    """

    def __init__(self, most_bytes: int) -> None:
        self._known: LRUCache[tuple[str, bytes], Mapping[str, Value]] = LRUCache(
            max(0, most_bytes), getsizeof=lambda outputs: _ENTRY + payload_bytes(outputs)
        )

    @property
    def nbytes(self) -> int:
        """Bytes that are remembered now."""
        return int(self._known.currsize)

    def find(self, module: str, content: bytes, wanted: frozenset[str]) -> Mapping[str, Value] | None:
        """Returns the outputs for equal inputs, if all that are wanted are remembered."""
        outputs = self._known.get((module, content))
        return outputs if outputs is not None and wanted <= outputs.keys() else None

    def keep(self, module: str, content: bytes, outputs: Mapping[str, Value]) -> None:
        """Remembers outputs unless they are too large, beside those of the same inputs that are remembered already."""
        known = self._known.get((module, content), {})
        if _ENTRY + payload_bytes({**known, **outputs}) <= min(_MOST_OF_ONE, self._known.maxsize):
            self._known[module, content] = {**known, **{name: _own(value) for name, value in outputs.items()}}

    def forget(self, module: str) -> None:
        """Forgets the outputs of a module."""
        for key in [key for key in self._known if key[0] == module]:
            del self._known[key]


def _own(value: Value) -> Value:
    """Returns the value with its tensors read-only, and none of them a view that keeps a larger one in memory."""
    match value:
        case np.ndarray():
            own = value.copy() if value.base is not None or value.flags.writeable else value
            own.flags.writeable = False
            return own
        case Mapping():
            return {name: _own(inner) for name, inner in value.items()}
        case list():
            return [_own(inner) for inner in value]
    return value
