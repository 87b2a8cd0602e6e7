"""Chooses the number of a module's items that run together: as many as pay, within their deadlines. Pure.

A module states the size up to which batching was measured to pay on a CPU. The size doubles where twice as many items
turn out cheaper per item.
"""

from collections.abc import Iterable

__all__ = ["BatchSize"]

#: Most items of a batch.
_MOST = 64
#: Most time per item in a batch twice as large, as a part of the time in the smaller one; else the smaller is kept.
_PAYS = 0.9
#: Batches of a size that are needed to judge it, and the least milliseconds of one: shorter times are mostly noise.
_NEEDED, _LEAST_MS = 3, 5.0
#: Weight of a new measurement.
_SMOOTHING = 0.3
#: Part of the time left of a deadline that a batch may take.
_PART = 0.5


class BatchSize:
    """The size of a module's batches.

    Args:
        said: Items that the module says may run together; 1 never becomes more.
    """

    def __init__(self, said: int) -> None:
        self._said = said
        self._most = _MOST if said > 1 else 1
        #: size -> batches of it, and milliseconds per item
        self._measured: dict[int, tuple[int, float]] = {}
        self.limit = said

    def measured(self, items: int, ms: float) -> None:
        """Takes the time of a batch, milliseconds, and changes the limit if the measurements call for it."""
        count, average = self._measured.get(items, (0, 0.0))
        per_item = ms / items
        self._measured[items] = count + 1, per_item if not count else average + _SMOOTHING * (per_item - average)
        if items != self.limit or ms < _LEAST_MS:
            return
        smaller = self.limit // 2
        if not self._is_known(self.limit) or not self._is_known(smaller):
            return
        pays = self._measured[self.limit][1] < _PAYS * self._measured[smaller][1]
        if pays and 2 * self.limit <= self._most:
            self.limit *= 2
        elif not pays and smaller >= self._said:
            self.limit = smaller
            self._most = smaller

    def _is_known(self, items: int) -> bool:
        return self._measured.get(items, (0, 0.0))[0] >= _NEEDED

    def out_of_memory(self, items: int) -> None:
        """Notes that a batch did not fit into the device's memory: at most half its size from now on."""
        self._most = max(1, items // 2)
        self.limit = min(self.limit, self._most)

    def within(self, seconds_left: Iterable[float], ms: float) -> int:
        """Returns how many of the first items may run together, at least one.

        Args:
            seconds_left: Remaining time of each item's deadline, in the order of the items.
            ms: Time of one item in a batch, milliseconds; 0 if it is not known.
        """
        least, count = float("inf"), 0
        for left in seconds_left:
            least = min(least, left)
            if count == self.limit or (count and (count + 1) * ms > _PART * least * 1000):
                break
            count += 1
        return count
