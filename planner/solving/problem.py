"""An instance as arrays: devices, modules and tasks by position. Run-time rows are built on first use."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from graphlib import TopologicalSorter

import numpy as np
from numpy.typing import NDArray

from s2m3.planner.solving.preferences import prices_s
from s2m3.schemas.instance import Instance, PlacedTask

__all__ = ["ABSENT", "OUTSIDE", "Floats", "Ints", "Problem", "Route", "TaskShape", "Wiring"]

Floats = NDArray[np.float64]
Ints = NDArray[np.intp]
#: device position per step, in the order of `TaskShape.step_ids`
Route = tuple[int, ...]

#: Position of a source elsewhere behind the broker, whose own link is not modelled.
OUTSIDE = -1
#: Part of a module that may lack where modules are counted that a device holds: memory sums have rounding errors.
_COUNT_SLACK = 1e-6
#: Device of a step that is left out of a route: it takes no time and has no transfers.
ABSENT = -2


@dataclass(frozen=True, slots=True)
class Wiring:
    """The DAG of a task's steps, by position: predecessors, successors, and orders derived from them."""

    before: tuple[tuple[int, ...], ...]
    followers: tuple[tuple[int, ...], ...]
    #: a topological order
    order: tuple[int, ...]
    head: int
    #: pairs of steps without a path between them: only these can compete for one device
    rivals: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class TaskShape:
    """A task by position. Steps are sorted by id, so that positions compare as ids do."""

    index: int
    weight: float
    rate: float
    source: int
    step_ids: tuple[str, ...]
    modules: tuple[int, ...]
    wiring: Wiring
    #: price of preferences of a step on each device, seconds, [devices + 2]; None if it is 0 everywhere
    prices_s: Floats | None


