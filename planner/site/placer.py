"""The running planner's placement policy: lost modules at once, improvements on request and beyond the hysteresis."""

import time
from collections.abc import Callable, Mapping

from s2m3.planner.site.placement import Solve
from s2m3.planner.solving.replan import replan
from s2m3.planner.solving.second_copies import second_copies
from s2m3.schemas.instance import Instance

__all__ = ["Placer", "placer", "second_copies_in_spare"]

#: Longest time in each plan, seconds, for the worth of second copies under load.
_COUNT_LOAD_S = 0.25
#: (whether to search for improvements) -> the function that places modules
Placer = Callable[[bool], Solve]


def placer(budget_s: float) -> Placer:
    """Returns the running planner's placement policy.

    Args:
        budget_s: Time limit of the search for a better placement, seconds.
    """

    def choose(improve: bool) -> Solve:  # noqa: FBT001  # Placer's one argument
        def solve(instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
            placed = replan(instance, current, budget_s=0.0).placement
            return replan(instance, placed, budget_s=budget_s).placement if improve else placed

        return solve

    return choose


def second_copies_in_spare(
    instance: Instance,
    placement: Mapping[str, list[str]],
    current: Mapping[str, list[str]],
    on_step: Callable[[], None] = lambda: None,
) -> Mapping[str, list[str]]:
    """Returns second copies for spare memory, module -> devices: ready when a node is lost, and used under load.

    Args:
        instance: Devices, modules, tasks.
        placement: Module -> devices.
        current: Module -> devices now.
        on_step: Called before each module is looked at; an exception from it ends the computation.
    """
    until = time.perf_counter() + _COUNT_LOAD_S

    def seconds_left() -> float:
        on_step()
        return until - time.perf_counter()

    return second_copies(instance, placement, current=current, seconds_left=seconds_left)
