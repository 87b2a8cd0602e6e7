"""How often each task is asked, from what the nodes tell: an average that forgets. Pure: it is told the time."""

import math
from dataclasses import dataclass, field

__all__ = ["Rates"]

#: A request counts for less the longer ago it was: after this long, for a third.
_MEMORY_S = 120.0
#: Below this (one request in some minutes) a task is as good as idle.
_LEAST = 0.005


@dataclass(slots=True)
class Rates:
    """Requests a second, per task."""

    _seen: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, task: str, finished: int, now: float) -> None:
        """Counts requests of a task that were finished just now."""
        weight, then = self._seen.get(task, (0.0, now))
        self._seen[task] = (weight * math.exp((then - now) / _MEMORY_S) + finished, now)

    def rate(self, task: str, now: float) -> float | None:
        """Returns requests a second, to two digits; None for a task that is as good as idle."""
        weight, then = self._seen.get(task, (0.0, now))
        rate = weight * math.exp((then - now) / _MEMORY_S) / _MEMORY_S
        return float(f"{rate:.2g}") if rate >= _LEAST else None
