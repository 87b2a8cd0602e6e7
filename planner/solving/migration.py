"""Make-before-break migration from one placement to another: which copies to load and unload next. Pure."""

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
    """Returns the moves that can be made now, all at once; to be called again when a copy becomes ready or is gone.

    A desired copy loads as soon as it fits. An undesired copy is unloaded once a desired copy of its module is ready
    or, if another copy waits for its memory, once any other copy is ready. If all moves wait for each other, one module
    moves through a third device. A module's last ready copy is unloaded only if the module is not desired at all.

    Args:
        current: Module -> devices that hold or load it.
        desired: Module -> devices that are to hold it in the end.
        ready: Module -> devices that serve it.
        room_mb: Memory of each device for modules, 10^6 bytes.
        size_mb: Memory of each module, 10^6 bytes.
        able: Module -> devices that can run it; None allows no move through a third device.
    """
    free = dict(room_mb)
    for module, devices in current.items():
        for device in free.keys() & devices:
            free[device] -= size_mb.get(module, 0.0)
    wanted = [(m, d) for m in desired for d in sorted(desired[m]) if d not in current.get(m, ()) and d in free]
    wanted.sort(
        key=lambda pair: (bool(ready.get(pair[0])), -size_mb[pair[0]], pair)
    )  # modules without a ready copy first
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
    moves += _unloads(current, desired, ready, waited_for)
    loading = any(d not in ready.get(m, ()) for m in desired for d in current.get(m, ()))
    if not moves and waited_for and not loading and able is not None:
        moves = _detour(current, desired, waited_for, fits, able)
    return moves


def _unloads(current: Placement, desired: Placement, ready: Placement, waited_for: set[str]) -> list[Move]:
    """Returns the unloads that are allowed now; one ready copy of every desired module stays."""
    moves = []
    for module in sorted(current):
        goals, serving = set(desired.get(module, ())), set(ready.get(module, ()))
        for device in sorted(set(current[module]) - goals):
            others = serving - {device}
            if not goals or others & goals or (device in waited_for and others) or device not in serving:
                moves.append(Move("unload", module, device))
                serving.discard(device)
    return moves


def _detour(
    current: Placement, desired: Placement, waited_for: set[str], fits: Callable[[str, str], bool], able: Placement
) -> list[Move]:
    """Returns one load that breaks a circular wait: a blocking module goes to the first third device where it fits.

    Devices in `waited_for` lack memory for a desired copy and are not used.
    """
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
    """Whether repeated `steps` leads from one placement to the other if every load succeeds."""
    held = {module: set(devices) for module, devices in current.items()}
    goal = {module: set(devices) for module, devices in desired.items()}
    # at most four moves per copy: load on a third device and on the goal, unload from the third and the old device
    limit = 4 * sum(len(devices) for devices in [*held.values(), *goal.values()]) + 4
    for _ in range(limit):
        moves = steps(held, goal, held, room_mb=room_mb, size_mb=size_mb, able=able)
        if not moves:
            break
        for move in moves:
            copies = held.setdefault(move.module, set())
            copies.add(move.device) if move.verb == "load" else copies.discard(move.device)
    return {m: d for m, d in held.items() if d} == {m: d for m, d in goal.items() if d}
