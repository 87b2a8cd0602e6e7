"""Prepares items beside the worker: a bounded pool of threads decodes, resizes and tokenizes ahead of the runs."""

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, cast

from s2m3.agents.serving.calls import ModuleCalls
from s2m3.agents.serving.continuous_batching import seeded
from s2m3.agents.serving.items import NOT_PREPARED, Item
from s2m3.agents.serving.module import Drawing, Module
from s2m3.agents.serving.outcomes import Outcomes
from s2m3.agents.serving.rounding import widened
from s2m3.agents.serving.served import Served, average
from s2m3.agents.supervision.watchdog import PREPARING
from s2m3.schemas.errors import RequestTimeoutError, S2M3Error
from s2m3.schemas.wire.work import Work

__all__ = ["Preparer"]


class Preparer:
    """Prepares items: in the worker's thread where that takes little, else in its own threads, ahead of the worker.

    Args:
        threads: Number of its threads.
        lock: The runner's lock, which guards the state of all served modules.
        calls: The calls into modules.
        outcomes: Passes on the errors of items, and the outputs of equal ones.
        due: Returns the module whose item is to be prepared next, and may be now; holding the lock.
        prepared: Called with the lock held when an item is prepared, or answered.
    """

    def __init__(
        self,
        threads: int,
        lock: threading.Lock,
        calls: ModuleCalls,
        outcomes: Outcomes,
        *,
        due: Callable[[], Served | None],
        prepared: Callable[[], None],
    ) -> None:
        self._calls = calls
        self._lock = lock
        self._changed = threading.Condition(lock)
        self._outcomes = outcomes
        self._due = due
        self._prepared = prepared
        self._stopping = False
        self._paused = False
        self._under_way = 0
        slots = PREPARING[: max(1, threads)]
        self._threads = [
            threading.Thread(target=self._run, args=(slot,), name=f"prepare-{number}", daemon=True)
            for number, slot in enumerate(slots)
        ]

    @property
    def threads(self) -> int:
        """Number of its threads."""
        return len(self._threads)

    def start(self) -> None:
        """Starts the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self, timeout_s: float) -> None:
        """Ends the threads after the items that they prepare."""
        with self._lock:
            self._stopping = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(timeout_s)

    def notify(self) -> None:
        """Has the threads look for items; the caller holds the lock."""
        self._changed.notify_all()

    def pause(self) -> None:
        """Lets no thread begin an item, and waits until those that were begun are prepared."""
        with self._lock:
            self._paused = True
            self._changed.wait_for(lambda: not self._under_way)

    def resume(self) -> None:
        """Ends a pause."""
        with self._lock:
            self._paused = False
            self._changed.notify_all()

    def _run(self, slot: int) -> None:
        while self._prepare_next(slot):  # between two calls the thread holds no module, and no inputs
            pass

    def _prepare_next(self, slot: int) -> bool:
        with self._lock:
            self._changed.wait_for(lambda: self._stopping or (not self._paused and self._due() is not None))
            if self._stopping:
                return False
            served = cast("Served", self._due())
            item = served.begin_preparing()
            self._under_way += 1
        try:
            with self._calls.watched(slot, [item]):
                self.prepare(served, item)
        finally:
            with self._lock:
                self._under_way -= 1
                served.end_preparing(item)
                if item.dropped:
                    served.queue_again(served.leave(item))
                self._prepared()
                self._changed.notify_all()
        return True

    def prepare_here(self, served: Served, items: Iterable[Item]) -> list[Item]:
        """Prepares items in the calling thread; returns those that are ready to run, the others are answered."""
        return [item for item in items if item.prepared is not NOT_PREPARED or self.prepare(served, item)]

    def prepare(self, served: Served, item: Item) -> bool:
        """Prepares an item; returns whether it is ready to run. One that is not is answered, or follows another."""
        began = time.monotonic()
        if item.deadline <= began:
            late = RequestTimeoutError(f"the deadline passed after {began - item.arrived:.1f} s in the queue")
            self._outcomes.fail_all(served, item, late)
            return False
        if getattr(served.module, "repeatable", False) and self._outcomes.is_answered_by_equal(served, item, began):
            return False
        prepared = self._calls.call(item.work, partial(_prepared, served.module, item.work))
        served.prepare_ms = average(served.prepare_ms, (time.monotonic() - began) * 1000)
        if isinstance(prepared, S2M3Error):
            self._outcomes.fail_all(served, item, prepared)
            return False
        item.set_prepared(prepared)
        return True


def _prepared(module: Module, work: Work) -> Any:
    inputs = widened(work)
    if hasattr(module, "prepare_with"):
        return cast("Drawing", module).prepare_with(inputs, seeded(work))
    return module.prepare(inputs)
