"""Finds memory for modules that the greedy left out: evictions, bin packing, a small exhaustive search. No latency."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.problem import Floats, Ints, Problem
from s2m3.schemas.errors import NoCapacityError

__all__ = ["Effort", "is_too_much", "make_room", "no_room", "pack"]

#: Devices tried per eviction, length of a chain of evictions, and branches of the exhaustive search, at most.
_DEVICES_TRIED = 8
_EVICTIONS_DEEP = 3
_MOST_BRANCHES = 20_000
#: A branch looks at every module without a place: of so many further ones it counts as one branch more.
_MODULES_PER_BRANCH = 16


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


@dataclass(slots=True)
class Effort:
    """The branches that exhaustive searches may still take together."""

    branches: int


def is_too_much(problem: Problem, modules: Iterable[int]) -> bool:
    """Returns whether modules certainly do not fit, one copy of each: a proof by sums and counts, not by a search.

    They do not if they take more memory than all devices have, or if those of some size or above are more than the
    devices hold of that size. False says nothing.
    """
    sizes = sorted(size for size in (problem.size_mb[m] for m in modules) if size > SLACK_MB)
    if sum(sizes) > float((np.maximum(problem.memory_mb, 0.0) + SLACK_MB).sum()):
        return True
    firsts = {size: at for at, size in reversed(list(enumerate(sizes)))}
    return any(len(sizes) - at > problem.holds(size) for size, at in firsts.items())


def pack(problem: Problem, modules: Sequence[int] | None = None, effort: Effort | None = None) -> dict[int, int] | None:
    """Places one copy of each module by memory alone: best fit, most constrained module first, then a bounded search.

    Args:
        problem: The problem.
        modules: The modules to place; None: all.
        effort: What the search may take, which is subtracted; None: 20,000 branches.

    Returns:
        Module -> device, or None if no packing was found; for a small instance, none exists in nearly all such cases.
    """
    modules = range(len(problem.modules)) if modules is None else modules
    if is_too_much(problem, modules):
        return None
    order = sorted(modules, key=lambda m: (len(problem.able(m)), -problem.size_mb[m]))
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
    return _search(problem, modules, effort)


def _fitting(problem: Problem, room: Floats, module: int) -> Ints:
    """Returns the devices with memory for a module, in best-fit order."""
    able = problem.able(module)
    able = able[room[able] + SLACK_MB >= problem.size_mb[module]]
    return able[np.argsort(room[able], kind="stable")]


def _twins(problem: Problem, modules: Sequence[int]) -> list[int]:
    """Returns a number for each device; devices that can run the same of these modules have the same number."""
    can_run = np.zeros((len(modules), len(problem.device_ids)), dtype=bool)
    for row, module in enumerate(modules):
        can_run[row, problem.able(module)] = True
    numbers: dict[bytes, int] = {}
    return [numbers.setdefault(column.tobytes(), len(numbers)) for column in can_run.T]


def _search(
    problem: Problem, modules: Sequence[int] | None = None, effort: Effort | None = None
) -> dict[int, int] | None:
    """Depth-first search for a packing, the module with the fewest feasible devices next; bounded in branches.

    Of devices that can run the same modules and have equal room, one is tried.
    """
    modules = range(len(problem.modules)) if modules is None else modules
    effort = Effort(_MOST_BRANCHES) if effort is None else effort
    room, twins = problem.memory_mb.copy(), _twins(problem, modules)
    places: dict[int, int] = {}

    def descend(left: frozenset[int]) -> bool:
        if not left:
            return True
        choices = {m: _fitting(problem, room, m) for m in left}
        module = min(left, key=lambda m: (len(choices[m]), -problem.size_mb[m], m))
        if sum(problem.size_mb[m] for m in left) > float(np.maximum(room, 0.0).sum()) + SLACK_MB:
            return False
        tried: set[tuple[int, float]] = set()
        for device in choices[module].tolist():
            if (twins[device], room[device]) in tried:
                continue
            tried.add((twins[device], float(room[device])))
            effort.branches -= 1 + len(left) // _MODULES_PER_BRANCH
            if effort.branches < 0:
                return False
            places[module] = device
            room[device] -= problem.size_mb[module]
            if descend(left - {module}):
                return True
            room[device] += problem.size_mb[module]
        return False

    return places if descend(frozenset(modules)) else None


def no_room(layout: Layout, left_out: Iterable[int], modules: Iterable[int] | None = None) -> NoCapacityError:
    """Returns the error that names the modules that did not fit and the memory that each lacks.

    Args:
        layout: The copies of the others.
        left_out: The modules that did not fit.
        modules: The modules that should fit together; None: all of the problem.
    """
    problem = layout.problem
    sizes = problem.size_mb if modules is None else [problem.size_mb[m] for m in modules]
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
    total, there = sum(sizes), float(problem.memory_mb.sum())
    parts.append(f"all {len(sizes)} modules take {total:.6g} MB, the devices have {there:.6g} MB")
    return NoCapacityError("; ".join(parts))
