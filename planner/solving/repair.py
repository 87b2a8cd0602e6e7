"""Finds memory for modules that the greedy left out: evictions, bin packing, a small exhaustive search. No latency."""

from collections.abc import Iterable, Sequence

import numpy as np

from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.problem import Floats, Ints, Problem
from s2m3.schemas.errors import NoCapacityError

__all__ = ["make_room", "no_room", "pack"]

#: Devices tried per eviction, length of a chain of evictions, and branches of the exhaustive search, at most.
_DEVICES_TRIED = 8
_EVICTIONS_DEEP = 3
_MOST_BRANCHES = 20_000


def make_room(layout: Layout, module: int, *, deep: int = _EVICTIONS_DEEP) -> bool:
    """Places a module, if needed by evicting smaller modules or further copies to other devices.

    Args:
        layout: Changed only on success. Further copies of other modules may be dropped.
        module: A module without a copy.
        deep: Longest chain of evictions that cause each other.

    Returns:
        Whether the module was placed.
    """
    problem = layout.problem
    able = problem.able(module)
    roomy = able[layout.free_mb[able] + SLACK_MB >= problem.size_mb[module]]
    if len(roomy):
        layout.settle(module, int(roomy[layout.free_mb[roomy].argmin()]))  # best fit
        return True
    if deep == 0:
        return False
    nearest = able[np.argsort(-layout.free_mb[able], kind="stable")][:_DEVICES_TRIED]
    return any(_evict_for(layout, module, int(device), deep) for device in nearest)


def _evict_for(layout: Layout, module: int, device: int, deep: int) -> bool:
    """Tries to place a module on one device by evicting just enough other modules; returns whether it succeeded."""
    size = layout.problem.size_mb
    short = size[module] - float(layout.free_mb[device])
    held = [m for m, devices in enumerate(layout.copies) if device in devices and size[m] > 0]
    spare = [m for m in held if len(layout.copies[m]) > 1]
    alone = sorted((m for m in held if size[m] + SLACK_MB >= short and size[m] < size[module]), key=lambda m: size[m])
    several = sorted((m for m in held if size[m] < size[module]), key=lambda m: -size[m])
    for leaving in [*([m] for m in alone), _enough(several, size, short), _enough([*spare, *several], size, short)]:
        if not leaving:
            continue
        trial = layout.copy()
        for m in leaving:
            trial.drop(m, device)
        trial.settle(module, device)
        if all(trial.copies[m] or make_room(trial, m, deep=deep - 1) for m in leaving):
            layout.assign_from(trial)
            return True
    return False


def _enough(modules: Sequence[int], size: Sequence[float], short: float) -> list[int]:
    """Returns the shortest prefix of the modules that frees `short` 10^6 bytes; empty if all together do not."""
    taken: list[int] = []
    for m in dict.fromkeys(modules):
        if short <= SLACK_MB:
            break
        taken.append(m)
        short -= size[m]
    return taken if short <= SLACK_MB else []


def pack(problem: Problem) -> dict[int, int] | None:
    """Places one copy of each module by memory alone: best fit, most constrained module first, then a bounded search.

    Returns:
        Module -> device, or None if no packing was found; for a small instance, none exists in nearly all such cases.
    """
    order = sorted(range(len(problem.modules)), key=lambda m: (len(problem.able(m)), -problem.size_mb[m]))
    for attempt in (order, sorted(order, key=lambda m: -problem.size_mb[m])):
        room = problem.memory_mb.copy()
        places: dict[int, int] = {}
        for module in attempt:
            candidates = _fitting(problem, room, module)
            if not len(candidates):
                break
            places[module] = int(candidates[0])
            room[candidates[0]] -= problem.size_mb[module]
        else:
            return places
    return _search(problem)


def _fitting(problem: Problem, room: Floats, module: int) -> Ints:
    """Returns the devices with memory for a module, in best-fit order."""
    able = problem.able(module)
    able = able[room[able] + SLACK_MB >= problem.size_mb[module]]
    return able[np.argsort(room[able], kind="stable")]


def _search(problem: Problem) -> dict[int, int] | None:
    """Depth-first search for a packing, the module with the fewest feasible devices next; bounded in branches."""
    room = problem.memory_mb.copy()
    places: dict[int, int] = {}
    branches = 0

    def descend(left: frozenset[int]) -> bool:
        nonlocal branches
        if not left:
            return True
        choices = {m: _fitting(problem, room, m) for m in left}
        module = min(left, key=lambda m: (len(choices[m]), -problem.size_mb[m], m))
        if sum(problem.size_mb[m] for m in left) > float(np.maximum(room, 0.0).sum()) + SLACK_MB:
            return False
        for device in choices[module]:
            branches += 1
            if branches > _MOST_BRANCHES:
                return False
            places[module] = int(device)
            room[device] -= problem.size_mb[module]
            if descend(left - {module}):
                return True
            room[device] += problem.size_mb[module]
        return False

    return places if descend(frozenset(range(len(problem.modules)))) else None


def no_room(layout: Layout, left_out: Iterable[int]) -> NoCapacityError:
    """Returns the error that names the modules that did not fit and the memory that each lacks."""
    problem = layout.problem
    parts = []
    for module in left_out:
        size = problem.size_mb[module]
        can_run = np.flatnonzero(np.isfinite(problem.seconds(module)[: len(problem.device_ids)]))
        most = int(can_run[layout.free_mb[can_run].argmax()])
        room = float(layout.free_mb[most])
        parts.append(
            f"{problem.module_ids[module]} needs {size:g} MB; of the devices that can run it, "
            f"{problem.device_ids[most]} has the most room left, {room:.6g} MB: {size - room:.6g} MB too little"
        )
    total, there = sum(problem.size_mb), float(problem.memory_mb.sum())
    parts.append(f"all {len(problem.modules)} modules take {total:.6g} MB, the devices have {there:.6g} MB")
    return NoCapacityError("; ".join(parts))
