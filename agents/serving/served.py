"""A module that the runner serves: what waits for it, and what runs next."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from s2m3.agents.serving.continuous_batching import ContinuousBatcher, Item
from s2m3.agents.serving.fair_queue import FairQueue, Shares
from s2m3.agents.serving.module import Module
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.schemas.wire.work import Work

__all__ = ["Served", "waiting_bytes"]

#: Milliseconds that an item of a module without a measurement is taken to need.
_UNKNOWN_MS = 1.0


@dataclass(slots=True)
class Served:
    """A module, its queue, and what is measured of it. Whoever calls a method holds the runner's lock."""

    module: Module
    queue: FairQueue[Item]
    #: the sequences of a module that generates text; None for other modules
    batcher: ContinuousBatcher | None = None
    #: (request, step) -> its item in the queue
    waiting: dict[tuple[bytes, str], Item] = field(default_factory=dict)
    running: int = 0
    #: the batch that runs; not of a module that generates text
    batch: list[Item] = field(default_factory=list)
    #: when its last decoding step ended
    stepped_at: float = 0.0
    ms: float = 0.0
    #: set by `remove`: no more work is accepted
    on_removed: Callable[[], None] | None = None

    @property
    def estimate_ms(self) -> float:
        """Run time of an item, milliseconds."""
        return self.ms or _UNKNOWN_MS

    def turn(self, shares: Shares) -> tuple[float, float] | None:
        """Returns how soon work that can run now is due against that of other modules; None if there is none."""
        turns = []
        if self.queue and (self.batcher.free_slots > 0 if self.batcher else not self.running):
            turns.append(self.queue.turn())
        if self.batcher is not None and self.running:
            starts = (shares.start_of(item.work.task) for item in self.batcher.items)
            turns.append((min(starts, default=0.0), self.stepped_at))
        return min(turns, default=None)

    def next_batch(self, watchdog: Watchdog) -> list[Item]:
        """Removes and returns the next batch. A request that may have crashed an earlier process runs alone."""
        free = self.batcher.free_slots if self.batcher is not None else self.module.max_batch
        batch: list[Item] = []
        while self.queue and len(batch) < free:
            suspected = watchdog.is_suspected(self.queue.first().work.request)
            if not (suspected and batch):
                batch.append(self.queue.take(self.estimate_ms))
            if suspected:
                break
        for item in batch:
            self.waiting.pop(item.key, None)
        self.running += len(batch)
        self.batch = [] if self.batcher is not None else batch
        return batch

    def takes_over(self, work: Work, now: float) -> bool:
        """Returns whether the work is queued or being generated already; a newer attempt takes over the item."""
        item = self.waiting.get((work.request, work.step))
        if item is None and self.batcher is not None:
            item = next((item for item in self.batcher.items if item.key == (work.request, work.step)), None)
        if item is None or item.dropped:
            return False
        if work.attempt > item.work.attempt:
            item.take_over(work, now + work.ms_left / 1000)
        return True


def waiting_bytes(modules: Iterable[Served]) -> int:
    """Returns the bytes of the inputs of all works that wait or run."""
    held = ((*s.queue, *s.batch, *(s.batcher.items if s.batcher else ())) for s in modules)
    return sum(item.nbytes for items in held for item in items)
