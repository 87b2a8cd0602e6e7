"""The paper's greedy: modules by need, largest first; for each the feasible device with the earliest completion."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Literal

from schemas.errors import NoCapacityError
from schemas.instance import Instance, PlacedModule

__all__ = ["SortKey", "greedy"]

SortKey = Literal["memory", "compute"]


def greedy(
    instance: Instance, *, key: SortKey = "memory", current: Mapping[str, list[str]] | None = None
) -> dict[str, list[str]]:
    """Returns module -> devices.

    Modules that are placed now and may stay, stay; the others go, largest first, to the device that would complete
    them earliest given what it already holds. Where that order leaves one out, other orders are tried.

    Args:
        instance: Devices, modules, tasks.
        key: What "largest" means: memory, or seconds on the slowest device.
        current: Where modules are now.

    Raises:
        NoCapacityError: No order found room; the detail says what did not fit and by how much.
    """
    used = [module for module in instance.modules if module.id in {s.module for t in instance.tasks for s in t.steps}]
    orders = [_by(used, key), _by(used, "memory"), sorted(used, key=lambda m: (len(m.seconds), -m.memory_mb, m.id))]
    failure: NoCapacityError | None = None
    for kept in (current or {}, {}):
        for order in orders:
            try:
                return _place(instance, order, kept)
            except NoCapacityError as error:
                failure = failure or error
    raise failure or NoCapacityError("nothing to place")


def _by(modules: list[PlacedModule], key: SortKey) -> list[PlacedModule]:
    if key == "memory":
        return sorted(modules, key=lambda m: (-m.memory_mb, m.id))
    return sorted(modules, key=lambda m: (-max(m.seconds.values()), -m.memory_mb, m.id))


def _place(instance: Instance, order: list[PlacedModule], kept: Mapping[str, list[str]]) -> dict[str, list[str]]:
    room = {device.id: device.memory_mb for device in instance.devices}
    busy: dict[str, float] = defaultdict(float)
    placement: dict[str, list[str]] = {}
    for module in order:
        for device in kept.get(module.id, [])[: instance.max_replicas]:
            if device in module.seconds and room[device] >= module.memory_mb:
                _put(module, device, room, busy, placement)
    for module in order:
        if module.id in placement:
            continue
        able = [device for device in module.seconds if room[device] >= module.memory_mb]
        if not able:
            most = max(module.seconds, key=lambda device: room[device])
            raise NoCapacityError(
                f"{module.id} needs {module.memory_mb:.0f} MB; the most room left is {room[most]:.0f} MB on {most}, "
                f"{module.memory_mb - room[most]:.0f} MB too little"
            )
        best = min(able, key=lambda device: (busy[device] + module.seconds[device], -room[device], device))
        _put(module, best, room, busy, placement)
    return placement


def _put(
    module: PlacedModule, device: str, room: dict[str, float], busy: dict[str, float], placement: dict[str, list[str]]
) -> None:
    room[device] -= module.memory_mb
    busy[device] += module.seconds[device]
    placement.setdefault(module.id, []).append(device)


def solve_live(instance: Instance, current: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Places modules for the running service: what is placed stays."""
    return greedy(instance, current=current)
