"""How many pieces may be under way from one holder: fewer as soon as they wait in queues. Pure.

It is LEDBAT's rule (RFC 6817): what a piece takes longer than the quickest one is time in queues that requests wait in
too, and the number under way follows a target for that time.
"""

from dataclasses import dataclass

__all__ = ["MOST_PIECES", "Window"]

#: Most pieces under way from one holder.
MOST_PIECES = 8
#: The time in queues that a transfer may cause, seconds.
_TARGET_S = 0.02
#: By how much the quickest piece counts for slower with each piece: the way may have become longer.
_FORGET = 1.002
_LEAST_TIMEOUT_S, _LONGEST_TIMEOUT_S = 3.0, 60.0


@dataclass(slots=True)
class Window:
    """The state of one holder's window, in pieces."""

    size: float = 1.0
    quickest_s: float = float("inf")
    mean_s: float = 0.0
    #: time-outs since the last piece
    silences: int = 0

    @property
    def pieces(self) -> int:
        """Pieces that may be under way."""
        return int(self.size)

    @property
    def timeout_s(self) -> float:
        """Seconds after which a piece counts as lost."""
        return float(min(max(_LEAST_TIMEOUT_S, 4 * self.mean_s) * 2**self.silences, _LONGEST_TIMEOUT_S))

    def took(self, seconds: float) -> float:
        """Counts a piece that has come, by the time since it was asked for.

        Returns:
            Seconds for which nothing more is asked of the holder: a single piece at a time still fills the queues.
        """
        self.silences = 0
        self.quickest_s = min(seconds, self.quickest_s * _FORGET)
        self.mean_s = seconds if not self.mean_s else 0.875 * self.mean_s + 0.125 * seconds
        off = max(-1.0, 1 - (seconds - self.quickest_s) / _TARGET_S)
        before, step = self.size, off / self.size if off > 0 else off
        self.size = min(max(1.0, self.size + step), float(MOST_PIECES))
        return min(seconds, 1.0) if before == self.size == 1.0 and off < 0 else 0.0

    def lost(self) -> None:
        """Counts a piece that did not come in time."""
        self.silences += 1
        self.size = 1.0

    def refused(self) -> None:
        """Counts a holder's word that too much is asked of it."""
        self.size = max(1.0, self.size / 2)
