"""Runs modules: a bounded fair queue per module, and one worker thread for all, which runs batches of queued items."""

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TypeVar, cast

from s2m3.agents.serving.calls import TELL_S, ModuleCalls, OutOfMemoryError, outputs_of
from s2m3.agents.serving.continuous_batching import ContinuousBatcher
from s2m3.agents.serving.exclusive import Exclusive
from s2m3.agents.serving.fair_queue import FairQueue, Shares
from s2m3.agents.serving.items import NOT_PREPARED, Item
from s2m3.agents.serving.module import Generator, Module
from s2m3.agents.serving.once_per_content import RememberedOutputs
from s2m3.agents.serving.outcomes import Done, Failed, Outcomes
from s2m3.agents.serving.preparing import Preparer
from s2m3.agents.serving.served import Served, average, held_bytes
from s2m3.agents.supervision.watchdog import LOOP, WORKER, Watchdog
from s2m3.broker import metrics
from s2m3.schemas.errors import BusyError, NotReadyError, RequestTimeoutError, S2M3Error
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Timing, Work

__all__ = ["Runner"]

#: Bytes of outputs that are remembered, and of items that are prepared ahead of the worker, unless told otherwise.
_REMEMBERED_BYTES, _AHEAD_BYTES = 32_000_000, 64_000_000
T = TypeVar("T")

#: (work, sequence number, offset in its text, text) -> whether it was sent
SendPiece = Callable[[Work, int, int, str], bool]


