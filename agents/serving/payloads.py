"""Payloads that wait in an agent: their bytes count against its budget, and beyond that new ones are refused."""

from collections.abc import Callable, Mapping

import numpy as np

from s2m3.agents.memory import rss_mb
from s2m3.schemas.errors import BusyError
from s2m3.schemas.wire.values import Value

__all__ = ["PayloadRoom", "payload_bytes", "payload_limit"]

_MB = 1_000_000
#: The part of the budget that payloads may always take, also if modules fill it, and the least of it, 10^6 bytes. If
#: more is free, the same part is left for the outputs and packets that result from payloads.
_PART, _LEAST_MB = 0.125, 32.0


def payload_bytes(value: Value) -> int:
    """Returns the bytes of the files, texts and tensors in a value or in a mapping of values."""
    match value:
        case bytes() | str():
            return len(value)
        case np.ndarray():
            return value.nbytes
        case Mapping():
            return sum(map(payload_bytes, value.values()))
        case list() | tuple():
            return sum(map(payload_bytes, value))
        case _:
            return 0


def payload_limit(budget_mb: float, rss_mb: float, waiting: int) -> int:
    """Returns how many bytes of payloads may wait: what is free of seven eighths of the budget, at least an eighth.

    Args:
        budget_mb: The agent's memory budget, 10^6 bytes.
        rss_mb: What its process takes, waiting payloads included, 10^6 bytes.
        waiting: Bytes of payloads that wait now.
    """
    least = max(budget_mb * _PART, _LEAST_MB)
    return int(max(least * _MB, (budget_mb * (1 - _PART) - rss_mb) * _MB + waiting))


class PayloadRoom:
    """The memory for payloads in one agent, for all holders together. All calls are in the loop's thread.

    Args:
        budget_mb: The agent's memory budget, 10^6 bytes.
        taken_mb: Returns what the process takes, 10^6 bytes.
    """

    def __init__(self, budget_mb: float, taken_mb: Callable[[], float] = rss_mb) -> None:
        self._budget_mb = budget_mb
        self._taken_mb = taken_mb
        self._holders: dict[str, Callable[[], int]] = {}

    def part_of_budget(self, part: float) -> int:
        """Returns a part of the agent's memory budget, in bytes."""
        return int(self._budget_mb * part * _MB)

    def count(self, holder: str, waiting: Callable[[], int] | None) -> None:
        """Counts what a holder holds from now on; None: no longer.

        Args:
            holder: Its name.
            waiting: Returns the bytes of the payloads that it holds.
        """
        if waiting is None:
            self._holders.pop(holder, None)
        else:
            self._holders[holder] = waiting

    @property
    def waiting(self) -> int:
        """The bytes of the payloads that wait, of all holders."""
        return sum(held() for held in self._holders.values())

    def refusal(self, nbytes: int) -> BusyError | None:
        """Returns why a payload does not fit beside those that wait already; None if it does, or if none waits."""
        waiting = self.waiting
        if not waiting or waiting + nbytes <= payload_limit(self._budget_mb, self._budget_mb, 0):
            return None  # whatever the process takes
        limit = payload_limit(self._budget_mb, self._taken_mb(), waiting)
        if waiting + nbytes <= limit:
            return None
        return BusyError(f"payloads of {waiting / _MB:.0f} MB wait here; of {limit / _MB:.0f} MB at most")
