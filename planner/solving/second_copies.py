"""Chooses warm second copies in spare memory, for the modules whose loss or queue costs most latency. Pure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush

import numpy as np

from s2m3.planner.solving.exact import is_small
from s2m3.planner.solving.greedy import kept
from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.loaded_routes import LoadedRoutes
from s2m3.planner.solving.moves import at_each_s
from s2m3.planner.solving.problem import Floats, Ints, Problem
from s2m3.planner.solving.queueing import has_rates
from s2m3.planner.solving.reserved_memory import ReservedMemory
from s2m3.schemas.instance import Instance

__all__ = ["Spare", "kept_second_copies", "second_copies"]

#: (-worth per MB, module, device, whether the device's memory is reserved for other modules' copies): a heap of offers
#: yields the greatest worth first
Offer = tuple[float, int, int, bool]
Queue = list[Offer]
SecondsLeft = Callable[[], float]


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


@dataclass(slots=True)
class _Site:
    """The copies so far, and the values that the worth of a further copy depends on."""

    layout: Layout
    spare: Spare
    reserved: ReservedMemory
    #: the routes under load; None where load does not count
    load: LoadedRoutes | None
    seconds_left: SecondsLeft
    #: module -> what preferences count against each device, seconds, [devices]; without an entry nothing
    prices_s: Mapping[int, Floats]

    def counted_load(self) -> LoadedRoutes | None:
        """Returns the routes under load as long as there is time to count them."""
        if self.seconds_left() <= 0:
            self.load = None
        return self.load


def second_copies(
    instance: Instance,
    placement: Mapping[str, Sequence[str]],
    *,
    spare: Spare | None = None,
    current: Mapping[str, Sequence[str]] | None = None,
    seconds_left: SecondsLeft | None = None,
) -> dict[str, list[str]]:
    """Returns the copies to add to a placement, module -> devices: at most one per module, most worth per MB first.

    The worth of a second copy of a module, in seconds of weighted latency, is the sum of:

    - for each task that uses the module, `lost` x (the loading time saved when the first device is lost, minus the
      extra latency of the task on the second device);
    - with request rates, the decrease of the objective under load when the module's tasks are spread over both copies
      (only for instances that `is_small` accepts, and as long as there is time).

    A copy that exists moves only to a device where it is worth `sticky` times as much, or where a copy that is worth
    `sticky` times as much per MB needs its memory and finds none elsewhere.

    Preferences never make a copy worthless: its worth is divided by 1 + the price of the device, seconds.

    Args:
        instance: Devices, modules, tasks.
        placement: Module -> devices; every module has a device.
        spare: Parameters of the worth; None takes the defaults.
        current: Module -> devices now; an existing copy is preferred, so that second copies rarely move.
        seconds_left: Returns the seconds in which load may be counted; None takes what is needed.
    """
    spare = spare or Spare()
    problem = Problem(instance.model_copy(update={"max_replicas": len(instance.devices), "preference_s": 0.0}))
    layout = kept(problem, placement)
    layout.reroute()
    reserved = ReservedMemory(layout, current or {}, spare.keep_free)
    load = LoadedRoutes(problem, layout.routes) if has_rates(problem) and is_small(problem) else None
    site = _Site(layout, spare, reserved, load, seconds_left or (lambda: float("inf")), _prices_s(Problem(instance)))
    queue: Queue = []
    added: dict[str, list[str]] = {}
    for module in problem.users:
        _offer(queue, site, module)
    while queue:
        offer = heappop(queue)
        _, module, device, takes_reserved = offer
        if not reserved.has_room(module, device, takes_reserved=takes_reserved):
            _offer(queue, site, module)  # the next best device
        elif site.load is not None and added and _worth_fell(offer, queue, site):
            continue  # copies added since the offer have taken some of the module's load
        else:
            reserved.release(module)
            layout.add(module, device)
            if site.load is not None:
                _spread(site.load, problem, module, device)
                layout.routes = site.load.routes.copy()
            added[problem.module_ids[module]] = [problem.device_ids[device]]
    return added


def _prices_s(problem: Problem) -> dict[int, Floats]:
    """Returns the price of preferences of each device for each module's steps, the largest of its tasks', seconds."""
    found: dict[int, Floats] = {}
    for module, users in problem.users.items():
        prices = [price for t in users if (price := problem.tasks[t].prices_s) is not None]
        if prices:
            found[module] = np.max(prices, axis=0)[:-2]
    return found


def kept_second_copies(
    instance: Instance, placement: Mapping[str, Sequence[str]], current: Mapping[str, Sequence[str]]
) -> dict[str, list[str]]:
    """Returns the second copies that exist and still fit beside a placement, module -> devices: for quick plans.

    Args:
        instance: Devices, modules, tasks.
        placement: Module -> devices; every module has a device.
        current: Module -> devices now.
    """
    room = {device.id: device.memory_mb for device in instance.devices}
    size = {module.id: module.memory_mb for module in instance.modules}
    for name, devices in placement.items():
        for device in devices:
            room[device] -= size[name]
    found: dict[str, list[str]] = {}
    for module in instance.modules:
        if len(placement[module.id]) > 1:
            continue
        for device in current.get(module.id, ()):
            is_able = device not in placement[module.id] and device in room and device in module.seconds
            if is_able and room[device] + SLACK_MB >= size[module.id]:
                room[device] -= size[module.id]
                found[module.id] = [device]
                break
    return found


def _worth_fell(offer: Offer, queue: Queue, site: _Site) -> bool:
    """Whether an offer's worth has fallen since it was made; if so, queues a new offer for its module."""
    again: Queue = []
    _offer(again, site, offer[1])
    if again and again[0][0] <= offer[0] * (1 - 1e-9):
        return False
    for lesser in again:
        heappush(queue, lesser)
    return True