class Runner:
    """Runs work on loaded modules in a worker thread; light modules in the submitter's thread if idle.

    What takes long to prepare is prepared in other threads, ahead of the worker. Equal inputs are computed once.

    Tasks, and within a task requesters, get equal shares of the worker's time, on all modules together.

    Args:
        node: The node's name, for timings and errors.
        bound: Longest queue per module, items.
        done: Called with the outputs, in the worker's thread, one that prepares, or the submitter's (light modules).
        failed: Called with the error, in the same threads.
        send_piece: Called with new text of works that stream, in the worker's thread.
        watchdog: Watches the calls of modules.
        preparing: Number of threads that prepare.
        remembered_bytes: Most bytes of outputs that are remembered by content.
        ahead_bytes: Bytes of prepared items above which no more are prepared ahead of the worker.
    """

    def __init__(
        self,
        node: str,
        bound: int,
        done: Done,
        failed: Failed,
        send_piece: SendPiece,
        *,
        watchdog: Watchdog | None = None,
        preparing: int = 1,
        remembered_bytes: int = _REMEMBERED_BYTES,
        ahead_bytes: int = _AHEAD_BYTES,
    ) -> None:
        self._node = node
        self._bound = bound
        self.send_piece = send_piece
        self._watchdog = watchdog or Watchdog()
        self._served: dict[str, Served] = {}
        self._shares = Shares()
        lock = threading.Lock()
        self._changed = threading.Condition(lock)
        self._stopping = False
        self._calls = ModuleCalls(node, self._watchdog)
        self._remembered = RememberedOutputs(remembered_bytes)
        self._outcomes = Outcomes(node, lock, self._remembered, done=done, failed=failed, queued=self._notify)
        self._ahead_bytes = ahead_bytes
        self._preparer = Preparer(
            preparing, lock, self._calls, self._outcomes, due=self._to_prepare, prepared=self._changed.notify
        )
        self._exclusive = Exclusive(lock, self._preparer)
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)

    def start(self) -> None:
        """Starts the worker and the threads that prepare."""
        self._thread.start()
        self._preparer.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends the worker thread after the batch that it is running, and those that prepare."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._preparer.stop(timeout_s)
        self._thread.join(timeout_s)

    def add(self, module_id: str, module: Module) -> None:
        """Adds a loaded module."""
        batcher = (
            ContinuousBatcher(self._node, cast("Generator", module), self) if hasattr(module, "generates") else None
        )
        served = Served(module, FairQueue(self._shares), FairQueue(self._shares), batcher)
        metrics.QUEUE_ITEMS.labels(module_id).set_function(lambda: served.backlog + served.running)
        with self._changed:
            self._served[module_id] = served

    def remove(self, module_id: str, on_removed: Callable[[], None]) -> None:
        """Accepts no more work for a module; `on_removed` is called in the worker's thread once its queue is empty."""
        with self._changed:
            served = self._served.get(module_id)
            if served is not None:
                served.on_removed = on_removed
                self._changed.notify()

    def submit(self, work: Work, now: float) -> None:
        """Queues work whose inputs are complete. A newer attempt of queued work replaces it, so that it runs once.

        In a full queue, work of a requester with few items replaces the newest item of the requester with most.

        Raises:
            NotReadyError: The module is not served here.
            BusyError: The module's queue is full.
            RequestTimeoutError: The deadline has passed.
            ModuleFailedError: The request crashed an earlier process of this agent.
        """
        module_id = work.hop.module
        self._watchdog.refuse_poison(work.request)
        if work.ms_left <= 0:
            raise RequestTimeoutError("the deadline was past before the work began", step=work.step, node=self._node)
        with self._changed:
            served = self._served.get(module_id)
            if served is None or served.on_removed is not None:
                raise NotReadyError(f"{module_id} is not served here", step=work.step, node=self._node)
            if served.takes_over(work, now):
                return
            item = Item(work, now, now + work.ms_left / 1000)
            evicted = self._make_room(served, item) if served.backlog >= self._bound else None
            runs_here = not self._exclusive.is_held and served.runs_in_loop(item, self._watchdog)
            if runs_here:
                self._exclusive.enter()
                served.running, served.batch = 1, [item]
                self._shares.charge(item.flow, served.estimate_ms)  # the worker goes on with those that it serves
            else:
                served.queue.append(item)
                served.waiting[work.request, work.step] = item
                self._notify()
        if evicted is not None:
            self.fail(evicted, self._busy(module_id))
        if runs_here:
            with self._exclusive.entered(), self._calls.watched(LOOP, [item]):
                self._serve(served, [item])

    def _make_room(self, served: Served, item: Item) -> Item:
        """Removes and returns the item whose place another one takes in a full queue.

        Raises:
            BusyError: The requester of the other item has the most items already, or as many as others.
        """
        evicted = served.queue.make_room(item.flow) if served.queue else None
        if evicted is None:
            raise self._busy(item.work.hop.module)
        served.settle(evicted)
        return evicted

    def _notify(self) -> None:
        """Has worker and preparer look for work; the caller holds the lock."""
        self._changed.notify()
        self._preparer.notify()

    def _busy(self, module_id: str) -> BusyError:
        return BusyError(f"{self._bound} items wait for {module_id}")

    def drop(self, request: bytes, step: str, attempt: int) -> None:
        """Drops work whose result is not needed any more, from the queue or between two tokens; also older attempts."""
        with self._changed:
            for served in self._served.values():
                served.drop(request, step, attempt)
            self._notify()

    def queues(self) -> dict[str, int]:
        """Returns module -> number of items that wait or run, without modules that have none."""
        with self._changed:
            counts = {module_id: s.backlog + s.running for module_id, s in self._served.items()}
        return {module_id: n for module_id, n in counts.items() if n}

    def working(self) -> list[Work]:
        """Returns the works that have been computed for a second, by calls that are not hung.

        Text is written in many short calls: one for each token.
        """
        told = self._calls.long_running()
        with self._changed:
            batchers = {id_: (s.batcher, s.stepped_at) for id_, s in self._served.items() if s.batcher is not None}
        for module_id, (batcher, stepped_at) in batchers.items():
            for key in batcher.waiting_keys:
                told.pop(key, None)
            if self._watchdog.is_recent(module_id, stepped_at):
                told |= {item.key: item for item in batcher.written_since(time.monotonic() - TELL_S)}
        return [item.work for item in told.values()]

    def waiting_bytes(self) -> int:
        """Returns the bytes of the inputs of all works that wait or run, and of what is prepared of them."""
        with self._changed:
            return held_bytes(self._served.values())

    def measured_ms(self) -> dict[str, float]:
        """Returns module -> milliseconds per item (moving average), for modules that have run."""
        with self._changed:
            return {module_id: s.ms for module_id, s in self._served.items() if s.ms}

    # ---- the worker thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._run_next():  # between two calls the thread holds no module, and no inputs
            pass

    def _run_next(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._stopping or self._next() is not None or self._drained())
            if self._stopping:
                return False
            removed = [self._pop(module_id) for module_id in self._drained()]
            module_id = self._next()
            served = self._served[module_id] if module_id else None
            batch = served.next_batch(self._watchdog, time.monotonic()) if served else []
            self._preparer.notify()
        for on_removed in filter(None, removed):
            on_removed()
        if served is not None:
            self._run_batch(served, batch)
        return True

    def _run_batch(self, served: Served, batch: list[Item]) -> None:
        items = [*batch, *(served.batcher.items if served.batcher else ())]
        alone = any(self._watchdog.is_suspected(item.work.request) for item in items)
        with self._exclusive.alone() if alone else nullcontext(), self._calls.watched(WORKER, items):
            if served.batcher is not None:
                self._step(served, served.batcher, batch)
            else:
                self._serve(served, batch)

    def _pop(self, module_id: str) -> Callable[[], None] | None:
        metrics.QUEUE_ITEMS.remove(module_id)
        self._remembered.forget(module_id)
        return self._served.pop(module_id).on_removed

    def _next(self) -> str | None:
        """Returns the module whose work is due; modules that run in the submitter's thread are skipped."""
        turns = [
            (turn, name)
            for name, s in self._served.items()
            if (turn := s.turn(self._shares, self._watchdog)) is not None
        ]
        return min(turns)[1] if turns else None

    def _to_prepare(self) -> Served | None:
        """Returns the module whose item is due to be prepared apart from the worker; the caller holds the lock."""
        held = sum(item.prepared_bytes for served in self._served.values() for item in served.items())
        turns = [
            (s.queue.turn(), name)
            for name, s in self._served.items()
            if s.next_to_prepare(self._preparer.threads, self._watchdog) is not None
            and (held < self._ahead_bytes or not s.prepared)
        ]
        return self._served[min(turns)[1]] if turns else None

    def _drained(self) -> list[str]:
        return [module_id for module_id, s in self._served.items() if s.is_drained]

    def _serve(self, served: Served, batch: list[Item]) -> None:
        began = time.monotonic()
        waiting = []
        for item in batch:
            if item.prepared is not NOT_PREPARED and item.deadline <= began:
                waited = f"{began - item.arrived:.1f} s"
                self._outcomes.fail_all(
                    served, item, RequestTimeoutError(f"the deadline passed after {waited} in the queue")
                )
            else:
                waiting.append(item)
        ready = self._preparer.prepare_here(served, waiting)
        estimate_ms = served.estimate_ms
        if ready:
            self._compute(served, ready, began)
        took_ms = (time.monotonic() - began) * 1000 / max(1, len(batch))
        with self._changed:
            served.whole_ms = average(served.whole_ms, took_ms)
            for item in batch:
                self._shares.charge(item.flow, took_ms - estimate_ms)
            served.running, served.batch = 0, []
            if served.backlog or served.on_removed is not None:
                self._notify()

    def _step(self, served: Served, batcher: ContinuousBatcher, new: list[Item]) -> None:
        began, estimate_ms = time.monotonic(), served.estimate_ms
        batcher.step(self._preparer.prepare_here(served, new))
        took_ms = (time.monotonic() - began) * 1000
        if (ms := batcher.last_ms) is not None:
            served.ms = average(served.ms, ms)
            batcher.last_ms = None
        with self._changed:
            for item in new:  # an item that is being written is charged for each step
                self._shares.charge(item.flow, -estimate_ms)
            items = batcher.items
            for item in items:
                self._shares.charge(item.flow, took_ms / len(items))
            served.running = len(items)
            served.stepped_at = time.monotonic()
            self._preparer.notify()

    def call_module(self, work: Work, call: Callable[[], T]) -> T | S2M3Error:
        """Returns the call's result; an error that it raises is returned as an S2M3Error."""
        return self._calls.call(work, call)

    def _compute(self, served: Served, ready: list[Item], began: float) -> None:
        outputs = self.call_module(ready[0].work, partial(outputs_of, served.module, ready))
        if isinstance(outputs, S2M3Error):
            if len(ready) == 1:
                self._outcomes.fail_all(served, ready[0], outputs)
                return
            if isinstance(outputs, OutOfMemoryError):
                served.size.out_of_memory(len(ready))
            for item in ready:  # run alone, so that only the item that caused the error fails
                self._compute(served, [item], time.monotonic())
            return
        ended = time.monotonic()
        run_ms = (ended - began) * 1000
        metrics.count_batch(ready[0].work.hop.module, [began - item.arrived for item in ready], ended - began)
        served.ms = average(served.ms, run_ms / len(ready))
        served.size.measured(len(ready), run_ms)
        for item, found in zip(ready, outputs, strict=True):
            self._outcomes.finish_all(
                served, item, found, Timing(self._node, (began - item.arrived) * 1000, run_ms, len(ready))
            )

    def finish(self, item: Item, outputs: Mapping[str, Value], timing: Timing) -> None:
        """Passes on the outputs that the route asks for."""
        self._outcomes.finish(item, outputs, timing)

    def fail(self, item: Item, error: S2M3Error) -> None:
        """Passes on an error, with this step and node unless it names others."""
        self._outcomes.fail(item, error)
