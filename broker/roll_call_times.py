"""When a roll call is answered, and when one is asked for. Pure: told the time, monotonic seconds."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

__all__ = ["EVERY_S", "LATEST_S", "AnswerTimes", "AskTimes"]

#: An answer comes within so long, spread by chance: a site of a thousand nodes does not speak all at once.
LATEST_S = 0.9
#: No owner answers, and nobody asks, more often than this.
EVERY_S = 5.0
#: Documents of one party come one after the other: what is missing for less long is on its way.
_ON_ITS_WAY_S = 1.0
#: Who is gone for good is asked for ever more rarely.
_LONGEST_S = 300.0


@dataclass(slots=True)
class AnswerTimes:
    """The answers of one owner of retained documents."""

    _last: float = float("-inf")
    _is_due: bool = False

    def asked(self, now: float, chance: float) -> float | None:
        """Takes a roll call in.

        Args:
            now: The time.
            chance: From 0 to 1: spreads the owners.

        Returns:
            In how many seconds to answer; None where an answer to an earlier roll call is still to come and does.
        """
        if self._is_due:
            return None
        self._is_due = True
        return max(chance * LATEST_S, self._last + EVERY_S - now)

    def answered(self, now: float) -> None:
        """Takes note that all was published."""
        self._is_due = False
        self._last = now


@dataclass(slots=True)
class AskTimes:
    """The roll calls of one party that reads retained documents."""

    #: what is missing -> since when
    _since: dict[str, float] = field(default_factory=dict)
    _asked_for: frozenset[str] = frozenset()
    _last: float = float("-inf")
    _wait: float = EVERY_S

    def asked(self, now: float) -> None:
        """Takes note of a roll call that was asked without a reason, at the start."""
        self._last = now

    def is_due(self, missing: AbstractSet[str], now: float) -> bool:
        """Returns whether to ask now, which it takes for done.

        Args:
            missing: Names of documents that what is there speaks of.
            now: The time.
        """
        self._since = {name: self._since.get(name, now) for name in missing}
        lasting = frozenset(name for name, since in self._since.items() if now - since >= _ON_ITS_WAY_S)
        if lasting - self._asked_for:
            self._wait = EVERY_S
        if not lasting or now < self._last + self._wait:
            return False
        self._wait = EVERY_S if lasting - self._asked_for else min(self._wait * 2, _LONGEST_S)
        self._last, self._asked_for = now, lasting
        return True
