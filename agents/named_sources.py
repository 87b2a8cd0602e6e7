"""The checkpoints that desired tasks name: those that lie on this device are added to the node's profile.

All agents have to hear all desired tasks: a definition may name a checkpoint by an absolute path, or one that came to
this device a moment ago, which no profile lists. So an agent does little with each: it reads a document once, however
often it is published again, and none without a definition; and it looks for each checkpoint once for all tasks.
"""

from collections.abc import Callable, Iterable

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.schemas import topics
from s2m3.schemas.messages import TaskSpec

__all__ = ["NamedSources"]

#: Documents that come within this time are looked at together.
_SETTLE_S = 0.1
#: Most tasks that are remembered: a document of another one is read each time that it comes.
_MOST_TASKS = 20_000
#: One of these is in every document with a definition, also where a key is written with JSON's escapes.
_MARKS = (b'"definition"', b"\\u")


class NamedSources:
    """The sources of the modules that embedded definitions of tasks name. All methods run in the loop's thread.

    Args:
        link: The agent's connection.
        loop: The agent's loop.
        holds: Whether a source can be loaded on this device.
        offer: Adds sources to the node's profile.
    """

    def __init__(
        self, link: Link, loop: Loop, *, holds: Callable[[str], bool], offer: Callable[[set[str]], None]
    ) -> None:
        self._link, self._loop = link, loop
        self._holds, self._offer = holds, offer
        #: task -> hash of its document, and the sources that it names
        self._known: dict[str, tuple[int, frozenset[str]]] = {}
        self._offered: set[str] = set()
        #: sources to be looked for
        self._waiting: set[str] = set()

    def start(self) -> None:
        """Subscribes, from any thread."""
        listen(self._link, topics.TASK, self._on_task, counts=self._counts)

    def _counts(self, task: str, payload: bytes) -> bool:
        """Returns whether a document has to be read."""
        known = self._known.get(task)
        if known is not None and known[0] == hash(payload):
            self._look_for(known[1])  # a checkpoint may have come to this device since
            return False
        self._known.pop(task, None)
        if any(mark in payload for mark in _MARKS):
            if len(self._known) < _MOST_TASKS:
                self._known[task] = hash(payload), frozenset()  # filled in once it is read
            return True
        return False

    def _on_task(self, task: str, spec: TaskSpec | None) -> None:
        if spec is not None and task in self._known:
            self._known[task] = self._known[task][0], spec.sources
        self._look_for(spec.sources if spec is not None else ())

    def _look_for(self, sources: Iterable[str]) -> None:
        is_scheduled = bool(self._waiting)
        self._waiting.update(source for source in sources if source not in self._offered)
        if self._waiting and not is_scheduled:
            self._loop.after(_SETTLE_S, self._look)

    def _look(self) -> None:
        waiting, self._waiting = self._waiting, set()
        if found := {source for source in sorted(waiting) if self._holds(source)}:
            self._offered |= found
            self._offer(found)
