"""Rows computed per text, repeated ones from a cache: texts of equal token count run together, without padding."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

__all__ = ["EmbeddingCache", "Ids", "Tokens", "pack"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
#: A text's token ids as int32 bytes: short, bounded, and equal for texts that the model cannot tell apart.
Tokens = bytes
#: Rows remembered.
_REMEMBERED = 4_096
#: Tokens of one forward pass: more gained nothing on a CPU, at any length of text.
_TOKENS_AT_ONCE = 512


def pack(ids: Sequence[int]) -> Tokens:
    """Returns token ids as the key they are remembered by."""
    return np.array(ids, np.int32).tobytes()


def _unpack(group: Sequence[Tokens]) -> Ids:
    """Returns texts of one length as (texts, tokens) int32, writable."""
    return np.frombuffer(bytearray().join(group), np.int32).reshape(len(group), -1)


class EmbeddingCache:
    """The rows of the texts seen last.

    Args:
        forward: (texts, tokens) int32 of one length -> one row of float32 per text.
    """

    def __init__(self, forward: Callable[[Ids], Floats]) -> None:
        self._forward = forward
        self._known: LRUCache[Tokens, Floats] = LRUCache(_REMEMBERED)
        #: Rows that did not have to be computed again, so far.
        self.hits = 0

    def rows(self, items: Sequence[Sequence[Tokens]]) -> list[Floats]:
        """Returns for each item the rows of its texts, float32 (texts, width)."""
        rows = self._rows({tokens for item in items for tokens in item})
        return [np.stack([rows[tokens] for tokens in item]) for item in items]

    def _rows(self, asked: set[Tokens]) -> dict[Tokens, Floats]:
        """The known ones from the cache, the others computed and remembered."""
        rows = {tokens: self._known[tokens] for tokens in asked if tokens in self._known}
        self.hits += len(rows)
        new = asked - rows.keys()
        for group in _groups(new):
            rows |= zip(group, self._forward(_unpack(group)), strict=True)
        # Copies: a row that is kept must not keep the rest of its group.
        self._known.update({tokens: rows[tokens].copy() for tokens in new})
        return rows


def _groups(texts: set[Tokens]) -> Iterator[list[Tokens]]:
    """Yields the texts in groups of one length (bytes, 4 per token), each of a bounded number of tokens."""
    by_length: defaultdict[int, list[Tokens]] = defaultdict(list)
    for tokens in texts:
        by_length[len(tokens)].append(tokens)
    for length, alike in by_length.items():
        size = max(1, _TOKENS_AT_ONCE * np.dtype(np.int32).itemsize // max(length, 1))
        for start in range(0, len(alike), size):
            yield alike[start : start + size]
