"""When a process or its device runs short of memory: how much less it can have than its budget. Pure: told all figures.

It never says what has to go: the planner knows which copies are spare, and never takes a last one.
"""

from dataclasses import dataclass

__all__ = ["Pressure"]

#: A budget is reckoned; what batches need while they run comes on top (10 % in the demo). So much is nothing yet.
_TOLERATED = 0.25
#: What a device keeps free, as a part of its memory and at most, 10^6 bytes: below, the kernel begins to kill.
_FREE_PART, _FREE_MOST_MB = 0.05, 200.0
#: Between two demands: the planner needs time to plan, the node to unload.
_PATIENCE_S = 10.0
#: So long without want, and what was given up may come back.
_CALM_S = 60.0


@dataclass(slots=True)
class Pressure:
    """What a node gives up of its budget, 10^6 bytes.

    Args:
        budget_mb: Of the process.
        device_mb: Memory of the device.
    """

    budget_mb: float
    device_mb: float
    mb: float = 0.0
    #: the last look found too little: memory that malloc keeps has been given back since
    wants: bool = False
    _demanded: float = float("-inf")
    _calm_since: float | None = None

    def look(self, rss_mb: float, available_mb: float, now: float) -> bool:
        """Takes in what is measured; returns whether `mb` changed.

        Args:
            rss_mb: What the process takes.
            available_mb: What the device can still give.
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
