"""Memory pressure: the part of its budget that a process gives up when it or its device runs short. Pure.

It does not choose modules to unload: the planner knows which copies are spare and never removes a module's last one.
"""

from dataclasses import dataclass

__all__ = ["Pressure"]

#: Tolerated excess over the budget, which is an estimate without the temporary memory of batches (10 % in the demo).
_TOLERATED = 0.25
#: Memory that a device keeps free: a part of its memory, and the most, 10^6 bytes. Below, the OOM killer is near.
_FREE_PART, _FREE_MOST_MB = 0.05, 200.0
#: Least time between two increases: the planner has to plan, the node to unload.
_PATIENCE_S = 10.0
#: Time without shortage after which the full budget is available again.
_CALM_S = 60.0


@dataclass(slots=True)
class Pressure:
    """The part of its budget that a node gives up, with hysteresis.

    Args:
        budget_mb: Memory budget of the process, 10^6 bytes.
        device_mb: Total memory of the device, 10^6 bytes.
        mb: The memory given up, 10^6 bytes.
    """

    budget_mb: float
    device_mb: float
    mb: float = 0.0
    #: whether the last measurement found a shortage; the caller then trims the heap before the next one
    wants: bool = False
    _demanded: float = float("-inf")
    _calm_since: float | None = None

    def look(self, rss_mb: float, available_mb: float, now: float) -> bool:
        """Updates `mb` from a measurement; returns whether it changed.

        Only a second shortage in a row increases `mb`, as trimming the heap may end the first.

        Args:
            rss_mb: Resident memory of the process, 10^6 bytes.
            available_mb: Available memory of the device, 10^6 bytes.
            now: Monotonic seconds.
        """
        keep_free = min(self.device_mb * _FREE_PART, _FREE_MOST_MB)
        over = rss_mb - self.budget_mb if rss_mb > self.budget_mb * (1 + _TOLERATED) else 0.0
        short = max(over, keep_free - available_mb)
        before, self.wants = self.wants, short > 0
        if short > 0:
            self._calm_since = None
            if before and now >= self._demanded + _PATIENCE_S:
                self._demanded = now
                self.mb = min(self.mb + short, self.budget_mb)
                return True
            return False
        has_room = rss_mb + self.mb <= self.budget_mb and available_mb - self.mb >= keep_free
        if not self.mb or not has_room:
            self._calm_since = None
            return False
        self._calm_since = now if self._calm_since is None else self._calm_since
        if now < self._calm_since + _CALM_S:
            return False
        self.mb = 0.0
        return True
