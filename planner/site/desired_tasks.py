"""The desired tasks as they were said, so that they can be said again unchanged; and those that are no more. Pure."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["DesiredTasks"]

#: Retained documents come at once after a subscription: none for so long, and all have come.
_QUIET_S = 0.5


@dataclass(slots=True)
class DesiredTasks:
    """Payloads of `task/<task>`, byte for byte: a newer release may have said more than this one reads.

    The broker's word counts: a task that it does not name to a connection that came back was removed meanwhile. What we
    say again may reach the broker after somebody has changed or removed the task: then that is said once more.

    Args:
        say: Publishes the retained document of a task; an empty payload clears it.
    """

    say: Callable[[str, bytes], object]
    #: task -> its document
    said: dict[str, bytes] = field(default_factory=dict)
    #: those not named since the last connect
    _unconfirmed: set[str] = field(default_factory=set)
    #: our own publications that have not come back yet, what each was, and what others said before they did
    _echoes: Counter[str] = field(default_factory=Counter)
    _repeated: dict[str, bytes] = field(default_factory=dict)
    _news: dict[str, bytes] = field(default_factory=dict)
    _heard_at: float = float("-inf")

    def on_connected(self, now: float) -> None:
        """The connection is another one: nothing is known to be wanted still, and nothing of ours is under way."""
        self._unconfirmed = set(self.said)
        self._echoes.clear()
        self._news.clear()
        self._heard_at = now

    def on_repeated(self, task: str) -> None:
        """Takes note that we have said a task again."""
        self._echoes[task] += 1
        self._repeated[task] = self.said[task]

    def heard(self, task: str, payload: bytes, now: float) -> bool:
        """Takes a document in (empty: the task was removed); returns whether it counts."""
        self._heard_at = now
        self._unconfirmed.discard(task)
        if self._echoes[task]:
            if payload != self._repeated[task]:
                self._news[task] = payload
            elif self._is_overtaken(task):
                return False
        if payload:
            self.said[task] = payload
        else:
            self.said.pop(task, None)
        return True

    def _is_overtaken(self, task: str) -> bool:
        """Whether our own word came after somebody else's, and took its place at the broker: that is said again."""
        self._echoes[task] -= 1
        news = self._news.get(task)
        if not self._echoes[task]:
            self._news.pop(task, None)
        if news is None:
            return False
        self.say(task, news)
        return True

    def wait_s(self, now: float) -> float:
        """Returns how much longer the broker may still name tasks that it has not named yet; 0: no longer."""
        return max(0.0, self._heard_at + _QUIET_S - now) if self._unconfirmed else 0.0

    def take_removed(self) -> list[str]:
        """Returns the tasks that were removed while the connection was down, and forgets them."""
        removed = sorted(self._unconfirmed)
        for task in removed:
            del self.said[task]
        self._unconfirmed.clear()
        return removed
