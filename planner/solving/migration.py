"""From one placement to another without a break: which copies to load and unload next. Pure."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Move", "is_reachable", "steps"]

Placement = Mapping[str, Collection[str]]

_SLACK_MB = 1e-9


@dataclass(frozen=True, slots=True, order=True)
class Move:
    """One copy to load or to unload."""

    verb: Literal["load", "unload"]
    module: str
    device: str


def steps(
    current: Placement,
    desired: Placement,
    ready: Placement,
    *,
    room_mb: Mapping[str, float],
    size_mb: Mapping[str, float],
    able: Placement | None = None,
) -> list[Move]:
    """Returns the moves that can be made now, all at once; called again whenever a copy gets ready or is gone.

    A copy that is to stay loads as soon as it fits. One that is not leaves when a copy that is to stay is ready, or,
    where its memory is waited for, when any other is. If all wait for one another, one module goes by way of a third
    device. A module's last ready copy leaves only if the module is not desired at all.

    Args:
        current: Module -> devices that hold it, loading ones included.
        desired: Module -> devices that are to hold it in the end.
        ready: Module -> devices where it serves.
        room_mb: Memory for modules of each device.
        size_mb: Of each module.
        able: Module -> devices that can run it; without, no third device is used.
    """
    free = dict(room_mb)
    for module, devices in current.items():
        for device in free.keys() & devices:
            free[device] -= size_mb.get(module, 0.0)
    wanted = [(m, d) for m in desired for d in sorted(desired[m]) if d not in current.get(m, ()) and d in free]
    wanted.sort(key=lambda pair: (bool(ready.get(pair[0])), -size_mb[pair[0]], pair))  # those served nowhere first
    moves: list[Move] = []
    waited_for: set[str] = set()

    def fits(module: str, device: str) -> bool:
        return size_mb[module] <= free.get(device, 0.0) + _SLACK_MB

    for module, device in wanted:
        if fits(module, device):
            free[device] -= size_mb[module]
            moves.append(Move("load", module, device))
        else:
            waited_for.add(device)
    moves += _leaving(current, desired, ready, waited_for)
    loading = any(d not in ready.get(m, ()) for m in desired for d in current.get(m, ()))
    if not moves and waited_for and not loading and able is not None:
        moves = _way_round(current, desired, waited_for, fits, able)
    return moves


def _leaving(current: Placement, desired: Placement, ready: Placement, waited_for: set[str]) -> list[Move]:
    """Copies that may go now; of a module's ready copies one always stays."""
    moves = []
    for module in sorted(current):
        goals, serving = set(desired.get(module, ())), set(ready.get(module, ()))
        for device in sorted(set(current[module]) - goals):
            others = serving - {device}
            if not goals or others & goals or (device in waited_for and others) or device not in serving:
                moves.append(Move("unload", module, device))
                serving.discard(device)
    return moves


def _way_round(
    current: Placement, desired: Placement, waited_for: set[str], fits: Callable[[str, str], bool], able: Placement
) -> list[Move]:
    """Loads one module that is in the way on a device where nothing is waited for; the first that fits."""
    in_the_way = [
        m
        for m in current
        if any(d in waited_for and d not in desired.get(m, ()) for d in current[m]) and desired.get(m)
    ]
    for module in sorted(in_the_way):
        for device in sorted(able.get(module, ())):
            if device not in waited_for and device not in current[module] and fits(module, device):
                return [Move("load", module, device)]
    return []


def is_reachable(
    current: Placement,
    desired: Placement,
    *,
    room_mb: Mapping[str, float],
    size_mb: Mapping[str, float],
    able: Placement,
) -> bool:
    """Whether `steps` gets from one placement to the other if every load succeeds."""
    held = {module: set(devices) for module, devices in current.items()}
    goal = {module: set(devices) for module, devices in desired.items()}
    # a module loads at its goal, perhaps at one place on the way, and leaves both of the old: four moves a copy
    limit = 4 * sum(len(devices) for devices in [*held.values(), *goal.values()]) + 4
    for _ in range(limit):
        moves = steps(held, goal, held, room_mb=room_mb, size_mb=size_mb, able=able)
        if not moves:
            break
        for move in moves:
            copies = held.setdefault(move.module, set())
            copies.add(move.device) if move.verb == "load" else copies.discard(move.device)
    return {m: d for m, d in held.items() if d} == {m: d for m, d in goal.items() if d}
