"""Computes one row per text, with an LRU cache; texts of equal token count run in one batch, without padding."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from s2m3.agents.modules.slices import between_slices
from s2m3.schemas.errors import BadInputError

__all__ = ["EmbeddingCache", "Ids", "Tokens", "check_tokens", "pack", "unpack"]

Floats = npt.NDArray[np.float32]
Ids = npt.NDArray[np.int32]
#: A text's token ids, and what else its tokenizer says of each token, as int32 bytes: a compact cache key, equal for
#: texts that the model cannot distinguish.
Tokens = bytes
#: Most cached rows.
_CACHED_ROWS = 4_096
#: Most tokens of one forward pass: more gained nothing on a CPU, at any length of text.
_TOKENS_PER_PASS = 512
#: Most tokens of the different texts of one item: five hundred labels of 64, about 20 s of one core of a small device.
_MAX_TOKENS = 32_768


def pack(ids: Sequence[int]) -> Tokens:
    """Returns token ids as a cache key."""
    return np.array(ids, np.int32).tobytes()


def check_tokens(texts: Sequence[Tokens], numbers: int = 1) -> None:
    """Refuses an item whose texts are too much work.

    Args:
        texts: The texts.
        numbers: Numbers that stand for one token: 2 where the tokenizer also says each token's type.

    Raises:
        BadInputError: The different ones of its texts have too many tokens together; the text has the numbers.
    """
    together = sum(len(tokens) for tokens in set(texts)) // (numbers * np.dtype(np.int32).itemsize)
    if together > _MAX_TOKENS:
        raise BadInputError(f"{len(texts)} texts of {together:,} tokens together; at most {_MAX_TOKENS:,}")


def unpack(group: Sequence[Tokens]) -> Ids:
    """Returns texts of equal length as int32 (texts, tokens), writable."""
    return np.frombuffer(bytearray().join(group), np.int32).reshape(len(group), -1)


class EmbeddingCache:
    """An LRU cache of the rows of texts.

    Args:
        forward: Computes float32 (texts, width) from token ids, int32 (texts, tokens).
    """

    def __init__(self, forward: Callable[[Ids], Floats]) -> None:
        self._forward = forward
        self._known: LRUCache[Tokens, Floats] = LRUCache(_CACHED_ROWS)
        #: number of rows taken from the cache so far
        self.hits = 0

    def rows(self, items: Sequence[Sequence[Tokens]]) -> list[Floats]:
        """Returns for each item the rows of its texts, float32 (texts of the item, width)."""
        rows = self._rows({tokens for item in items for tokens in item})
        return [np.stack([rows[tokens] for tokens in item]) for item in items]

    def _rows(self, wanted: set[Tokens]) -> dict[Tokens, Floats]:
        """Returns the rows from the cache, and computes and caches missing ones."""
        rows = {tokens: self._known[tokens] for tokens in wanted if tokens in self._known}
        self.hits += len(rows)
        new = wanted - rows.keys()
        for group in _groups(new):
            between_slices()
            found = dict(zip(group, self._forward(unpack(group)), strict=True))
            rows |= found
            # copies, because a view would keep its whole batch in memory
            self._known.update({tokens: row.copy() for tokens, row in found.items()})
        return rows


def _groups(texts: set[Tokens]) -> Iterator[list[Tokens]]:
    """Yields the texts in groups of equal length (bytes, 4 per token) and at most _TOKENS_PER_PASS tokens."""
    by_length: defaultdict[int, list[Tokens]] = defaultdict(list)
    for tokens in texts:
        by_length[len(tokens)].append(tokens)
    for length, same in by_length.items():
        size = max(1, _TOKENS_PER_PASS * np.dtype(np.int32).itemsize // max(length, 1))
        for start in range(0, len(same), size):
            yield same[start : start + size]
