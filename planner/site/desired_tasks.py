"""The payloads of the desired tasks, to publish them again unchanged, and which tasks were removed. Pure: no I/O."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

__all__ = ["DesiredTasks"]

#: Retained documents arrive right after the SUBACK: if none arrives for this long, all have arrived.
_QUIET_S = 0.5


@dataclass(slots=True)
class DesiredTasks:
    """The payloads of `task/<task>`, byte for byte: a newer release may have written keys that this one does not know.

    The broker's retained documents decide: a task that has none after a reconnect was removed while we were away.

    Args:
        clear: Clears the retained document of a task.
    """

    clear: Callable[[str], None]
    _said: dict[str, bytes] = field(default_factory=dict)
    #: tasks whose document has not arrived since the last connect
    _unconfirmed: set[str] = field(default_factory=set)
    #: number of our own publications of each task that the broker has not delivered back to us yet
    _echoes: Counter[str] = field(default_factory=Counter)
    #: tasks that were removed while such a publication was under way
    _removed: set[str] = field(default_factory=set)
    _heard_at: float = float("-inf")

    def on_connected(self, now: float) -> None:
        """Handles a new connection: no task is confirmed by a retained document yet."""
        self._unconfirmed = set(self._said)
        self._echoes.clear()
        self._removed.clear()
        self._heard_at = now

    def heard(self, task: str, payload: bytes, now: float) -> bool:
        """Handles a document (an empty payload removes the task); returns whether it is to be used.

        A task that was removed just before our own repeated publication reached the broker would exist again: it is
        cleared, and our publication is not used.
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
        """Returns each task with its payload; the caller publishes them at once."""
        for task, payload in self._said.items():
            self._echoes[task] += 1
            yield task, payload

    def wait_s(self, now: float) -> float:
        """Returns for how many seconds retained documents of unconfirmed tasks may still arrive; 0 if none can."""
        return max(0.0, self._heard_at + _QUIET_S - now) if self._unconfirmed else 0.0

    def take_removed(self) -> list[str]:
        """Returns the tasks that were removed while the connection was down, and forgets them."""
        removed = sorted(self._unconfirmed)
        for task in removed:
            del self._said[task]
        self._unconfirmed.clear()
        return removed
