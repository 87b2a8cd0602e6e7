"""Finds the routes that were removed while a requester's connection was down: nothing arrives of a cleared document.

A route that did not come again after a reconnect is asked for by its name, some seconds later: the planner may still be
publishing its routes to a broker that lost them, and the embedded broker sends no more than 100 retained messages at
once.
"""

from collections.abc import Callable, Collection
from functools import partial

from s2m3.broker.event_loop import Loop, Timer

__all__ = ["RemovedRoutes"]

#: How long after a reconnect routes are asked for that did not come again, seconds, and how many at once.
_AFTER_S, _AT_ONCE = 5.0, 50


class RemovedRoutes:
    """The routes that have not arrived since the last connect. All methods run in the loop's thread.

    Args:
        loop: The requester's event loop.
        known: Returns the tasks whose route is known.
        ask: Asks the broker for the retained routes of tasks, by name.
        end: Ends what `ask` began; called with the same tasks.
        removed: Called with each task that has no route any more.
        probe: Calls back once the broker has delivered all that it was asked for before.
        is_retaining: Whether the broker has delivered the retained state of a planner on this connection: if not, it
            has lost its documents, or is another one of a cluster.
    """

    def __init__(
        self,
        loop: Loop,
        *,
        known: Callable[[], Collection[str]],
        ask: Callable[[list[str]], None],
        end: Callable[[list[str]], None],
        removed: Callable[[str], None],
        probe: Callable[[Callable[[], None]], None],
        is_retaining: Callable[[], bool],
    ) -> None:
        self._loop, self._known, self._ask, self._end = loop, known, ask, end
        self._removed, self._probe, self._is_retaining = removed, probe, is_retaining
        self._unconfirmed: set[str] = set()
        self._asking: list[str] = []
        self._timer: Timer | None = None

    def link_down(self) -> None:
        """Handles a lost connection: no route is confirmed any more."""
        self._unconfirmed = set(self._known())
        self._stop()

    def link_up(self) -> None:
        """Handles a new connection, at the SUBACK."""
        self._stop()
        if self._unconfirmed:
            self._timer = self._loop.after(_AFTER_S, self._begin)

    def heard(self, task: str) -> None:
        """Notes that a task's route has arrived, or that it was removed."""
        self._unconfirmed.discard(task)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        asking, self._asking = self._asking, []
        self._end(asking)

    def _begin(self) -> None:
        """Asks for some of the routes that did not come."""
        self._timer = None
        self._unconfirmed &= set(self._known())
        if not (self._is_retaining() and self._unconfirmed):
            return
        asking = self._asking = sorted(self._unconfirmed)[:_AT_ONCE]
        self._ask(asking)
        # twice, as the embedded broker may send a message of another topic before retained ones
        self._probe(partial(self._probe, partial(self._came, asking)))

    def _came(self, asked: list[str]) -> None:
        if asked is not self._asking:
            return  # of an earlier connection
        self._asking = []
        self._end(asked)
        for task in asked:
            if task in self._unconfirmed:
                self._unconfirmed.discard(task)
                self._removed(task)
        self._begin()
