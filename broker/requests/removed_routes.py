"""Finds the routes that were removed while a requester's connection was down: nothing arrives of a cleared document.

A route that did not come again after a reconnect is asked for by its name, some seconds later: the planner may still be
publishing its routes to a broker that lost them, and the embedded broker sends no more than 100 retained messages at
once. What is not there either is asked for by a roll call: a broker of a cluster may retain what is out of date.
"""

from collections.abc import Callable, Collection
from functools import partial

from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.roll_call_times import EVERY_S, LATEST_S

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
        roll_call: Asks all owners of documents to publish them again.
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
        roll_call: Callable[[], None],
        probe: Callable[[Callable[[], None]], None],
        is_retaining: Callable[[], bool],
    ) -> None:
        self._loop, self._known, self._ask, self._end = loop, known, ask, end
        self._removed, self._roll_call, self._probe, self._is_retaining = removed, roll_call, probe, is_retaining
        self._unconfirmed: set[str] = set()
        #: of these, those that did not come by name either
        self._absent: set[str] = set()
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
            self._timer = None
        self._absent.clear()
        asking, self._asking = self._asking, []
        self._end(asking)

    def _begin(self) -> None:
        """Asks for some of the routes that did not come, then for a roll call."""
        self._timer = None
        self._unconfirmed &= set(self._known())
        if not (self._is_retaining() and self._unconfirmed):
            return
        asking = self._asking = sorted(self._unconfirmed - self._absent)[:_AT_ONCE]
        if not asking:
            self._roll_call()
            self._timer = self._loop.after(EVERY_S + LATEST_S, self._drop)
            return
        self._ask(asking)
        # twice, as the embedded broker may send a message of another topic before retained ones
        self._probe(partial(self._probe, partial(self._came, asking)))

    def _came(self, asked: list[str]) -> None:
        if asked is self._asking:  # else of an earlier connection
            self._asking = []
            self._end(asked)
            self._absent.update(asked)
            self._begin()

    def _drop(self) -> None:
        self._timer = None
        removed = sorted(self._unconfirmed & self._absent)
        self._unconfirmed -= self._absent
        self._absent.clear()
        for task in removed:
            self._removed(task)
