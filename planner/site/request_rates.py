"""Request rate of each task from the nodes' load reports, as an exponential moving average. Pure: callers pass time."""

import math
from dataclasses import dataclass, field

__all__ = ["Rates"]

#: Time constant of the average: after this long a request counts 1/e.
_MEMORY_S = 120.0
#: Requests a second below which a task counts as idle.
_LEAST = 0.005


@dataclass(slots=True)
class Rates:
    """Requests a second of each task. Callers pass the time, monotonic seconds."""

    _averages: dict[str, tuple[float, float]] = field(default_factory=dict)

    def copy(self) -> "Rates":
        """Returns an independent copy."""
        return Rates(dict(self._averages))

    def add(self, task: str, finished: int, now: float) -> None:
        """Adds requests of a task that finished at `now`."""
        weight, updated = self._averages.get(task, (0.0, now))
        self._averages[task] = (weight * math.exp((updated - now) / _MEMORY_S) + finished, now)

    def has_any(self, now: float) -> bool:
        """Returns whether any task is asked."""
        return any(self.rate(task, now) is not None for task in self._averages)

    def rate(self, task: str, now: float) -> float | None:
        """Returns requests a second, rounded to two digits; None for an idle task."""
        weight, updated = self._averages.get(task, (0.0, now))
        rate = weight * math.exp((updated - now) / _MEMORY_S) / _MEMORY_S
        return float(f"{rate:.2g}") if rate >= _LEAST else None
