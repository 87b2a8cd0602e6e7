"""Passes outputs and errors of items on, also to items of equal inputs, and caches outputs."""

import threading
import time
from collections.abc import Callable, Mapping
from copy import copy

from s2m3.agents.serving.items import Item
from s2m3.agents.serving.once_per_content import RememberedOutputs, content_of_inputs
from s2m3.agents.serving.served import Served
from s2m3.broker import metrics
from s2m3.schemas.errors import ModuleFailedError, RequestTimeoutError, S2M3Error
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Timing, Work

__all__ = ["Done", "Failed", "Outcomes"]

#: (work, its outputs, its timing, milliseconds left of its deadline)
Done = Callable[[Work, Mapping[str, Value], Timing, float], None]
Failed = Callable[[Work, S2M3Error], None]


class Outcomes:
    """Passes outputs and errors on. Its methods are called without the runner's lock.

    Args:
        node: The node's name, for timings and errors.
        lock: The runner's lock, which guards the state of all served modules.
        remembered: The outputs of finished items.
        done: Called with the outputs of an item.
        failed: Called with the error of an item.
        queued: Called with the lock held after items were queued again.
    """

    def __init__(
        self,
        node: str,
        lock: threading.Lock,
        remembered: RememberedOutputs,
        *,
        done: Done,
        failed: Failed,
        queued: Callable[[], None],
    ) -> None:
        self._node = node
        self._lock = lock
        self._remembered = remembered
        self._done = done
        self._failed = failed
        self._queued = queued

    def finish(self, item: Item, outputs: Mapping[str, Value], timing: Timing) -> None:
        """Passes on the outputs that the route asks for."""
        wanted = item.work.hop.outputs
        if missing := [name for name in wanted if name not in outputs]:
            self.fail(item, ModuleFailedError(f"{item.work.hop.module} gave no output {missing[0]!r}"))
            return
        ms_left = (item.deadline - time.monotonic()) * 1000
        self._done(item.work, {name: outputs[name] for name in wanted}, timing, ms_left)

    def fail(self, item: Item, error: S2M3Error) -> None:
        """Passes on an error, with this step and node unless it names others."""
        error.step = error.step or item.work.step
        error.node = error.node or self._node
        metrics.MODULE_FAILURES.labels(item.work.hop.module, error.code).inc()
        self._failed(item.work, error)

    def finish_all(self, served: Served, item: Item, outputs: Mapping[str, Value], timing: Timing) -> None:
        """Passes on the outputs of an item, for items of equal inputs too, and caches them."""
        with self._lock:
            followers = served.leave(item)
            if item.content is not None:
                self._remembered.keep(item.work.hop.module, item.content, outputs)
        self.finish(item, outputs, timing)
        for other in followers:
            queued_ms = timing.queued_ms + (item.arrived - other.arrived) * 1000
            self.finish(other, outputs, Timing(self._node, max(0.0, queued_ms), timing.run_ms, timing.batch))

    def fail_all(self, served: Served, item: Item, error: S2M3Error) -> None:
        """Passes on an error, for items of equal inputs too; after a time-out these are queued again instead."""
        with self._lock:
            served.settle(item)
            followers = served.leave(item)
            if isinstance(error, RequestTimeoutError):
                served.queue_again(followers)
                followers = []
                self._queued()
        errors = [copy(error) for _ in followers]  # each names its own step
        self.fail(item, error)
        for other, own in zip(followers, errors, strict=True):
            self.fail(other, own)

    def is_answered_by_equal(self, served: Served, item: Item, now: float) -> bool:
        """Answers an item of a repeatable module with remembered outputs, or has it follow one of equal inputs.

        Args:
            served: The module.
            item: An item that no other thread works on.
            now: Monotonic seconds.

        Returns:
            Whether the item needs no more work. The first item of its content does.
        """
        content = content_of_inputs(item.work.inputs, item.work.rounded)
        if content is None:
            return False
        hop = item.work.hop
        with self._lock:
            outputs = self._remembered.find(hop.module, content, frozenset(hop.outputs))
            if outputs is None:
                return served.follow(item, content)
            served.settle(item)
        self.finish(item, outputs, Timing(self._node, (now - item.arrived) * 1000, 0.0, 1))
        return True
