"""The paper's greedy: modules in order of need, largest first, each on the feasible device where it completes first."""

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
    """Returns modules by need, largest first; the other key, then the id breaks ties. `modules=None` takes all.

    `memory` is the module's size. `compute` is its mean time over the devices that can hold it: the paper places
    "compute-intensive modules first" and does not say on which device compute is measured.
    """
    chosen = list(range(len(problem.modules)) if modules is None else modules)
    able = {m: problem.able(m) for m in chosen}
    compute = {m: float(problem.seconds(m)[able[m]].mean()) if len(able[m]) else np.inf for m in chosen}
    size, ids = problem.size_mb, problem.module_ids
    if key == "memory":
        return sorted(chosen, key=lambda m: (-size[m], -compute[m], ids[m]))
    return sorted(chosen, key=lambda m: (-compute[m], -size[m], ids[m]))


def complete(layout: Layout, order: Iterable[int]) -> list[int]:
    """Places modules in the given order, each where its tasks complete earliest; returns the modules that did not fit.

    Completion is the weighted latency of the tasks that use the module, by the evaluator, over the modules placed so
    far: steps of unplaced modules are left out, and steps of one task on one device queue there.
    """
    problem = layout.problem
    left_out = []
    for module in order:
        able = problem.able(module)
        able = able[layout.free_mb[able] + SLACK_MB >= problem.size_mb[module]]
        if not len(able):
            left_out.append(module)
            continue
        completion = np.zeros(len(able))
        for t in problem.users.get(module, ()):
            completion += at_each_s(layout, t, module, able)
        # ties: the shorter run time, then the most free memory, then the first device
        best = np.lexsort((-layout.free_mb[able], problem.seconds(module)[able], completion))[0]
        layout.settle(module, int(able[best]))
    return left_out


def lay_out(problem: Problem, key: SortKey = "compute") -> Layout:
    """Returns the greedy's layout, with routes and further copies.

    Modules that the order leaves out are placed by evictions; if that fails, the other order is tried, and finally a
    packing by memory alone.

    Raises:
        NoCapacityError: No attempt placed all modules; the detail names those left out and the missing memory.
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
    """Sets routes and, where more than one copy is allowed, adds the copies that shorten routes, in the given order."""
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
        key: The sort key of modules. `compute` found the optimum more often (docs/placement.md).

    Raises:
        NoCapacityError: The modules do not fit; the detail names them and the missing memory.
    """
    return named(lay_out(Problem(instance), key))


def kept(problem: Problem, current: Mapping[str, Iterable[str]]) -> Layout:
    """Returns a layout of the current copies that may stay: the device is present, can run the module and has memory.

    If a module has more copies than max_replicas, the copies with the least latency stay.

    Args:
        problem: The problem to solve; modules and devices that it does not contain are ignored.
        current: Ids, module -> devices; the first device of every module gets memory before any second one.
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
    """Keeps the max_replicas copies of a module with the least weighted latency, and drops the others."""
    devices = np.array(layout.copies[module], dtype=np.intp)
    total = np.zeros(len(devices))
    for t in layout.problem.users.get(module, ()):
        total += at_each_s(layout, t, module, devices)
    stays = devices[np.argsort(total, kind="stable")][: layout.problem.max_replicas].tolist()
    layout.unsettle(module)
    for device in reversed(stays):
        layout.settle(module, device)


def named(layout: Layout) -> dict[str, list[str]]:
    """Returns the layout as ids, module -> sorted devices."""
    problem = layout.problem
    return {
        module: sorted(problem.device_ids[device] for device in devices)
        for module, devices in zip(problem.module_ids, layout.copies, strict=True)
    }
