"""The desired tasks as they were said, so that they can be said again unchanged; and those that are no more. Pure."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["DesiredTasks"]

#: Retained documents come at once after a subscription: none for so long, and all have come.
_QUIET_S = 0.5


@dataclass(slots=True)
class DesiredTasks:
    """Payloads of `task/<task>`, byte for byte: a newer release may have said more than this one reads.

    The broker's word counts: a task that it does not name to a connection that came back was removed meanwhile.

    Args:
        clear: Clears the retained document of a task.
    """

    clear: Callable[[str], None]
    _said: dict[str, bytes] = field(default_factory=dict)
    #: those not named since the last connect
    _unconfirmed: set[str] = field(default_factory=set)
    #: our own publications that have not come back yet, and what was removed before they did
    _echoes: Counter[str] = field(default_factory=Counter)
    _removed: set[str] = field(default_factory=set)
    _heard_at: float = float("-inf")

    def on_connected(self, now: float) -> None:
        """The connection is another one: nothing is known to be wanted still."""
        self._unconfirmed = set(self._said)
        self._echoes.clear()
        self._removed.clear()
        self._heard_at = now

    def heard(self, task: str, payload: bytes, now: float) -> bool:
        """Takes a document in; returns whether it counts.

        What we said again and somebody removed before it reached the broker would be there again: that is cleared.
        """
        self._heard_at = now
        self._unconfirmed.discard(task)
        if not payload:
            self._said.pop(task, None)
            if self._echoes[task]:
                self._removed.add(task)
            return True
        if self._echoes[task]:
            self._echoes[task] -= 1
            if task in self._removed:
                if not self._echoes[task]:
                    self._removed.discard(task)
                self.clear(task)
                return False
        self._said[task] = payload
        return True

    def repeat(self) -> Iterator[tuple[str, bytes]]:
        """Returns each task with its document, to be published again now."""
        for task, payload in self._said.items():
            self._echoes[task] += 1
            yield task, payload

    def wait_s(self, now: float) -> float:
        """Returns how much longer the broker may still name tasks that it has not named yet; 0: no longer."""
        return max(0.0, self._heard_at + _QUIET_S - now) if self._unconfirmed else 0.0

    def take_removed(self) -> list[str]:
        """Returns the tasks that were removed while the connection was down, and forgets them."""
        removed = sorted(self._unconfirmed)
        for task in removed:
            del self._said[task]
        self._unconfirmed.clear()
        return removed
