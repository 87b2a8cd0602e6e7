"""Runs modules: a bounded queue each, one worker for all (a device does one thing at a time), batches of what waits."""

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar, cast

import structlog

from s2m3.agents.serving.continuous_batching import ContinuousBatcher, Item
from s2m3.agents.serving.module import Generator, Module
from s2m3.agents.supervision.watchdog import LOOP, WORKER, Watchdog
from s2m3.broker import metrics
from s2m3.schemas.errors import BusyError, ModuleFailedError, NotReadyError, RequestTimeoutError, S2M3Error
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Timing, Work

__all__ = ["Runner"]

_log = structlog.get_logger(__name__)
_SMOOTHING = 0.2
T = TypeVar("T")


@dataclass(slots=True)
class _Served:
    module: Module
    #: of a module that writes texts: what it is writing
    generating: ContinuousBatcher | None = None
    queue: deque[Item] = field(default_factory=deque)
    #: (request, step) -> its item in the queue
    waiting: dict[tuple[bytes, str], Item] = field(default_factory=dict)
    running: int = 0
    #: when it last had its turn
    turned: float = 0.0
    ms: float = 0.0
    leaving: Callable[[], None] | None = None

    @property
    def since(self) -> float | None:
        """Since when it has had something to do, as far as it can be done now; None: nothing."""
        times = []
        if self.queue and (self.generating.free_slots > 0 if self.generating else not self.running):
            times.append(self.queue[0].arrived)
        if self.generating is not None and self.running:
            times.append(self.turned)
        return min(times, default=None)


#: (work, its outputs, what it took, milliseconds left of its deadline)
Done = Callable[[Work, Mapping[str, Value], Timing, float], None]
Failed = Callable[[Work, S2M3Error], None]
#: (work, number, where in its text, text) -> whether there was room to send it
SendPiece = Callable[[Work, int, int, str], bool]


