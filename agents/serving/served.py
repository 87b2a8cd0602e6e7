"""A module that the runner serves: its waiting and prepared items, and the next batch."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from s2m3.agents.serving.batch_size import BatchSize
from s2m3.agents.serving.continuous_batching import ContinuousBatcher
from s2m3.agents.serving.fair_queue import FairQueue, Flow, Shares
from s2m3.agents.serving.items import NOT_PREPARED, Item
from s2m3.agents.serving.module import Module
from s2m3.agents.supervision.watchdog import Watchdog
from s2m3.schemas.wire.work import Work

__all__ = ["Served", "average", "held_bytes"]

#: Milliseconds that an item of a module without a measurement is taken to need.
_UNKNOWN_MS = 1.0
#: Weight of a new measurement in the moving averages of milliseconds per item.
_SMOOTHING = 0.2
#: Preparing that takes less than this, milliseconds, is not worth the way to another thread and back.
_APART_MS = 1.0
#: Milliseconds, and bytes of its inputs, that an item may take in the loop's thread.
_LIGHT_MS, _LIGHT_BYTES = 1.0, 256_000


def average(old: float, new: float) -> float:
    """Returns the moving average after a new measurement; an average of 0 is none yet."""
    return new if not old else old + _SMOOTHING * (new - old)


@dataclass(slots=True)
class Served:
    """A module, its queue, and its measurements. Callers of all methods hold the runner's lock."""

    module: Module
    #: items that nobody has begun to prepare
    queue: FairQueue[Item]
    #: items that are prepared and wait for the worker
    prepared: FairQueue[Item]
    #: the sequences of a module that generates text; None for other modules
    batcher: ContinuousBatcher | None = None
    #: items on their way from `queue` to `prepared`, in the order in which they were begun
    preparing: list[Item] = field(default_factory=list)
    #: (request, step) -> its item, from the queue until it runs; of a follower until it is answered
    waiting: dict[tuple[bytes, str], Item] = field(default_factory=dict)
    #: content -> the item that is prepared or run, and answers those of equal inputs too
    leaders: dict[bytes, Item] = field(default_factory=dict)
    #: how many items run together
    size: BatchSize = field(init=False)
    running: int = 0
    #: the batch that runs; not of a module that generates text
    batch: list[Item] = field(default_factory=list)
    #: when its last decoding step ended
    stepped_at: float = 0.0
    #: moving averages, milliseconds: of running, of preparing, and of both where one thread does both
    ms: float = 0.0
    prepare_ms: float = 0.0
    whole_ms: float = 0.0
    #: set by `remove`: no more work is accepted
    on_removed: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        self.size = BatchSize(self.module.max_batch)

    @property
    def estimate_ms(self) -> float:
        """Run time of an item, milliseconds."""
        return self.ms or _UNKNOWN_MS

    @property
    def backlog(self) -> int:
        """Number of items that wait."""
        leaders = list(self.leaders.values())  # a copy: the metrics' thread asks without the lock
        followers = sum(len(leader.followers) for leader in leaders)
        return len(self.queue) + len(self.preparing) + len(self.prepared) + followers

    @property
    def is_drained(self) -> bool:
        """Whether it accepts no more work and has finished what it had."""
        return self.on_removed is not None and not self.backlog and not self.running

    def items(self) -> Iterator[Item]:
        """Yields the items that wait or run, without followers."""
        yield from (*self.queue, *self.preparing, *self.prepared, *self.batch)
        yield from self.batcher.items if self.batcher is not None else ()

    def runs_in_loop(self, item: Item, watchdog: Watchdog) -> bool:
        """Returns whether an item may run in the loop's thread, where nothing may take over a millisecond.

        One that may have crashed an earlier process may not: the worker runs it alone.
        """
        is_light = self.module.light and self.whole_ms <= _LIGHT_MS and item.nbytes <= _LIGHT_BYTES
        return is_light and not self.backlog and not self.running and not watchdog.is_suspected(item.work.request)

    # ---- preparing ----------------------------------------------------------------------------------------------

    @property
    def prepares_apart(self) -> bool:
        """Whether items are prepared in threads of their own."""
        return self.prepare_ms >= _APART_MS and self.prepares_at_once > 0

    @property
    def prepares_at_once(self) -> int:
        """Number of items that may be prepared at once beside the worker."""
        return int(getattr(self.module, "prepares_at_once", 0))

    def next_to_prepare(self, ahead: int, watchdog: Watchdog) -> Item | None:
        """Returns the item that is due to be prepared apart from the worker, if there is one.

        Args:
            ahead: Items that may be prepared beyond the largest batch.
            watchdog: Knows the requests that have to be alone: they are prepared in the worker's thread.
        """
        if not self.queue or not self.prepares_apart:
            return None
        under_way = sum(item.prepared is NOT_PREPARED for item in self.preparing)
        is_full = len(self.preparing) + len(self.prepared) >= self.size.limit + ahead
        first = self.queue.first()
        if under_way >= self.prepares_at_once or is_full or watchdog.is_suspected(first.work.request):
            return None
        return first

    def begin_preparing(self) -> Item:
        """Removes and returns the next item of the queue, which is being prepared from now on."""
        item = self.queue.take(0.0)  # its flow is charged when it runs
        self.preparing.append(item)
        return item

    def end_preparing(self, item: Item) -> None:
        """Moves prepared items to the worker's queue. Items of one flow stay in order: each waits for earlier ones."""
        if item.prepared is NOT_PREPARED:  # it is answered, or follows another item
            self.preparing.remove(item)
        held: set[Flow] = set()
        for other in list(self.preparing):
            if other.prepared is NOT_PREPARED:
                held.add(other.flow)
            elif other.flow not in held:
                self.preparing.remove(other)
                if not other.dropped:
                    self.prepared.append(other)

    # ---- running ------------------------------------------------------------------------------------------------

    def turn(self, shares: Shares, watchdog: Watchdog) -> tuple[float, float] | None:
        """Returns the order of runnable work among that of other modules, the least first; None if there is none."""
        turns = []
        if self._free_slots(watchdog) > 0 if self.batcher else not self.running:
            if self.prepared:
                turns.append(self.prepared.turn())
            if self.queue and self._runs_from_queue(watchdog):
                turns.append(self.queue.turn())
        if self.batcher is not None and self.running:
            starts = (shares.start_of(item.work.task) for item in self.batcher.items)
            turns.append((min(starts, default=0.0), self.stepped_at))
        return min(turns, default=None)

    def _runs_from_queue(self, watchdog: Watchdog) -> bool:
        if watchdog.is_suspected(self.queue.first().work.request):
            return self.batcher is None or not self.batcher.items
        return not self.prepares_apart

    def _free_slots(self, watchdog: Watchdog) -> int:
        """Returns how many items may begin now; none joins a text that may have crashed an earlier process."""
        if self.batcher is None:
            return self.size.limit
        writes_suspect = any(watchdog.is_suspected(item.work.request) for item in self.batcher.items)
        return 0 if writes_suspect else self.batcher.free_slots

    def next_batch(self, watchdog: Watchdog, now: float) -> list[Item]:
        """Removes and returns the next batch. A request that may have crashed an earlier process runs alone.

        Args:
            watchdog: Knows such requests.
            now: Monotonic seconds: a batch takes at most half of what is left of its items' deadlines.
        """
        free = self._free_slots(watchdog)
        batch: list[Item] = []

        def fits(following: Item) -> bool:
            left = (item.deadline - now for item in (*batch, following))
            return len(batch) < free and (self.batcher is not None or self.size.within(left, self.ms) > len(batch))

        while self.prepared and fits(self.prepared.first()):
            batch.append(self.prepared.take(self.estimate_ms))
        while self.queue and self._runs_from_queue(watchdog) and fits(self.queue.first()):
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

    # ---- equal inputs -------------------------------------------------------------------------------------------

    def follow(self, item: Item, content: bytes) -> bool:
        """Has an item wait for the outputs of one of equal inputs; returns False if it is the first of its content."""
        leader = self.leaders.setdefault(content, item)
        if leader is item or leader.dropped or not set(item.work.hop.outputs) <= set(leader.work.hop.outputs):
            item.content = content if leader is item else None
            return False
        leader.followers.append(item)
        self.waiting[item.key] = item
        return True

    def leave(self, item: Item) -> list[Item]:
        """Ends what an item does for those of equal inputs; returns these followers, which are waiting no more."""
        if item.content is not None and self.leaders.get(item.content) is item:
            del self.leaders[item.content]
        followers, item.followers = [other for other in item.followers if not other.dropped], []
        for follower in followers:
            self.waiting.pop(follower.key, None)
        return followers

    def settle(self, item: Item) -> None:
        """Notes that an item is answered: a newer attempt of its work is a new item."""
        if self.waiting.get(item.key) is item:
            del self.waiting[item.key]

    def queue_again(self, items: Iterable[Item]) -> None:
        """Queues items again whose leader is not going to have outputs."""
        for item in items:
            self.queue.append(item)
            self.waiting[item.key] = item

    def drop(self, request: bytes, step: str, attempt: int) -> None:
        """Drops an item up to an attempt, wherever it is, and has its followers queued again."""
        followers = [other for leader in self.leaders.values() for other in leader.followers]
        for item in (*self.items(), *followers):
            if item.key == (request, step) and item.work.attempt <= attempt and item not in self.batch:
                item.dropped = True
                self.waiting.pop(item.key, None)
                is_prepared = item not in self.preparing or item.prepared is not NOT_PREPARED
                if is_prepared and (self.batcher is None or item not in self.batcher.items):
                    self.queue_again(self.leave(item))
        self.queue.remove_dropped()
        self.prepared.remove_dropped()
        for leader in self.leaders.values():
            leader.followers = [other for other in leader.followers if not other.dropped]


def held_bytes(modules: Iterable[Served]) -> int:
    """Returns the bytes of the inputs of all works that wait or run, and of what is prepared of them."""
    return sum(item.held_bytes for served in modules for item in served.items())
