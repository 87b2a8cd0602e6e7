"""Chooses the waiting item that runs next: fair queueing of the worker by task, and within a task by requester. Pure.

Start-time fair queueing: each flow has a virtual time, the milliseconds that it was given; of the flows with work, the
one with the least time goes first. A flow without work gains no credit: it begins again at the time of those served.
"""

import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Generic, Protocol, TypeVar

__all__ = ["FairQueue", "Flow", "Queued", "Shares"]

#: Task, and the requester's inbox.
Flow = tuple[str, str]
#: Number of flows above which the half that was given least is forgotten: they begin anew, at the time of the others.
_PRUNE_AT = 256


class Queued(Protocol):
    """An item of a queue."""

    arrived: float
    dropped: bool

    @property
    def flow(self) -> Flow:
        """The flow that it belongs to."""


T = TypeVar("T", bound=Queued)


class _VirtualTimes:
    """The virtual times of flows that share a worker, milliseconds."""

    def __init__(self) -> None:
        self._given: dict[str, float] = {}
        self._now = 0.0

    def __len__(self) -> int:
        return len(self._given)

    def start(self, name: str) -> float:
        """Returns a flow's virtual time; an unknown flow begins at the time of the flows served now."""
        return max(self._given.get(name, 0.0), self._now)

    def serve(self, name: str) -> None:
        """Notes that the worker takes an item of a flow, the one with the least time of the waiting flows."""
        self._now = max(self._now, self.start(name))

    def charge(self, name: str, ms: float) -> None:
        """Adds milliseconds that a flow was given; less than 0 corrects an estimate."""
        self._given[name] = self.start(name) + ms
        if len(self._given) > _PRUNE_AT:
            self._now = max(self._now, sorted(self._given.values())[_PRUNE_AT // 2])
            self._given = {other: given for other, given in self._given.items() if given > self._now}


class Shares:
    """The virtual times of all tasks of a node, and of the requesters of each."""

    def __init__(self) -> None:
        self._tasks = _VirtualTimes()
        self._requesters: dict[str, _VirtualTimes] = {}

    @property
    def size(self) -> int:
        """Number of flows that are remembered; bounded, as any client may invent names."""
        return len(self._tasks) + sum(map(len, self._requesters.values()))

    def start_of(self, task: str) -> float:
        """Returns a task's virtual time: the task with the least goes first."""
        return self._tasks.start(task)

    def start_within(self, flow: Flow) -> float:
        """Returns the virtual time of a requester among those of the same task."""
        times = self._requesters.get(flow[0])
        return times.start(flow[1]) if times is not None else 0.0

    def serve(self, flow: Flow, ms: float) -> None:
        """Notes that the worker takes an item of a flow, with an estimate of its milliseconds.

        Not for items that run outside the order: flows that begin later begin at the time of the flow taken here.
        """
        self._tasks.serve(flow[0])
        self._times(flow[0]).serve(flow[1])
        self.charge(flow, ms)

    def charge(self, flow: Flow, ms: float) -> None:
        """Adds milliseconds to what a flow was given; less than 0 corrects an estimate."""
        self._tasks.charge(flow[0], ms)
        self._times(flow[0]).charge(flow[1], ms)

    def _times(self, task: str) -> _VirtualTimes:
        if len(self._requesters) > _PRUNE_AT and task not in self._requesters:
            self._requesters.pop(next(iter(self._requesters)))
        return self._requesters.setdefault(task, _VirtualTimes())


class FairQueue(Generic[T]):
    """The items that wait for one module; in order of arrival within a flow.

    Args:
        shares: The virtual times of all flows, on all modules of the node.
    """

    def __init__(self, shares: Shares) -> None:
        self._shares = shares
        #: task -> requester -> items; no empty ones
        self._flows: dict[str, dict[str, deque[T]]] = {}
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[T]:
        return (item for flows in self._flows.values() for items in flows.values() for item in items)

    def append(self, item: T) -> None:
        """Adds an item."""
        task, requester = item.flow
        self._flows.setdefault(task, {}).setdefault(requester, deque()).append(item)
        self._length += 1

    def first(self) -> T:
        """Returns the next item. The queue must not be empty."""
        return self._next()[1][0]

    def turn(self) -> tuple[float, float]:
        """Returns the order of the next item among those of other modules: the least is due first."""
        flow, items = self._next()
        return self._shares.start_of(flow[0]), items[0].arrived

    def take(self, ms: float) -> T:
        """Removes and returns the next item, and charges its flow with an estimate of its run time, milliseconds."""
        flow, items = self._next()
        self._shares.serve(flow, ms)
        item = items.popleft()
        self._removed(flow, 1)
        return item

    def make_room(self, flow: Flow) -> T | None:
        """Removes and returns the newest item of the longest flow, for one that is shorter.

        Args:
            flow: The flow of the item that there is no room for.

        Returns:
            The item; None if no other task, and no other requester of that task, has more items than the flow.
        """
        task, requester = flow
        sizes = {name: sum(map(len, flows.values())) for name, flows in self._flows.items()}
        longest = max(sizes, key=lambda name: sizes[name])
        within = self._flows[longest]
        largest = max(within, key=lambda name: len(within[name]))
        if sizes[longest] <= sizes.get(task, 0) + 1:
            within = self._flows.get(task, {})
            largest = max(within, key=lambda name: len(within[name]), default=requester)
            if len(within.get(largest, ())) <= len(within.get(requester, ())) + 1:
                return None
            longest = task
        item = within[largest].pop()
        self._removed((longest, largest), 1)
        return item

    def remove_dropped(self) -> None:
        """Removes the items whose result is not needed any more."""
        for task, flows in list(self._flows.items()):
            for requester, items in list(flows.items()):
                kept = deque(item for item in items if not item.dropped)
                flows[requester] = kept
                self._removed((task, requester), len(items) - len(kept))

    def _next(self) -> tuple[Flow, deque[T]]:
        """Returns the flow that is served next; of equal flows the one that has had work for longest."""
        task = _only(self._flows) or min(self._flows, key=self._shares.start_of)
        flows = self._flows[task]
        requester = _only(flows) or min(flows, key=lambda name: self._shares.start_within((task, name)))
        return (task, requester), flows[requester]

    def _removed(self, flow: Flow, count: int) -> None:
        task, requester = flow
        self._length -= count
        if not self._flows[task][requester]:
            del self._flows[task][requester]
        if not self._flows[task]:
            del self._flows[task]


def _only(names: Iterable[str]) -> str | None:
    """Returns the name if there is only one, as in most queues."""
    first, *others = itertools.islice(names, 2)
    return None if others else first