class Runner:
    """Runs work on loaded modules in the order it became ready, in a thread of its own; light modules where they are.

    Args:
        node: Ours, for timings and errors.
        bound: Items that may wait per module.
        done: Gets the outputs; called in the worker's thread.
        failed: Gets the error; called in the worker's thread.
        tell: Gets the text of works that stream while it is written; called in the worker's thread.
        watch: Is told what is under way.
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
        self._served: dict[str, _Served] = {}
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="runner", daemon=True)

    def start(self) -> None:
        """Starts the worker."""
        self._thread.start()

    def stop(self, timeout_s: float = 5.0) -> None:
        """Ends the worker after the batch it is at."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join(timeout_s)

    def add(self, module_id: str, module: Module) -> None:
        """Takes a loaded module in."""
        writes = (
            ContinuousBatcher(self._node, cast("Generator", module), self) if hasattr(module, "generates") else None
        )
        served = _Served(module, writes)
        metrics.QUEUE_ITEMS.labels(module_id).set_function(lambda: len(served.queue) + served.running)
        with self._changed:
            self._served[module_id] = served

    def remove(self, module_id: str, then: Callable[[], None]) -> None:
        """Takes no more work for a module; `then` is called (in the worker's thread) once its queue is done."""
        with self._changed:
            served = self._served.get(module_id)
            if served is not None:
                served.leaving = then
                self._changed.notify()

    def submit(self, work: Work, now: float) -> None:
        """Queues complete work. A newer attempt of what waits already takes its place: it is run once.

        Raises:
            NotReadyError: The module is not served here.
            BusyError: Its queue is full.
            RequestTimeoutError: Its deadline is past.
            ModuleFailedError: A process of this agent did not survive it.
        """
        module_id = work.hop.module
        self._watchdog.refuse_poison(work.request)
        if work.ms_left <= 0:
            raise RequestTimeoutError("the deadline was past before the work began", step=work.step, node=self._node)
        with self._changed:
            served = self._served.get(module_id)
            if served is None or served.leaving is not None:
                raise NotReadyError(f"{module_id} is not served here", step=work.step, node=self._node)
            if _replaced(served, work, now):
                return
            if len(served.queue) >= self._bound:
                raise BusyError(f"{self._bound} items wait for {module_id}", step=work.step, node=self._node)
            item = Item(work, now, now + work.ms_left / 1000)
            at_once = served.module.light and not served.queue and not served.running
            if at_once:
                served.running = 1
            else:
                served.queue.append(item)
                served.waiting[work.request, work.step] = item
                self._changed.notify()
        if at_once:
            with self._watched(LOOP, [item]):
                self._serve(served, [item])

    def drop(self, request: bytes, step: str, attempt: int) -> None:
        """Ends work that nobody waits for any more: in a queue, or between two tokens."""
        with self._changed:
            for served in self._served.values():
                for item in (*served.queue, *(served.generating.items if served.generating else ())):
                    if item.key == (request, step) and item.work.attempt <= attempt:
                        item.dropped = True
                        served.waiting.pop(item.key, None)
                served.queue = deque(item for item in served.queue if not item.dropped)

    def queues(self) -> dict[str, int]:
        """Returns items waiting or running, per module that has any."""
        with self._changed:
            counts = {module_id: len(s.queue) + s.running for module_id, s in self._served.items()}
        return {module_id: n for module_id, n in counts.items() if n}

    def measured_ms(self) -> dict[str, float]:
        """Returns the smoothed milliseconds per item of the modules that ran."""
        with self._changed:
            return {module_id: s.ms for module_id, s in self._served.items() if s.ms}

    # ---- the worker ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._next() is not None or self._left())
                if self._stopping:
                    return
                gone = [self._take_out(module_id) for module_id in self._left()]
                module_id = self._next()
                served = self._served[module_id] if module_id else None
                batch = _take(served, self._watchdog) if served else []
            for leaver in gone:
                if leaver.leaving is not None:
                    leaver.leaving()
            if served is not None:
                with self._watched(WORKER, [*batch, *(served.generating.items if served.generating else ())]):
                    if served.generating is not None:
                        self._write(served, served.generating, batch)
                    else:
                        self._serve(served, batch)

    def _watched(self, slot: int, items: list[Item]) -> AbstractContextManager[None]:
        if not items:  # all that was being written has been dropped meanwhile
            return nullcontext()
        patience_s = max(item.deadline for item in items) - time.monotonic()
        return self._watchdog.running(slot, items[0].work.hop.module, [item.work.request for item in items], patience_s)

    def _take_out(self, module_id: str) -> _Served:
        metrics.QUEUE_ITEMS.remove(module_id)
        return self._served.pop(module_id)

    def _next(self) -> str | None:
        """The module that waits longest; not one that runs in the submitter's thread this moment."""
        heads = [(since, name) for name, s in self._served.items() if (since := s.since) is not None]
        return min(heads)[1] if heads else None

    def _left(self) -> list[str]:
        return [
            module_id
            for module_id, s in self._served.items()
            if s.leaving is not None and not s.queue and not s.running
        ]

    def _serve(self, served: _Served, batch: list[Item]) -> None:
        began = time.monotonic()
        ready: list[tuple[Item, Any]] = []
        for item in batch:
            if item.deadline <= began:
                waited = f"{began - item.arrived:.1f} s"
                self.fail(item, RequestTimeoutError(f"the deadline passed after {waited} in the queue"))
                continue
            prepared = self.tried(item.work, partial(served.module.prepare, item.work.inputs))
            if isinstance(prepared, S2M3Error):
                self.fail(item, prepared)
            else:
                ready.append((item, prepared))
        if ready:
            self._compute(served, ready, began)
        with self._changed:
            served.running = 0
            if served.queue or served.leaving is not None:
                self._changed.notify()

    def _write(self, served: _Served, generating: ContinuousBatcher, new: list[Item]) -> None:
        generating.step(new)
        if (took := generating.last_ms) is not None:
            served.ms = took if not served.ms else served.ms + _SMOOTHING * (took - served.ms)
            generating.last_ms = None
        with self._changed:
            served.running = len(generating.items)
            served.turned = time.monotonic()

    def tried(self, work: Work, call: Callable[[], T]) -> T | S2M3Error:
        """Returns what the call returns, or the error that it raised as one of ours."""
        try:
            return call()
        except S2M3Error as error:
            return error
        except Exception as error:  # noqa: BLE001  # the worker's one broad except: the agent outlives its modules' bugs
            _log.exception("module_raised", node=self._node, module=work.hop.module, request=work.request.hex())
            return ModuleFailedError(f"{type(error).__name__}: {error}"[:300])

    def _compute(self, served: _Served, ready: list[tuple[Item, Any]], began: float) -> None:
        outputs = self.tried(ready[0][0].work, partial(_run_batch, served.module, ready))
        if isinstance(outputs, S2M3Error):
            if len(ready) == 1:
                self.fail(ready[0][0], outputs)
                return
            for pair in ready:  # one of them is to blame: the others must not pay for it
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
        """Sends on what was asked for of the outputs."""
        asked = item.work.hop.outputs
        if missing := [name for name in asked if name not in outputs]:
            self.fail(item, ModuleFailedError(f"{item.work.hop.module} gave no output {missing[0]!r}"))
            return
        ms_left = (item.deadline - time.monotonic()) * 1000
        self._done(item.work, {name: outputs[name] for name in asked}, timing, ms_left)

    def fail(self, item: Item, error: S2M3Error) -> None:
        """Answers with an error, of this step on this node if it does not say of which."""
        error.step = error.step or item.work.step
        error.node = error.node or self._node
        metrics.MODULE_FAILURES.labels(item.work.hop.module, error.code).inc()
        self._failed(item.work, error)


def _take(served: _Served, watchdog: Watchdog) -> list[Item]:
    """The next batch; work that may have been the end of a process before this one runs alone."""
    free = served.generating.free_slots if served.generating is not None else served.module.max_batch
    batch: list[Item] = []
    while served.queue and len(batch) < free:
        alone = watchdog.is_suspected(served.queue[0].work.request)
        if not (alone and batch):
            batch.append(served.queue.popleft())
        if alone:
            break
    for item in batch:
        served.waiting.pop(item.key, None)
    served.running += len(batch)
    return batch


def _replaced(served: _Served, work: Work, now: float) -> bool:
    """Whether the work, or an older attempt of it that it now replaces, is in the queue or is being written."""
    item = served.waiting.get((work.request, work.step))
    if item is None and served.generating is not None:
        item = next((item for item in served.generating.items if item.key == (work.request, work.step)), None)
    if item is None or item.dropped:
        return False
    if work.attempt > item.work.attempt:
        item.work, item.deadline = work, now + work.ms_left / 1000
    return True


def _run_batch(module: Module, ready: list[tuple[Item, Any]]) -> list[dict[str, Value]]:
    wanted = frozenset(output for item, _ in ready for output in item.work.hop.outputs)
    outputs = module.run([prepared for _, prepared in ready], wanted)
    if len(outputs) != len(ready):
        raise ModuleFailedError(f"{len(outputs)} results for {len(ready)} items")
    return outputs
