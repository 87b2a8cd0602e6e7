"""Runs modules: a bounded fair queue per module, and one worker thread for all, which runs batches of queued items."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar, cast

import structlog

from s2m3.agents.modules.slices import sliced
from s2m3.agents.serving.continuous_batching import ContinuousBatcher, Item, seeded
from s2m3.agents.serving.fair_queue import FairQueue, Shares
from s2m3.agents.serving.module import Drawing, Generator, Module
from s2m3.agents.serving.served import Served, waiting_bytes
from s2m3.agents.supervision.watchdog import LOOP, WORKER, Call, Watchdog
from s2m3.broker import metrics
from s2m3.schemas.errors import BusyError, ModuleFailedError, NotReadyError, RequestTimeoutError, S2M3Error
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Timing, Work

__all__ = ["Runner"]

_log = structlog.get_logger(__name__)
#: Weight of a new measurement in the moving average of milliseconds per item.
_SMOOTHING = 0.2
#: Time after which requesters are told that their work is under way.
_TELL_S = 1.0
T = TypeVar("T")


#: (work, its outputs, its timing, milliseconds left of its deadline)
Done = Callable[[Work, Mapping[str, Value], Timing, float], None]
Failed = Callable[[Work, S2M3Error], None]
#: (work, sequence number, offset in its text, text) -> whether it was sent
SendPiece = Callable[[Work, int, int, str], bool]


class Runner:
    """Runs work on loaded modules in a worker thread; light modules in the submitter's thread if idle.

    Tasks, and within a task requesters, get equal shares of the worker's time, on all modules together.

    Args:
        node: The node's name, for timings and errors.
        bound: Longest queue per module, items.
        done: Called with the outputs, in the worker's thread (or the submitter's, for light modules).
        failed: Called with the error, in the same threads.
        send_piece: Called with new text of works that stream, in the worker's thread.
        watchdog: Watches the calls of modules.
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
    ) -> None:
        self._node = node
        self._bound = bound
        self._done = done
        self._failed = failed
        self.send_piece = send_piece
        self._watchdog = watchdog or Watchdog()
        self._served: dict[str, Served] = {}
        self._shares = Shares()
        self._changed = threading.Condition()
        self._stopping = False
        #: thread's slot -> the call in progress and its items
        self._under_way: dict[int, tuple[Call, list[Item]]] = {}
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)

    def start(self) -> None:
        """Starts the worker."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends the worker thread after the batch that it is running."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def add(self, module_id: str, module: Module) -> None:
        """Adds a loaded module."""
        batcher = (
            ContinuousBatcher(self._node, cast("Generator", module), self) if hasattr(module, "generates") else None
        )
        served = Served(module, FairQueue(self._shares), batcher)
        metrics.QUEUE_ITEMS.labels(module_id).set_function(lambda: len(served.queue) + served.running)
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

        In a full queue, work of a requester with few items takes the place of the newest item of who has most.

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
            evicted = served.queue.make_room(item.flow) if len(served.queue) >= self._bound else None
            if evicted is not None:
                del served.waiting[evicted.key]
            elif len(served.queue) >= self._bound:
                raise self._busy(module_id)
            runs_here = served.module.light and not served.queue and not served.running
            if runs_here:
                served.running, served.batch = 1, [item]
                self._shares.charge(item.flow, served.estimate_ms)  # the worker goes on with those that it serves
            else:
                served.queue.append(item)
                served.waiting[work.request, work.step] = item
                self._changed.notify()
        if evicted is not None:
            self.fail(evicted, self._busy(module_id))
        if runs_here:
            with self._watched(LOOP, [item]):
                self._serve(served, [item])

    def _busy(self, module_id: str) -> BusyError:
        return BusyError(f"{self._bound} items wait for {module_id}")

    def drop(self, request: bytes, step: str, attempt: int) -> None:
        """Drops work whose result is not needed any more, from the queue or between two tokens; also older attempts."""
        with self._changed:
            for served in self._served.values():
                for item in (*served.queue, *(served.batcher.items if served.batcher else ())):
                    if item.key == (request, step) and item.work.attempt <= attempt:
                        item.dropped = True
                        served.waiting.pop(item.key, None)
                served.queue.remove_dropped()

    def queues(self) -> dict[str, int]:
        """Returns module -> number of items that wait or run, without modules that have none."""
        with self._changed:
            counts = {module_id: len(s.queue) + s.running for module_id, s in self._served.items()}
        return {module_id: n for module_id, n in counts.items() if n}

    def working(self) -> list[Work]:
        """Returns the works that have been computed for a second, by calls that get on: others would do no better.

        Text is written in many short calls: one for each token.
        """
        calls = [found for slot in (WORKER, LOOP) if (found := self._under_way.get(slot)) is not None]
        told = {i.key: i for call, items in calls if self._watchdog.gets_on(call, _TELL_S) for i in items}
        with self._changed:
            batchers = {id_: (s.batcher, s.stepped_at) for id_, s in self._served.items() if s.batcher is not None}
        for module_id, (batcher, stepped_at) in batchers.items():
            for key in batcher.waiting_keys:
                told.pop(key, None)
            if self._watchdog.is_recent(module_id, stepped_at):
                told |= {item.key: item for item in batcher.written_since(time.monotonic() - _TELL_S)}
        return [item.work for item in told.values()]

    def waiting_bytes(self) -> int:
        """Returns the bytes of the inputs of all works that wait or run."""
        with self._changed:
            return waiting_bytes(self._served.values())

    def measured_ms(self) -> dict[str, float]:
        """Returns module -> milliseconds per item (moving average), for modules that have run."""
        with self._changed:
            return {module_id: s.ms for module_id, s in self._served.items() if s.ms}

    # ---- the worker thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._next() is not None or self._drained())
                if self._stopping:
                    return
                removed = [self._pop(module_id) for module_id in self._drained()]
                module_id = self._next()
                served = self._served[module_id] if module_id else None
                batch = served.next_batch(self._watchdog) if served else []
            for gone in removed:
                if gone.on_removed is not None:
                    gone.on_removed()
            if served is not None:
                with self._watched(WORKER, [*batch, *(served.batcher.items if served.batcher else ())]):
                    if served.batcher is not None:
                        self._step(served, served.batcher, batch)
                    else:
                        self._serve(served, batch)

    @contextmanager
    def _watched(self, slot: int, items: list[Item]) -> Iterator[None]:
        if not items:  # all sequences have been dropped since
            yield
            return
        patience_s = max(item.deadline for item in items) - time.monotonic()
        requests = [item.work.request for item in items]
        with self._watchdog.running(slot, items[0].work.hop.module, requests, patience_s) as call:
            self._under_way[slot] = call, items
            try:
                with sliced(partial(self._between_slices, call, items)):
                    yield
            finally:
                del self._under_way[slot]

    def _between_slices(self, call: Call, items: list[Item]) -> None:
        self._watchdog.note_progress(call)
        if max(item.deadline for item in items) <= time.monotonic():
            raise RequestTimeoutError("the deadline passed while it was being computed")

    def _pop(self, module_id: str) -> Served:
        metrics.QUEUE_ITEMS.remove(module_id)
        return self._served.pop(module_id)

    def _next(self) -> str | None:
        """Returns the module whose work is due; modules that run in the submitter's thread are skipped."""
        turns = [(turn, name) for name, s in self._served.items() if (turn := s.turn(self._shares)) is not None]
        return min(turns)[1] if turns else None

    def _drained(self) -> list[str]:
        return [
            module_id
            for module_id, s in self._served.items()
            if s.on_removed is not None and not s.queue and not s.running
        ]

    def _serve(self, served: Served, batch: list[Item]) -> None:
        began = time.monotonic()
        ready: list[tuple[Item, Any]] = []
        for item in batch:
            if item.deadline <= began:
                waited = f"{began - item.arrived:.1f} s"
                self.fail(item, RequestTimeoutError(f"the deadline passed after {waited} in the queue"))
                continue
            prepared = self.call_module(item.work, partial(_prepared, served.module, item.work))
            if isinstance(prepared, S2M3Error):
                self.fail(item, prepared)
            else:
                ready.append((item, prepared))
        estimate_ms = served.estimate_ms
        if ready:
            self._compute(served, ready, began)
        took_ms = (time.monotonic() - began) * 1000 / max(1, len(batch))
        with self._changed:
            for item in batch:
                self._shares.charge(item.flow, took_ms - estimate_ms)
            served.running, served.batch = 0, []
            if served.queue or served.on_removed is not None:
                self._changed.notify()

    def _step(self, served: Served, batcher: ContinuousBatcher, new: list[Item]) -> None:
        began, estimate_ms = time.monotonic(), served.estimate_ms
        batcher.step(new)
        took_ms = (time.monotonic() - began) * 1000
        if (ms := batcher.last_ms) is not None:
            served.ms = ms if not served.ms else served.ms + _SMOOTHING * (ms - served.ms)
            batcher.last_ms = None
        with self._changed:
            for item in new:  # an item that is being written is charged for each step
                self._shares.charge(item.flow, -estimate_ms)
            items = batcher.items
            for item in items:
                self._shares.charge(item.flow, took_ms / len(items))
            served.running = len(items)
            served.stepped_at = time.monotonic()

    def call_module(self, work: Work, call: Callable[[], T]) -> T | S2M3Error:
        """Returns the call's result; an error that it raises is returned as an S2M3Error."""
        try:
            return call()
        except S2M3Error as error:
            return error
        except Exception as error:  # noqa: BLE001  # the only broad except: a module's bug must not end the agent
            _log.exception("module_raised", node=self._node, module=work.hop.module, request=work.request.hex())
            return ModuleFailedError(f"{type(error).__name__}: {error}"[:300])

    def _compute(self, served: Served, ready: list[tuple[Item, Any]], began: float) -> None:
        outputs = self.call_module(ready[0][0].work, partial(_run_batch, served.module, ready))
        if isinstance(outputs, S2M3Error):
            if len(ready) == 1:
                self.fail(ready[0][0], outputs)
                return
            for pair in ready:  # run alone, so that only the item that caused the error fails
                self._compute(served, [pair], time.monotonic())
            return
        ended = time.monotonic()
        run_ms = (ended - began) * 1000
        metrics.count_batch(ready[0][0].work.hop.module, [began - item.arrived for item, _ in ready], ended - began)
        per_item = run_ms / len(ready)
        served.ms = per_item if not served.ms else served.ms + _SMOOTHING * (per_item - served.ms)
        for (item, _), found in zip(ready, outputs, strict=True):
            timing = Timing(self._node, (began - item.arrived) * 1000, run_ms, len(ready))
            self.finish(item, found, timing)

    def finish(self, item: Item, outputs: Mapping[str, Value], timing: Timing) -> None:
        """Hands on the outputs that the route asks for."""
        wanted = item.work.hop.outputs
        if missing := [name for name in wanted if name not in outputs]:
            self.fail(item, ModuleFailedError(f"{item.work.hop.module} gave no output {missing[0]!r}"))
            return
        ms_left = (item.deadline - time.monotonic()) * 1000
        self._done(item.work, {name: outputs[name] for name in wanted}, timing, ms_left)

    def fail(self, item: Item, error: S2M3Error) -> None:
        """Hands on an error, with this step and node unless it names others."""
        error.step = error.step or item.work.step
        error.node = error.node or self._node
        metrics.MODULE_FAILURES.labels(item.work.hop.module, error.code).inc()
        self._failed(item.work, error)


def _prepared(module: Module, work: Work) -> Any:
    if hasattr(module, "prepare_with"):
        return cast("Drawing", module).prepare_with(work.inputs, seeded(work))
    return module.prepare(work.inputs)


def _run_batch(module: Module, ready: list[tuple[Item, Any]]) -> list[dict[str, Value]]:
    wanted = frozenset(output for item, _ in ready for output in item.work.hop.outputs)
    outputs = module.run([prepared for _, prepared in ready], wanted)
    if len(outputs) != len(ready):
        raise ModuleFailedError(f"{len(outputs)} results for {len(ready)} items")
    return outputs
