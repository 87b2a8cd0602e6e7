"""Replanning: lost modules are placed at once and nothing else moves; an improvement must be worth its loads."""

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
    """Hysteresis: the gain that a plan needs to replace one that serves every task.

    Args:
        gain: Least gain, as a part of the current objective.
        payback_rounds: Number of requests of each task within which the gain must make up for the loading time.
        load_mb_s: Speed at which devices load modules, 10^6 bytes a second.
    """

    gain: float = 0.05
    payback_rounds: float = 1000.0
    load_mb_s: float = 100.0


@dataclass(frozen=True, slots=True)
class Replan:
    """The placement to adopt, and the reason.

    Args:
        placement: Module -> devices.
        why: `unchanged`: the current placement. `lost`: modules without a copy got one. `gain`: a better placement.
        loads: The copies that have to be loaded.
        objective_s: The placement's objective on idle devices, seconds.
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
    """Returns the placement to adopt next.

    If modules have no copy (their device was lost, or they are new), only these are placed, each where its tasks
    complete earliest; other modules move only if memory cannot be found otherwise. If all modules have copies, a better
    placement is searched; each module whose gain does not pay for its load returns to its current devices. The result
    is adopted if its gain exceeds the hysteresis and it can be reached without unloading a module's last copy.

    Args:
        instance: The present devices, modules and tasks, without lost devices.
        current: Module -> devices now; lost devices and copies that no longer fit are ignored.
        worth: The hysteresis; None takes the defaults.
        budget_s: Time for the search for a better placement; lost modules are placed in any case.
        clock: Monotonic seconds.

    Raises:
        NoCapacityError: The modules do not fit on the present devices.
    """
    started = clock()
    problem = Problem(instance)
    stay = kept(problem, current)
    lost = sorted_by_need(problem, "compute", (m for m, devices in enumerate(stay.copies) if not devices))
    if lost:
        layout = stay.copy()
        if not all(make_room(layout, module) for module in complete(layout, lost)):
            layout = _with_best_fit(stay, lost) or first_layout(problem)
        layout.reroute()
        return _answer(layout, current, "lost")
    stay.reroute()
    if budget_s <= 0:
        return _answer(stay, current, "unchanged")
    worth = worth or Worth()
    better = best_layout(stay, lambda: started + budget_s - clock(), under_load=True, is_bounded=False).layout.copy()
    _undo_unpaid_moves(better, stay, worth)
    before_s = mean_objective_s(stay)
    gained = before_s - mean_objective_s(better)
    if gained >= worth.gain * before_s and gained > 0 and gained > _load_price_s(better, stay, worth):
        room = dict(zip(problem.device_ids, problem.memory_mb.tolist(), strict=True))
        size = dict(zip(problem.module_ids, problem.size_mb, strict=True))
        able = {module.id: module.seconds.keys() for module in problem.modules}
        if is_reachable(named(stay), named(better), room_mb=room, size_mb=size, able=able):
            return _answer(better, current, "gain")
    return _answer(stay, current, "unchanged")


def _with_best_fit(stay: Layout, lost: Sequence[int]) -> Layout | None:
    """Returns a layout with the lost modules where least memory is left over, the largest first; None if one has none.

    Where memory is short, an order by latency may leave out what fits beside the modules that stay.
    """
    layout = stay.copy()
    by_size = sorted(lost, key=lambda m: -layout.problem.size_mb[m])
    return layout if all(make_room(layout, module) for module in by_size) else None


def _load_price_s(layout: Layout, stay: Layout, worth: Worth, module: int | None = None) -> float:
    """Returns the seconds of loading new copies (of one module or all), divided by the rounds that must pay for it."""
    problem = layout.problem
    modules = range(len(problem.modules)) if module is None else (module,)
    loaded_mb = sum(problem.size_mb[m] * len(set(layout.copies[m]) - set(stay.copies[m])) for m in modules)
    return loaded_mb / worth.load_mb_s / worth.payback_rounds


def _undo_unpaid_moves(layout: Layout, stay: Layout, worth: Worth) -> None:
    """Moves modules whose gain does not pay for their load back to their current devices, the largest module first."""
    problem = layout.problem
    moved = [m for m in range(len(problem.modules)) if set(layout.copies[m]) != set(stay.copies[m])]
    for module in sorted(moved, key=lambda m: -problem.size_mb[m]):
        trial = layout.copy()
        for device in trial.copies[module].copy():
            trial.drop(module, device)
        if not all(trial.fits(module, device) for device in stay.copies[module]):
            continue
        for device in stay.copies[module]:
            trial.add(module, device)
        trial.reroute(problem.users.get(module, ()))
        if mean_objective_s(trial) - mean_objective_s(layout) <= _load_price_s(layout, stay, worth, module):
            layout.assign_from(trial)


def _answer(layout: Layout, current: Placement, why: Literal["unchanged", "lost", "gain"]) -> Replan:
    placement = named(layout)
    loads = tuple(
        Move("load", module, device)
        for module, devices in placement.items()
        for device in devices
        if device not in current.get(module, ())
    )
    return Replan(placement, why, loads, layout.objective_s)
