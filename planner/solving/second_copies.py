"""Spare memory put to use: warm second copies of the modules whose loss, or whose queue, would hurt most. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from s2m3.planner.solving.exact import is_small
from s2m3.planner.solving.greedy import kept
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.moves import at_each_s, roomy
from s2m3.planner.solving.problem import Floats, Ints, Problem
from s2m3.planner.solving.queueing import has_rates, loaded_objective_s
from s2m3.schemas.instance import Instance

__all__ = ["Spare", "second_copies"]

#: (- worth per MB, module, device): the greatest worth comes first
Offer = tuple[float, int, int]
Queue = list[Offer]
#: Module -> the devices that hold it now.
Held = Mapping[int, set[str]]


@dataclass(frozen=True, slots=True)
class Spare:
    """What a second copy is thought to be worth.

    Args:
        lost: How likely it is that a request meets a device that has just been lost.
        notice_s: What passes until a device's loss is noticed, planned for and told, however little there is to load.
        load_mb_s: How fast a device loads a module in its place, 10^6 bytes a second.
        keep_free: The part of each device's memory that stays free.
        sticky: By how much another copy has to be worth more than one that is there already.
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
    """Returns the copies to add to a placement, module -> devices: at most one each, worth most per megabyte first.

    A second copy of a module is worth, in seconds of weighted latency:

    - for each task that uses it, the load of the module it saves when its device is lost, less what the task takes
      longer on the second device, times `lost`;
    - with request rates, what the objective under load falls by if its tasks are spread over both copies (at home
      scale only: where the exact search of a fit would be tried).

    Args:
        instance: Devices, modules, tasks.
        placement: Where modules are to be; all of them.
        spare: What a second copy is thought to be worth.
        current: Where copies are now: those are preferred, so that second copies do not wander.
    """
    spare = spare or Spare()
    problem = Problem(instance.model_copy(update={"max_replicas": len(instance.devices)}))
    layout = kept(problem, placement)
    layout.reroute()
    layout.room -= spare.keep_free * problem.memory_mb
    held = {problem.module_at[m]: set(devices) for m, devices in (current or {}).items() if m in problem.module_at}
    queue: Queue = []
    added: dict[str, list[str]] = {}
    for module in problem.users:
        _offer(queue, layout, module, spare, held)
    while queue:
        offer = heappop(queue)
        _, module, device = offer
        if not layout.fits(module, device):
            _offer(queue, layout, module, spare, held)  # the second best device
        elif _counts_load(problem) and added and _is_less(offer, queue, layout, spare, held):
            continue  # copies added meanwhile have taken some of its load
        else:
            layout.add(module, device)
            if _counts_load(problem):
                _spread(layout, module, device)
            added[problem.module_ids[module]] = [problem.device_ids[device]]
    return added


def _counts_load(problem: Problem) -> bool:
    return has_rates(problem) and is_small(problem)


def _is_less(offer: Offer, queue: Queue, layout: Layout, spare: Spare, held: Held) -> bool:
    """Offers a module again if it is not worth any more what it was when it was offered."""
    again: Queue = []
    _offer(again, layout, offer[1], spare, held)
    if again and again[0][0] <= offer[0] * (1 - 1e-9):
        return False
    for lesser in again:
        heappush(queue, lesser)
    return True


def _offer(queue: Queue, layout: Layout, module: int, spare: Spare, held: Held) -> None:
    """Offers the module's best device by worth per megabyte, if any is worth something."""
    problem = layout.problem
    if len(layout.copies[module]) > 1:
        return
    devices = roomy(layout, module)
    if not len(devices):
        return
    worth = _worth_s(layout, module, devices, spare)
    there = [problem.device_ids[d] in held.get(module, ()) for d in devices]
    worth = np.where(there, worth * spare.sticky, worth)
    best = int(worth.argmax())
    if worth[best] > 0:
        heappush(queue, (-worth[best] / max(problem.size_mb[module], 1.0), module, int(devices[best])))


def _worth_s(layout: Layout, module: int, devices: Ints, spare: Spare) -> Floats:
    """What a second copy at each device is worth, seconds of the objective."""
    problem = layout.problem
    load_s = spare.notice_s + problem.size_mb[module] / spare.load_mb_s
    worth = np.zeros(len(devices))
    for t in problem.users[module]:
        weight = problem.tasks[t].weight
        longer = np.maximum(at_each_s(layout, t, module, devices) - weight * layout.latencies[t], 0.0)
        worth += spare.lost * np.maximum(weight * load_s - longer, 0.0)
    if _counts_load(problem):
        now = loaded_objective_s(problem, layout.routes)
        worth += [max(0.0, now - _spread_s(layout, module, int(device))) for device in devices]
    return worth


def _spread_s(layout: Layout, module: int, device: int) -> float:
    """The objective under load with a module's tasks spread over one more copy."""
    trial = layout.twin()
    trial.add(module, device)
    _spread(trial, module, device)
    return loaded_objective_s(trial.problem, trial.routes)


def _spread(layout: Layout, module: int, device: int) -> None:
    """Sends tasks, one after another, to a new copy if that lowers the objective under load."""
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
