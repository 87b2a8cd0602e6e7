"""Hashes of files whole and in pieces, in one pass over their bytes."""

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from s2m3.schemas.parts import PIECE_BYTES, PartFile

__all__ = ["ChunkedFile", "describe_file", "hash_pieces", "nbytes_of", "read_chunks"]

_READ_BYTES = 1 << 20


class ChunkedFile(Protocol):
    """A file whose bytes lie in pieces of others (torch_files.py)."""

    @property
    def nbytes(self) -> int:
        """Its length in bytes."""

    def chunks(self) -> Iterable[bytes]:
        """Yields all bytes in order."""


def hash_pieces(chunks: Iterable[bytes], piece_bytes: int = PIECE_BYTES) -> tuple[int, str, bytes]:
    """Returns of bytes in chunks the length, the SHA-256 in hex, and the SHA-256 of each piece, 32 bytes each."""
    whole, piece, inside, length, pieces = hashlib.sha256(), hashlib.sha256(), 0, 0, []
    for chunk in chunks:
        whole.update(chunk)
        length += len(chunk)
        view = memoryview(chunk)
        while view:
            part = view[: piece_bytes - inside]
            piece.update(part)
            inside, view = inside + len(part), view[len(part) :]
            if inside == piece_bytes:
                pieces.append(piece.digest())
                piece, inside = hashlib.sha256(), 0
    if inside:
        pieces.append(piece.digest())
    return length, whole.hexdigest(), b"".join(pieces)


def describe_file(name: str, chunks: Iterable[bytes], piece_bytes: int = PIECE_BYTES) -> tuple[PartFile, bytes]:
    """Returns a file's entry in a manifest, and the list of its pieces' hashes."""
    length, whole, pieces = hash_pieces(chunks, piece_bytes)
    listed = hashlib.sha256(pieces).hexdigest()
    return PartFile(name=name, bytes=length, sha256=whole, pieces_sha256=listed), pieces


def nbytes_of(file: Path | ChunkedFile) -> int:
    """Returns a file's length in bytes."""
    return file.stat().st_size if isinstance(file, Path) else file.nbytes


def read_chunks(file: Path | ChunkedFile) -> Iterable[bytes]:
    """Yields a file's bytes, at most 1 MiB at a time."""
    if not isinstance(file, Path):
        yield from file.chunks()
        return
    with file.open("rb") as opened:
        while chunk := opened.read(_READ_BYTES):
            yield chunk
