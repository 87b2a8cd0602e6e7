"""Placements to compare with: random ones, all on one device, and the solver's methods by name. Pure but for time."""

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from s2m3.planner.solving.exact import bounded
from s2m3.planner.solving.layout import SLACK_MB, Layout
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.solve import Method, Solution, solution_of, solve
from s2m3.schemas.errors import BadInputError, NoCapacityError
from s2m3.schemas.instance import Instance

if TYPE_CHECKING:
    from s2m3.planner.solving.greedy import SortKey

__all__ = ["check_method", "random_plans", "single", "solve_by"]

_PLAIN = ("auto", "exact", "greedy", "random")
_KEYS = ("compute", "memory")
_KNOWN = "auto, exact, greedy, greedy:memory, greedy:compute, random, single:DEVICE"
#: Random placements that are drawn; the one of median objective stands for all.
_DRAWS = 101
#: Draws that do not fit are drawn again, so many times as often as are wanted.
_PATIENCE = 50


def check_method(name: str, instance: Instance) -> None:
    """Checks a method's name.

    Raises:
        BadInputError: There is no such method, or no such device; the text names those that there are.
    """
    kind, _, of = name.partition(":")
    devices = [device.id for device in instance.devices]
    if kind == "single" and of not in devices:
        raise BadInputError(f"{name}: no device {of!r}; there are: {', '.join(devices)}")
    if name not in _PLAIN and kind != "single" and not (kind == "greedy" and of in _KEYS):
        raise BadInputError(f"no method {name!r}; known are {_KNOWN}")


def solve_by(
    instance: Instance,
    name: str,
    *,
    budget_s: float | None = None,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Solution:
    """Returns the plan of a method by its name.

    Args:
        instance: Devices, modules, tasks.
        name: `auto`, `exact`, `greedy` (by compute), `greedy:memory`, `greedy:compute`, `random` (of many random
            placements the one of median objective) or `single:DEVICE`.
        budget_s: Time budget of `auto` and `exact`, seconds; None takes the method's own.
        seed: Of `random`.
        clock: Monotonic seconds.

    Raises:
        BadInputError: There is no such method or device.
        NoCapacityError: The modules do not fit.
    """
    check_method(name, instance)
    kind, _, of = name.partition(":")
    if kind == "single":
        return single(instance, of, clock=clock)
    if kind == "random":
        plans = sorted(random_plans(instance, _DRAWS, seed=seed, clock=clock), key=lambda plan: plan.objective_s)
        return plans[len(plans) // 2]
    key = cast("SortKey", of or "compute")
    return solve(instance, method=cast("Method", kind), budget_s=budget_s, key=key, clock=clock)


def single(instance: Instance, device: str, *, clock: Callable[[], float] = time.perf_counter) -> Solution:
    """Returns the plan with every module on one device.

    Raises:
        NoCapacityError: The device cannot run one of the modules, or lacks memory; the text says how much.
    """
    started = clock()
    problem = Problem(instance)
    place = problem.device_at[device]
    if unable := [module.id for module in instance.modules if device not in module.seconds]:
        raise NoCapacityError(f"{device} cannot run {', '.join(unable)}")
    layout = Layout(problem, {module: [place] for module in range(len(problem.modules))})
    if layout.free_mb[place] < -SLACK_MB:
        held = sum(problem.size_mb)
        raise NoCapacityError(f"all modules need {held:.0f} MB, {device} has {problem.memory_mb[place]:.0f} MB")
    layout.reroute()
    return solution_of(bounded(layout), f"single:{device}", clock() - started)


def random_plans(
    instance: Instance, draws: int, *, seed: int = 0, clock: Callable[[], float] = time.perf_counter
) -> list[Solution]:
    """Returns random plans with one copy of each module: modules in random order, each on any device with room.

    Orders that reach a module without room are drawn again; where few orders fit, fewer plans are returned.

    Args:
        instance: Devices, modules, tasks.
        draws: Number of plans wanted.
        seed: Of the draws.
        clock: Monotonic seconds.

    Raises:
        NoCapacityError: No drawn placement fits.
    """
    chance = random.Random(seed)  # noqa: S311  # not a secret
    problem = Problem(instance)
    plans: list[Solution] = []
    empty = Layout(problem)
    for _ in range(_PATIENCE * draws):
        started = clock()
        layout = _drawn(empty, chance)
        if layout is not None:
            plans.append(solution_of(bounded(layout), "random", clock() - started))
            if len(plans) == draws:
                break
    if not plans:
        raise NoCapacityError(f"none of {_PATIENCE * draws} random placements fits")
    return plans


def _drawn(empty: Layout, chance: random.Random) -> Layout | None:
    """Returns one random layout, with the cost tables of the empty one, or None if a module found no room."""
    problem, layout = empty.problem, empty.copy()
    for module in chance.sample(range(len(problem.modules)), len(problem.modules)):
        able = [device for device in problem.able(module).tolist() if layout.fits(module, device)]
        if not able:
            return None
        layout.settle(module, chance.choice(able))
    layout.reroute()
    return layout
