"""The payloads of the desired tasks, to publish them again unchanged, and which tasks were removed. Pure: no I/O."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["DesiredTasks"]


@dataclass(slots=True)
class DesiredTasks:
    """The payloads of `task/<task>`, byte for byte: a newer release may have written keys that this one does not know.

    The broker's retained documents decide: a task that has none after a reconnect was removed while we were away. Our
    repeated publication may reach the broker after somebody changed or removed the task: that change is then published
    once more.

    Args:
        publish: Publishes the retained document of a task; an empty payload clears it.
    """

    publish: Callable[[str, bytes], object]
    #: task -> payload of its document
    payloads: dict[str, bytes] = field(default_factory=dict)
    #: tasks whose document has not arrived since the last connect
    _unconfirmed: set[str] = field(default_factory=set)
    #: number of our own publications of each task that the broker has not delivered back to us yet; their payloads;
    #: and other parties' payloads that arrived before them
    _echoes: Counter[str] = field(default_factory=Counter)
    _repeated: dict[str, bytes] = field(default_factory=dict)
    _news: dict[str, bytes] = field(default_factory=dict)

    def on_connected(self) -> None:
        """Handles a new connection: no task is confirmed by a retained document yet, no publication is in flight."""
        self._unconfirmed = set(self.payloads)
        self._echoes.clear()
        self._news.clear()

    def is_on_its_way(self, task: str) -> bool:
        """Returns whether a publication of ours has not come back from the broker yet."""
        return self._echoes[task] > 0

    def on_repeated(self, task: str) -> None:
        """Notes that the document of a task was published again."""
        self._echoes[task] += 1
        self._repeated[task] = self.payloads[task]

    def heard(self, task: str, payload: bytes) -> bool:
        """Handles a document (an empty payload removes the task); returns whether it is to be used."""
        self._unconfirmed.discard(task)
        if self._echoes[task]:
            if payload != self._repeated[task]:
                self._news[task] = payload
            elif self._is_overtaken(task):
                return False
        if payload:
            self.payloads[task] = payload
        else:
            self.payloads.pop(task, None)
        return True

    def _is_overtaken(self, task: str) -> bool:
        """Returns whether our publication replaced a newer payload at the broker; that payload is published again."""
        self._echoes[task] -= 1
        news = self._news.get(task)
        if not self._echoes[task]:
            self._news.pop(task, None)
        if news is None:
            return False
        self.publish(task, news)
        return True

    @property
    def unconfirmed(self) -> frozenset[str]:
        """The tasks whose document has not arrived since the last connect."""
        return frozenset(self._unconfirmed)

    def take_removed(self) -> list[str]:
        """Returns the tasks that were removed while the connection was down, and forgets them.

        To be called when all retained documents have arrived.
        """
        removed = sorted(self._unconfirmed)
        for task in removed:
            del self.payloads[task]
        self._unconfirmed.clear()
        return removed
