"""Reads CTranslate2 model files (format 6) part by part: they are mapped, only the wanted tensors are copied out.

A model may lie in several files, cut anywhere, as wheels with a limit of size carry it.

Layout, little-endian: version u32, name of the model class, revision u32, number of tensors u32; per tensor its name,
rank u8, lengths u32 each, type u8, bytes u32, data; then aliases (not read). A name is its length u16, NUL included.
"""

import mmap
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np

from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Tensor

__all__ = ["read_tensors"]

_VERSION = 6
_TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype("<f4"),
    1: np.dtype("<i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<f2"),
}


class _Joined:
    """Mapped files, one behind the other."""

    def __init__(self, parts: Sequence[mmap.mmap]) -> None:
        self._parts = parts
        self._ends = list(accumulate(map(len, parts)))

    def __len__(self) -> int:
        return self._ends[-1]

    def copy(self, start: int, length: int) -> bytes:
        """Returns a copy of `length` bytes from `start` on, all of which are there."""
        pieces = []
        for part, end in zip(self._parts, self._ends, strict=True):
            if length and start < end:
                at = start - (end - len(part))
                pieces.append(part[at : at + length])
                start, length = start + len(pieces[-1]), length - len(pieces[-1])
        return b"".join(pieces)


class _Cursor:
    """Walks over the mapped bytes, never past their end."""

    def __init__(self, data: _Joined, name: str) -> None:
        self._data, self._name, self._at = data, name, 0

    def skip(self, length: int) -> int:
        """Returns where the next `length` bytes begin, and moves behind them."""
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise self.broken(f"ends at {len(self._data)}, {length} bytes wanted at {start}")
        return start

    def number(self, form: str) -> int:
        """Returns the next integer, of a struct format character."""
        length = struct.calcsize("<" + form)
        value: int = struct.unpack("<" + form, self._data.copy(self.skip(length), length))[0]
        return value

    def text(self) -> str:
        """Returns the next name."""
        length = self.number("H")
        start = self.skip(length)
        try:
            return self._data.copy(start, length).rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError as error:
            raise self.broken(f"has no name at {start}") from error

    def tensor(self, *, copy: bool) -> Tensor | None:
        """Returns a copy of the next tensor, or moves behind it."""
        shape = [self.number("I") for _ in range(self.number("B"))]
        code, size = self.number("B"), self.number("I")
        start = self.skip(size)
        if (dtype := _TYPES.get(code)) is None:
            raise self.broken(f"has the unknown type {code} at {start}")
        count = 1
        for length in shape:
            count *= length
        if count * dtype.itemsize != size:
            raise self.broken(f"gives {size} bytes to {dtype.name} {shape} at {start}")
        return np.frombuffer(self._data.copy(start, size), dtype).reshape(shape) if copy else None

    def broken(self, why: str) -> ModuleFailedError:
        """Returns the error for a file that is not what it should be."""
        return ModuleFailedError(f"{self._name} is no whole CTranslate2 model of format {_VERSION}: it {why}")


def read_tensors(paths: Path | Sequence[Path], prefix: str) -> dict[str, Tensor]:
    """Returns the tensors whose names start with `prefix`, by the rest of their names, as read-only arrays.

    Args:
        paths: The file, or the files that are one when they are joined in this order.
        prefix: Of the part.

    Raises:
        ModuleFailedError: A file cannot be read, is of another format or cut off, or holds nothing at the prefix.
    """
    files = [paths] if isinstance(paths, Path) else list(paths)
    name = files[0].name
    try:
        with ExitStack() as opened:
            found = _read(_Cursor(_Joined([_mapped(path, opened) for path in files]), name), prefix)
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise ModuleFailedError(f"{name} cannot be read: {error}") from error
    if not found:
        raise ModuleFailedError(f"{name} holds no tensor at {prefix}")
    return found


def _mapped(path: Path, opened: ExitStack) -> mmap.mmap:
    file = opened.enter_context(path.open("rb"))
    return opened.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _read(cursor: _Cursor, prefix: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    if (version := cursor.number("I")) != _VERSION:
        raise cursor.broken(f"begins with {version}")
    cursor.text()
    cursor.number("I")
    for _ in range(cursor.number("I")):
        name = cursor.text()
        tensor = cursor.tensor(copy=name.startswith(prefix))
        if tensor is not None:
            found[name.removeprefix(prefix)] = tensor
    return found
