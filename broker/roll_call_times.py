"""When a roll call is answered, and when one is asked for. Pure: methods take the time, monotonic seconds."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

__all__ = ["EVERY_S", "LATEST_S", "AnswerTimes", "AskTimes"]

#: Answers are delayed at random by up to this, so that the nodes of a large site do not publish all at once.
LATEST_S = 0.9
#: Shortest delay. After a freeze, the loss of a connection is noticed before an answer would go out on it.
EARLIEST_S = 0.1
#: An answer that is this late comes from a process that was frozen: what it knows is out of date, so it says nothing.
_FROZEN_S = 2.0
#: Shortest time between two answers of one owner, and between two roll calls of one asker.
EVERY_S = 5.0
#: A document that is missing for less than this is probably on its way: one process publishes several in a row.
_ON_ITS_WAY_S = 1.0
#: Longest time between two roll calls for the same missing documents: the interval doubles up to this.
_LONGEST_S = 300.0


@dataclass(slots=True)
class AnswerTimes:
    """When one owner of retained documents answers."""

    _last: float = float("-inf")
    _is_due: bool = False
    _due: float = 0.0

    def asked(self, now: float, chance: float) -> float | None:
        """Handles a roll call.

        Args:
            now: Monotonic seconds.
            chance: Random number from 0 to 1 that spreads the answers of different owners.

        Returns:
            The delay of the answer, seconds; None if an answer is already due, which answers this roll call too.
        """
        if self._is_due:
            return None
        self._is_due = True
        delay_s = max(EARLIEST_S + chance * (LATEST_S - EARLIEST_S), self._last + EVERY_S - now)
        self._due = now + delay_s
        return delay_s

    def take_due(self, now: float) -> bool:
        """Ends the delay; returns whether to publish now: not if the process was frozen meanwhile (e.g. by SIGSTOP)."""
        self._is_due = False
        if now - self._due > _FROZEN_S:
            return False
        self._last = now
        return True


@dataclass(slots=True)
class AskTimes:
    """When one reader of retained documents asks for a roll call."""

    #: name of a missing document -> since when it is missing
    _since: dict[str, float] = field(default_factory=dict)
    _asked_for: frozenset[str] = frozenset()
    _last: float = float("-inf")
    _wait: float = EVERY_S

    def asked(self, now: float) -> None:
        """Notes a roll call that this process asked for at its start, when nothing was known to be missing."""
        self._last = now

    def is_due(self, missing: AbstractSet[str], now: float) -> bool:
        """Returns whether to ask for a roll call now, and if so, notes that it was asked for.

        Args:
            missing: Names of the documents that other documents refer to and that never arrived.
            now: Monotonic seconds.
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
