"""The paper's greedy: modules by need, largest first; for each the feasible device with the earliest completion."""

from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.moves import add_copy, at_each_s
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.repair import make_room, no_room, pack
from s2m3.schemas.instance import Instance

__all__ = ["SortKey", "complete", "greedy", "kept", "lay_out", "named", "sorted_by_need"]

SortKey = Literal["memory", "compute"]


def sorted_by_need(problem: Problem, key: SortKey, modules: Iterable[int] | None = None) -> list[int]:
    """Returns the modules (all, if none are named), by need, largest first; ties by the other key, then by id.

    `memory` is the module's size. `compute` is its mean time over the devices that can hold it: the paper places
    "compute-intensive modules first" and does not say on which device that is measured.
    """
    chosen = list(range(len(problem.modules)) if modules is None else modules)
    able = {m: problem.able(m) for m in chosen}
    compute = {m: float(problem.seconds(m)[able[m]].mean()) if len(able[m]) else np.inf for m in chosen}
    size, ids = problem.size_mb, problem.module_ids
    if key == "memory":
        return sorted(chosen, key=lambda m: (-size[m], -compute[m], ids[m]))
    return sorted(chosen, key=lambda m: (-compute[m], -size[m], ids[m]))


def complete(layout: Layout, order: Iterable[int]) -> list[int]:
    """Places modules in this order, each where its tasks complete earliest; returns those that found no room.

    Completion is the weighted latency of the tasks that use the module, by the evaluator, with what is placed so far:
    steps of modules without a place are left out, steps at a device that already holds some of the task's wait there.
    """
    problem = layout.problem
    left_out = []
    for module in order:
        able = problem.able(module)
        able = able[layout.room[able] + SLACK_MB >= problem.size_mb[module]]
        if not len(able):
            left_out.append(module)
            continue
        completion = np.zeros(len(able))
        for t in problem.users.get(module, ()):
            completion += at_each_s(layout, t, module, able)
        # ties: the shorter run, then the most room left, then the device that comes first
        best = np.lexsort((-layout.room[able], problem.seconds(module)[able], completion))[0]
        layout.settle(module, int(able[best]))
    return left_out


def lay_out(problem: Problem, key: SortKey = "compute") -> Layout:
    """Returns the greedy's layout, routes and second copies included.

    Where the order leaves modules out, they get room by evictions; then the other order is tried, then a packing
    that looks at memory alone.

    Raises:
        NoCapacityError: None of these found room; the detail says what did not fit and by how much.
    """
    other: SortKey = "compute" if key == "memory" else "memory"
    shortest: tuple[Layout, list[int]] | None = None
    for order in (sorted_by_need(problem, key), sorted_by_need(problem, other)):
        layout = Layout(problem)
        left_out = complete(layout, order)
        left_out = [module for module in left_out if not make_room(layout, module)]
        if not left_out:
            return _finished(layout, order)
        if shortest is None or len(left_out) < len(shortest[1]):
            shortest = layout, left_out
    packed = pack(problem)
    if packed is None:
        raise no_room(*shortest) if shortest else AssertionError
    layout = Layout(problem)
    for module, device in packed.items():
        layout.settle(module, device)
    return _finished(layout, sorted_by_need(problem, key))


def _finished(layout: Layout, order: Iterable[int]) -> Layout:
    """Routes, and where more copies are allowed, those that shorten them, largest module first."""
    layout.reroute()
    if layout.problem.max_replicas > 1:
        for module in order:
            while add_copy(layout, module):
                pass
        layout.drop_unused()
    return layout


def greedy(instance: Instance, *, key: SortKey = "compute") -> dict[str, list[str]]:
    """Returns module -> devices by the greedy alone.

    Args:
        instance: Devices, modules, tasks.
        key: What "largest" means. `compute` found the optimum more often (docs/placement.md).

    Raises:
        NoCapacityError: The modules do not fit; the detail says which and by how much.
    """
    return named(lay_out(Problem(instance), key))


def kept(problem: Problem, current: Mapping[str, Iterable[str]]) -> Layout:
    """Returns a layout of the copies of a placement that may stay: their device is there, can run them, has room.

    Of a module with more copies than are allowed, those stay that serve its tasks best.

    Args:
        problem: What is to be placed now; modules and devices that it does not know are passed over.
        current: Module -> devices, as ids; of a module's devices, the first have first call on memory.
    """
    layout = Layout(problem)
    held = [(m, list(current.get(name, ()))) for m, name in enumerate(problem.module_ids)]
    for copy in range(max((len(devices) for _, devices in held), default=0)):
        for module, devices in held:
            device = problem.device_at.get(devices[copy]) if copy < len(devices) else None
            if device is None or device in layout.copies[module]:
                continue
            if problem.device_ids[device] in problem.modules[module].seconds and layout.fits(module, device):
                layout.settle(module, device)
    for module, copies in enumerate(layout.copies):
        if len(copies) > problem.max_replicas:
            _keep_best(layout, module)
    return layout


def _keep_best(layout: Layout, module: int) -> None:
    """Drops the copies beyond the limit."""
    devices = np.array(layout.copies[module], dtype=np.intp)
    total = np.zeros(len(devices))
    for t in layout.problem.users.get(module, ()):
        total += at_each_s(layout, t, module, devices)
    stays = devices[np.argsort(total, kind="stable")][: layout.problem.max_replicas].tolist()
    layout.unsettle(module)
    for device in reversed(stays):
        layout.settle(module, device)


def named(layout: Layout) -> dict[str, list[str]]:
    """Returns module -> devices, as ids in order."""
    problem = layout.problem
    return {
        module: sorted(problem.device_ids[device] for device in devices)
        for module, devices in zip(problem.module_ids, layout.copies, strict=True)
    }