def _offer(queue: Queue, site: _Site, module: int) -> None:
    """Queues an offer for a module's most valuable device, if the module has one copy and the worth is above 0.

    Memory that is reserved for copies of other modules is offered only if no other device is worth anything.
    """
    site.counted_load()  # looks at the time
    if len(site.layout.copies[module]) > 1:
        return
    size_mb = max(site.layout.problem.size_mb[module], 1.0)
    for devices, takes_reserved in site.reserved.choices(module):
        worth = _worth_s(site, module, devices)
        worth = np.where(site.reserved.exists(module, devices), worth * site.spare.sticky, worth)
        if module in site.prices_s:
            worth = worth / (1 + site.prices_s[module][devices])
        best = int(worth.argmax())
        if worth[best] > 0:
            heappush(queue, (-worth[best] / size_mb, module, int(devices[best]), takes_reserved))
            return


def _worth_s(site: _Site, module: int, devices: Ints) -> Floats:
    """Returns the worth of a second copy on each device, seconds of the objective, [devices]."""
    layout, problem, spare = site.layout, site.layout.problem, site.spare
    load_s = spare.notice_s + problem.size_mb[module] / spare.load_mb_s
    worth = np.zeros(len(devices))
    for t in problem.users[module]:
        weight = problem.tasks[t].weight
        longer = np.maximum(at_each_s(layout, t, module, devices) - weight * layout.latencies[t], 0.0)
        worth += spare.lost * np.maximum(weight * load_s - longer, 0.0)
    for position, device in enumerate(devices.tolist()):
        load = site.counted_load()
        if load is None:
            break
        before_s, taken = load.objective_s, load.taken
        _spread(load, problem, module, device)
        worth[position] += before_s - load.objective_s
        load.undo_to(taken)
    return worth


def _spread(load: LoadedRoutes, problem: Problem, module: int, device: int) -> None:
    """Reroutes a module's tasks to a new copy, one after another, where that lowers the objective under load."""
    for t in problem.users[module]:
        steps = zip(problem.tasks[t].modules, load.routes[t], strict=True)
        load.take_if_better(t, tuple(device if used == module else at for used, at in steps))
