"""Planning again: what was lost is placed at once and nothing else moves; anything else has to be worth its moves."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from s2m3.planner.solving.greedy import complete, kept, named, sorted_by_need
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.migration import Move, is_reachable
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.queueing import mean_objective_s
from s2m3.planner.solving.repair import make_room
from s2m3.planner.solving.solve import best_layout, first_layout
from s2m3.schemas.instance import Instance

__all__ = ["Replan", "Worth", "replan"]

Placement = Mapping[str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Worth:
    """What a plan has to be worth to replace another that serves every task.

    Args:
        gain: The least gain, as a part of the objective that there is.
        payback_rounds: Within how many requests of each task the time spent loading has to be won back.
        load_mb_s: How fast devices load modules, 10^6 bytes a second.
    """

    gain: float = 0.05
    payback_rounds: float = 1000.0
    load_mb_s: float = 100.0


@dataclass(frozen=True, slots=True)
class Replan:
    """Where modules are to be now.

    Args:
        placement: Module -> devices.
        why: `unchanged`: it is the current one. `lost`: modules without a copy got one. `gain`: it is worth its moves.
        loads: The copies that are not there yet.
        objective_s: Of the placement, on idle devices.
    """

    placement: Mapping[str, list[str]]
    why: Literal["unchanged", "lost", "gain"]
    loads: tuple[Move, ...]
    objective_s: float


def replan(
    instance: Instance,
    current: Placement,
    *,
    worth: Worth | None = None,
    budget_s: float = 1.0,
    clock: Callable[[], float] = time.perf_counter,
) -> Replan:
    """Returns the placement to have next.

    If modules have no copy left (their device is gone, or they are new), only these are placed, each where its tasks
    complete earliest; others move only if there is no room without. Otherwise a better placement is looked for,
    modules go back to where they are wherever that costs less than loading them, and the result is taken only if it is
    worth it and can be reached without ever unloading a module's last copy.

    Args:
        instance: What there is now. Devices that were lost are not in it.
        current: Where modules are, lost devices included or not. A copy that does not fit any more is left out.
        worth: What a change has to be worth.
        budget_s: For looking for a better placement; what was lost is placed in any case.
        clock: Seconds that only go up.

    Raises:
        NoCapacityError: The modules do not fit on the devices there are.
    """
    started = clock()
    problem = Problem(instance)
    stay = kept(problem, current)
    lost = sorted_by_need(problem, "compute", (m for m, devices in enumerate(stay.copies) if not devices))
    if lost:
        layout = stay.twin()
        if not all(make_room(layout, module) for module in complete(layout, lost)):
            layout = first_layout(problem)
        layout.reroute()
        return _answer(layout, current, "lost")
    stay.reroute()
    if budget_s <= 0:
        return _answer(stay, current, "unchanged")
    worth = worth or Worth()
    better = best_layout(stay, lambda: started + budget_s - clock(), under_load=True).layout.twin()
    _go_back(better, stay, worth)
    before_s = mean_objective_s(stay)
    gained = before_s - mean_objective_s(better)
    if gained >= worth.gain * before_s and gained > 0 and gained > _price_s(better, stay, worth):
        room = dict(zip(problem.device_ids, problem.memory_mb.tolist(), strict=True))
        size = dict(zip(problem.module_ids, problem.size_mb, strict=True))
        able = {module.id: module.seconds.keys() for module in problem.modules}
        if is_reachable(named(stay), named(better), room_mb=room, size_mb=size, able=able):
            return _answer(better, current, "gain")
    return _answer(stay, current, "unchanged")


def _price_s(layout: Layout, stay: Layout, worth: Worth, module: int | None = None) -> float:
    """Seconds of loading what is not there yet (of one module or all), spread over the rounds that have to pay it."""
    problem = layout.problem
    modules = range(len(problem.modules)) if module is None else (module,)
    loaded_mb = sum(problem.size_mb[m] * len(set(layout.copies[m]) - set(stay.copies[m])) for m in modules)
    return loaded_mb / worth.load_mb_s / worth.payback_rounds


def _go_back(layout: Layout, stay: Layout, worth: Worth) -> None:
    """Puts modules back where they are, the costliest to load first, where their gain does not pay for the load."""
    problem = layout.problem
    moved = [m for m in range(len(problem.modules)) if set(layout.copies[m]) != set(stay.copies[m])]
    for module in sorted(moved, key=lambda m: -problem.size_mb[m]):
        trial = layout.twin()
        for device in trial.copies[module].copy():
            trial.drop(module, device)
        if not all(trial.fits(module, device) for device in stay.copies[module]):
            continue
        for device in stay.copies[module]:
            trial.add(module, device)
        trial.reroute(problem.users.get(module, ()))
        if mean_objective_s(trial) - mean_objective_s(layout) <= _price_s(layout, stay, worth, module):
            layout.become(trial)


def _answer(layout: Layout, current: Placement, why: Literal["unchanged", "lost", "gain"]) -> Replan:
    placement = named(layout)
    loads = tuple(
        Move("load", module, device)
        for module, devices in placement.items()
        for device in devices
        if device not in current.get(module, ())
    )
    return Replan(placement, why, loads, layout.objective_s)
