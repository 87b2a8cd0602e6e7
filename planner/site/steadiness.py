"""Finds models of tasks with stand-ins that were restored only a moment ago: these do not answer yet. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

__all__ = ["Steadiness"]


@dataclass(slots=True)
class Steadiness:
    """Since when each model of a task has had a ready copy of each of its modules. Callers pass monotonic seconds.

    A model that was lost and is complete again must stay so for a while before it answers, so that a flapping node does
    not change the answers each time. A model that is complete for the first time answers at once.

    Args:
        steady_s: Time for which a restored model must be complete, seconds.
    """

    steady_s: float
    #: (task, rank) -> since when it is complete, of those that are
    _since: dict[tuple[str, int], float] = field(default_factory=dict)
    #: those that were complete once, and not any more
    _lost: set[tuple[str, int]] = field(default_factory=set)

    def copy(self) -> "Steadiness":
        """Returns an independent copy."""
        return Steadiness(self.steady_s, dict(self._since), set(self._lost))

    def note(self, complete: Mapping[str, Sequence[bool]], now: float) -> None:
        """Notes which models are complete now: task -> of each of its models. What is of no other task is forgotten."""
        are = {(task, rank): is_there for task, ranks in complete.items() for rank, is_there in enumerate(ranks)}
        self._lost = {key for key in self._lost | self._since.keys() if not are.get(key, True)} | (
            self._lost & are.keys()
        )
        for key, is_there in are.items():
            if is_there and key not in self._since:
                self._since[key] = now if key in self._lost else float("-inf")
                self._lost.discard(key)
        self._since = {key: since for key, since in self._since.items() if are.get(key)}

    def unsteady(self, task: str, now: float) -> frozenset[int]:
        """Returns the ranks of a task that came back less than `steady_s` ago."""
        return frozenset(
            rank for (of, rank), since in self._since.items() if of == task and now < since + self.steady_s
        )

    def next_steady(self, now: float) -> float | None:
        """Returns the time at which the next model becomes steady; None if none waits for that."""
        ends = (since + self.steady_s for since in self._since.values())
        return min((end for end in ends if end > now), default=None)
