"""The moves of local search: relocate one copy, add one copy, move two modules at once. Each applies the best found."""

from collections.abc import Sequence

import numpy as np

from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.problem import Floats, Ints

__all__ = ["WORTH_S", "add_copy", "at_each_s", "move_pair", "relocate"]

#: Least gain of a move, seconds of the objective: smaller differences are floating-point error.
WORTH_S = 1e-10


def at_each_s(layout: Layout, task: int, module: int, devices: Ints) -> Floats:
    """Returns a task's weighted latency with all steps of one module on each of the devices, s, [devices].

    Steps of other modules stay on their current route.
    """
    shape = layout.problem.tasks[task]
    columns = [devices if m == module else at for m, at in zip(shape.modules, layout.routes[task], strict=True)]
    return shape.weight * layout.costs.of(task, columns)


def devices_with_room(layout: Layout, module: int) -> Ints:
    """Returns the devices with enough free memory for one more copy of a module and no copy of it yet."""
    able = layout.problem.able(module)
    able = able[layout.free_mb[able] + SLACK_MB >= layout.problem.size_mb[module]]
    return able[~np.isin(able, layout.copies[module])]


def relocate(layout: Layout, module: int) -> bool:
    """Moves the copy of a module whose relocation gains most; returns whether one gained."""
    problem = layout.problem
    users = problem.users.get(module, ())
    goals = devices_with_room(layout, module)
    if not users or not len(goals):
        return False
    held = layout.copies[module]
    everywhere = np.concatenate([np.array(held, dtype=np.intp), goals])
    there = [at_each_s(layout, t, module, everywhere) for t in users]
    before = sum(problem.tasks[t].weight * layout.latencies[t] for t in users)
    best, choice = before - WORTH_S, None
    for position, source in enumerate(held):
        stay = [c for c in range(len(held)) if c != position]
        totals = sum(np.minimum(t[len(held) :], t[stay].min(initial=np.inf)) for t in there)
        least = int(np.argmin(totals))
        if np.asarray(totals)[least] < best:
            best, choice = float(np.asarray(totals)[least]), (source, int(goals[least]))
    if choice is None:
        return False
    return _apply(layout, users, drops=[(module, choice[0])], adds=[(module, choice[1])])


def add_copy(layout: Layout, module: int) -> bool:
    """Adds the copy of a module that gains most, within max_replicas; returns whether one gained."""
    problem = layout.problem
    users = problem.users.get(module, ())
    if not users or len(layout.copies[module]) >= problem.max_replicas:
        return False
    goals = devices_with_room(layout, module)
    if not len(goals):
        return False
    now = [problem.tasks[t].weight * layout.latencies[t] for t in users]
    totals = np.sum(
        [np.minimum(at_each_s(layout, t, module, goals), was) for t, was in zip(users, now, strict=True)], axis=0
    )
    least = int(totals.argmin())
    if totals[least] >= sum(now) - WORTH_S:
        return False
    return _apply(layout, users, drops=[], adds=[(module, int(goals[least]))])


def move_pair(layout: Layout, one: int, other: int) -> bool:
    """Moves two modules of one copy each to the best two devices, swaps included; returns whether the move gained."""
    problem = layout.problem
    if len(layout.copies[one]) != 1 or len(layout.copies[other]) != 1:
        return False
    (at_one,), (at_other,) = layout.copies[one], layout.copies[other]
    first, second = (a.ravel() for a in np.meshgrid(problem.able(one), problem.able(other), indexing="ij"))
    size_one, size_other = problem.size_mb[one], problem.size_mb[other]
    room = layout.free_mb.copy()
    room[at_one] += size_one
    room[at_other] += size_other
    room += SLACK_MB
    fits = (room[first] >= size_one) & (room[second] >= size_other)
    fits &= (first != second) | (room[first] >= size_one + size_other)
    first, second = first[fits], second[fits]
    users = sorted({*problem.users.get(one, ()), *problem.users.get(other, ())})
    if not users or not len(first):
        return False
    totals = np.zeros(len(first))
    for t in users:
        totals += _both_s(layout, t, (one, other), (first, second))
    least = int(totals.argmin())
    if totals[least] >= sum(problem.tasks[t].weight * layout.latencies[t] for t in users) - WORTH_S:
        return False
    goals = (int(first[least]), int(second[least]))
    return _apply(
        layout, users, drops=[(one, at_one), (other, at_other)], adds=list(zip((one, other), goals, strict=True))
    )


def _both_s(layout: Layout, task: int, modules: tuple[int, int], devices: tuple[Ints, Ints]) -> Floats:
    """Returns a task's weighted latency for each pair of devices of two modules, s, [pairs].

    If the task uses only one of the modules, its latency is computed once per distinct device.
    """
    used = [m in layout.problem.tasks[task].modules for m in modules]
    if all(used):
        shape = layout.problem.tasks[task]
        at = dict(zip(modules, devices, strict=True))
        columns = [at.get(m, now) for m, now in zip(shape.modules, layout.routes[task], strict=True)]
        return shape.weight * layout.costs.of(task, columns)
    which = used.index(True)
    places, back = np.unique(devices[which], return_inverse=True)
    return at_each_s(layout, task, modules[which], places)[back]


def _apply(layout: Layout, users: Sequence[int], *, drops: list[tuple[int, int]], adds: list[tuple[int, int]]) -> bool:
    """Applies a move and reroutes its tasks; reverts it if it gained nothing after all. Returns whether it gained.

    `drops` and `adds` are (module, device) pairs.
    """
    tasks = layout.problem.tasks
    before = sum(tasks[t].weight * layout.latencies[t] for t in users)
    kept = [(t, layout.routes[t], layout.latencies[t]) for t in users]
    for module, device in drops:
        layout.drop(module, device)
    for module, device in adds:
        layout.add(module, device)
    layout.reroute(users)
    if sum(tasks[t].weight * layout.latencies[t] for t in users) < before - WORTH_S / 2:
        return True
    for module, device in adds:
        layout.drop(module, device)
    for module, device in drops:
        layout.add(module, device)
    for t, route, latency in kept:
        layout.routes[t], layout.latencies[t] = route, latency
    return False
