"""Warm second copies in spare memory, for the modules whose loss or queue costs most latency. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from s2m3.planner.solving.exact import is_small
from s2m3.planner.solving.greedy import kept
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.moves import at_each_s, devices_with_room
from s2m3.planner.solving.problem import Floats, Ints, Problem
from s2m3.planner.solving.queueing import has_rates, loaded_objective_s
from s2m3.schemas.instance import Instance

__all__ = ["Spare", "second_copies"]

#: (-worth per MB, module, device): a heap of offers yields the greatest worth first
Offer = tuple[float, int, int]
Queue = list[Offer]
#: Module -> the devices that hold it now.
Held = Mapping[int, set[str]]


@dataclass(frozen=True, slots=True)
class Spare:
    """Parameters of the worth of a second copy.

    Args:
        lost: Probability that a request meets a device that has just been lost.
        notice_s: Seconds to detect a device's loss, replan and publish the plan, before any load begins.
        load_mb_s: Speed at which a device loads the replacement, 10^6 bytes a second.
        keep_free: Part of each device's memory that stays free.
        sticky: Factor on the worth of a copy that already exists (hysteresis).
    """

    lost: float = 0.01
    notice_s: float = 0.3
    load_mb_s: float = 100.0
    keep_free: float = 0.1
    sticky: float = 1.25


def second_copies(
    instance: Instance,
    placement: Mapping[str, Sequence[str]],
    *,
    spare: Spare | None = None,
    current: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[str]]:
    """Returns the copies to add to a placement, module -> devices: at most one per module, most worth per MB first.

    The worth of a second copy of a module, in seconds of weighted latency, is the sum of:

    - for each task that uses the module, `lost` x (the loading time saved when the first device is lost, minus the
      extra latency of the task on the second device);
    - with request rates, the decrease of the objective under load when the module's tasks are spread over both copies
      (only for instances that `is_small` accepts).

    Args:
        instance: Devices, modules, tasks.
        placement: Module -> devices; every module has a device.
        spare: Parameters of the worth; None takes the defaults.
        current: Module -> devices now; an existing copy is preferred, so that second copies rarely move.
    """
    spare = spare or Spare()
    problem = Problem(instance.model_copy(update={"max_replicas": len(instance.devices)}))
    layout = kept(problem, placement)
    layout.reroute()
    layout.free_mb -= spare.keep_free * problem.memory_mb
    held = {problem.module_at[m]: set(devices) for m, devices in (current or {}).items() if m in problem.module_at}
    queue: Queue = []
    added: dict[str, list[str]] = {}
    for module in problem.users:
        _offer(queue, layout, module, spare, held)
    while queue:
        offer = heappop(queue)
        _, module, device = offer
        if not layout.fits(module, device):
            _offer(queue, layout, module, spare, held)  # the next best device
        elif _counts_load(problem) and added and _worth_fell(offer, queue, layout, spare, held):
            continue  # copies added since the offer have taken some of the module's load
        else:
            layout.add(module, device)
            if _counts_load(problem):
                _spread(layout, module, device)
            added[problem.module_ids[module]] = [problem.device_ids[device]]
    return added


def _counts_load(problem: Problem) -> bool:
    return has_rates(problem) and is_small(problem)


def _worth_fell(offer: Offer, queue: Queue, layout: Layout, spare: Spare, held: Held) -> bool:
    """Whether an offer's worth has fallen since it was made; if so, queues a new offer for its module."""
    again: Queue = []
    _offer(again, layout, offer[1], spare, held)
    if again and again[0][0] <= offer[0] * (1 - 1e-9):
        return False
    for lesser in again:
        heappush(queue, lesser)
    return True


def _offer(queue: Queue, layout: Layout, module: int, spare: Spare, held: Held) -> None:
    """Queues an offer for a module's most valuable device, if the module has one copy and the worth is above 0."""
    problem = layout.problem
    if len(layout.copies[module]) > 1:
        return
    devices = devices_with_room(layout, module)
    if not len(devices):
        return
    worth = _worth_s(layout, module, devices, spare)
    exists = [problem.device_ids[d] in held.get(module, ()) for d in devices]
    worth = np.where(exists, worth * spare.sticky, worth)
    best = int(worth.argmax())
    if worth[best] > 0:
        heappush(queue, (-worth[best] / max(problem.size_mb[module], 1.0), module, int(devices[best])))


def _worth_s(layout: Layout, module: int, devices: Ints, spare: Spare) -> Floats:
    """Returns the worth of a second copy on each device, seconds of the objective, [devices]."""
    problem = layout.problem
    load_s = spare.notice_s + problem.size_mb[module] / spare.load_mb_s
    worth = np.zeros(len(devices))
    for t in problem.users[module]:
        weight = problem.tasks[t].weight
        longer = np.maximum(at_each_s(layout, t, module, devices) - weight * layout.latencies[t], 0.0)
        worth += spare.lost * np.maximum(weight * load_s - longer, 0.0)
    if _counts_load(problem):
        current_s = loaded_objective_s(problem, layout.routes)
        worth += [max(0.0, current_s - _spread_s(layout, module, int(device))) for device in devices]
    return worth


def _spread_s(layout: Layout, module: int, device: int) -> float:
    """Returns the objective under load, seconds, with a module's tasks spread over one more copy."""
    trial = layout.copy()
    trial.add(module, device)
    _spread(trial, module, device)
    return loaded_objective_s(trial.problem, trial.routes)


def _spread(layout: Layout, module: int, device: int) -> None:
    """Reroutes tasks to a new copy, one after another, where that lowers the objective under load."""
    problem = layout.problem
    best = loaded_objective_s(problem, layout.routes)
    for t in problem.users[module]:
        before = layout.routes[t]
        steps = zip(problem.tasks[t].modules, before, strict=True)
        layout.routes[t] = tuple(device if used == module else at for used, at in steps)
        value = loaded_objective_s(problem, layout.routes)
        if value < best:
            best = value
        else:
            layout.routes[t] = before
