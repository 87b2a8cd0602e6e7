"""Decides when a plan looks for better places without an order: seldom, and not while changes go on. Pure."""

from dataclasses import dataclass

__all__ = ["ImprovementTimes"]

#: Least interval, as a multiple of the time of a thorough plan: 2 % of a core.
_EVERY = 50.0
#: Seconds without a change before a plan may look, so that a loss changes only the routes that it must; and seconds of
#: changes in a row after which one looks in any case.
_QUIET_S, _AT_LATEST_S = 20.0, 300.0


@dataclass(slots=True)
class ImprovementTimes:
    """Times of changes, and of plans that look for better places. Callers pass monotonic seconds."""

    _improved_at: float = float("-inf")
    #: the first and the last change since then
    _changed_since: float | None = None
    _changed_at: float = float("-inf")

    @property
    def has_changed(self) -> bool:
        """Whether anything changed since the last plan that looked for better places."""
        return self._changed_since is not None

    def changed(self, now: float) -> None:
        """Notes a change."""
        self._changed_at = now
        if self._changed_since is None:
            self._changed_since = now

    def improved(self, now: float) -> None:
        """Notes that a plan that looks for better places is begun."""
        self._improved_at, self._changed_since = now, None

    def is_due(self, now: float, thorough_s: float) -> bool:
        """Returns whether it is time for such a plan, given the seconds that a thorough plan takes."""
        if now < self._improved_at + _EVERY * thorough_s:
            return False
        since = self._changed_since
        return now >= self._changed_at + _QUIET_S or (since is not None and now >= since + _AT_LATEST_S)