class Problem:
    """Positions and arrays of an instance. Times are in seconds; sizes and links as in the instance.

    Rows of `seconds` are built on first use, so that replanning after a loss reads only the lost modules' rows.
    """

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        devices = instance.devices
        self.device_ids = tuple(device.id for device in devices)
        self.device_at = {device: d for d, device in enumerate(self.device_ids)}
        self.memory_mb: Floats = np.array([device.memory_mb for device in devices])
        self.latency_ms: Floats = np.array([device.latency_ms for device in devices])
        self.mbps: Floats = np.array([device.mbps for device in devices])
        # two more entries at the end, the indices ABSENT and OUTSIDE: no delay, no limit
        self.links_ms: Floats = np.append(self.latency_ms, (0.0, 0.0))
        self.links_mbps: Floats = np.append(self.mbps, (np.inf, np.inf))
        self.latencies: list[float] = self.links_ms.tolist()
        self.speeds: list[float] = self.links_mbps.tolist()
        self.modules = instance.modules
        self.module_ids = tuple(module.id for module in instance.modules)
        self.module_at = {module: m for m, module in enumerate(self.module_ids)}
        self.size_mb = [module.memory_mb for module in instance.modules]
        self.max_replicas = min(instance.max_replicas, len(devices))
        self._rows: dict[int, Floats] = {}
        self._able: dict[int, Ints] = {}
        self._held: dict[float, int] = {}

    @cached_property
    def tasks(self) -> tuple[TaskShape, ...]:
        """The tasks, in the order of the instance."""
        return tuple(self._shape(t, task) for t, task in enumerate(self.instance.tasks))

    @cached_property
    def users(self) -> Mapping[int, Sequence[int]]:
        """Module -> the distinct tasks that use it; modules without a task have no entry."""
        users: dict[int, list[int]] = defaultdict(list)
        for task in self.tasks:
            for module in sorted(set(task.modules)):
                users[module].append(task.index)
        return users

    def seconds(self, module: int) -> Floats:
        """Returns seconds per item, [devices + 2]; infinite where the module cannot run, 0 at index ABSENT."""
        row = self._rows.get(module)
        if row is None:
            row = np.full(len(self.device_ids) + 2, np.inf)
            row[ABSENT] = 0.0
            known = self.modules[module].seconds
            places = np.fromiter(map(self.device_at.__getitem__, known), dtype=np.intp, count=len(known))
            row[places] = np.fromiter(known.values(), dtype=np.float64, count=len(known))
            self._rows[module] = row
        return row

    def runs_s(self, module: int, device: int) -> float:
        """Returns seconds per item on one device, without building the row; infinite if it cannot run, 0 if ABSENT."""
        row = self._rows.get(module)
        if row is not None:
            return row.item(device)
        return 0.0 if device == ABSENT else self.modules[module].seconds.get(self.device_ids[device], np.inf)

    def able(self, module: int) -> Ints:
        """Returns the positions of the devices that can run a module and have the memory for it when empty."""
        able = self._able.get(module)
        if able is None:
            fits = self.memory_mb + 1e-9 >= self.size_mb[module]
            able = self._able[module] = np.flatnonzero(np.isfinite(self.seconds(module)[:ABSENT]) & fits)
        return able

    def holds(self, size_mb: float) -> int:
        """Returns how many modules of a size, 10^6 bytes and more than none, all devices hold when empty."""
        held = self._held.get(size_mb)
        if held is None:
            held = self._held[size_mb] = int(np.floor(np.maximum(self.memory_mb, 0.0) / size_mb + _COUNT_SLACK).sum())
        return held

    def route_ids(self, task: TaskShape, route: Sequence[int]) -> dict[str, str]:
        """Returns a route as ids, step -> device."""
        return {step: self.device_ids[device] for step, device in zip(task.step_ids, route, strict=True)}

    def price_s(self, task: TaskShape, route: Sequence[int]) -> float:
        """Returns the price of preferences of a route, seconds: it is part of the route's latency as evaluated."""
        return 0.0 if task.prices_s is None else sum(task.prices_s.item(device) for device in route)

    @cached_property
    def _weights(self) -> Mapping[str, float]:
        return {device.id: device.prefer for device in self.instance.devices}

    @cached_property
    def _are_equal(self) -> bool:
        """Whether all devices have the same weight."""
        return len(set(self._weights.values())) <= 1

    def _prices_s(self, task: PlacedTask) -> Floats | None:
        if not task.prefer and self._are_equal:
            return None
        found = prices_s(self._weights, task.prefer, self.instance.preference_s)
        if not any(found.values()):
            return None
        return np.append(np.array([found[device] for device in self.device_ids]), (0.0, 0.0))

    def _shape(self, index: int, task: PlacedTask) -> TaskShape:
        steps = sorted(task.steps, key=lambda step: step.id)
        at = {step.id: s for s, step in enumerate(steps)}
        before = tuple(tuple(sorted(at[name] for name in step.after)) for step in steps)
        return TaskShape(
            index=index,
            weight=task.weight,
            rate=task.rate or 0.0,
            source=OUTSIDE if task.source is None else self.device_at[task.source],
            step_ids=tuple(step.id for step in steps),
            modules=tuple(self.module_at[step.module] for step in steps),
            wiring=_wiring(before),
            prices_s=self._prices_s(task),
        )


@lru_cache(maxsize=1024)
def _wiring(before: tuple[tuple[int, ...], ...]) -> Wiring:
    """Returns the DAG with these predecessors per step; cached, because most tasks have the same shape."""
    steps = range(len(before))
    order = tuple(TopologicalSorter(dict(enumerate(before))).static_order())
    followers = tuple(tuple(s for s in steps if p in before[s]) for p in steps)
    earlier: list[set[int]] = [set() for _ in steps]
    for s in order:
        earlier[s].update(before[s], *(earlier[p] for p in before[s]))
    return Wiring(
        before=before,
        followers=followers,
        order=order,
        head=next(s for s in steps if not followers[s]),
        rivals=tuple((p, q) for p in steps for q in steps[p + 1 :] if p not in earlier[q] and q not in earlier[p]),
    )
