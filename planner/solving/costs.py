"""The evaluator with a memory: where a task has few routes, all are simulated once and looked up from then on."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from s2m3.planner.solving.latency import Column, latencies_s, latency_s
from s2m3.planner.solving.problem import ABSENT, Floats, Problem, Route

__all__ = ["Costs"]

#: Routes of one task, absent steps included, up to which they are all simulated: about 20 ms.
_LARGEST_TABLE = 60_000
#: Up to this many routes, simulating them one by one is faster than all at once.
_FEW_ROUTES = 8


class Costs:
    """Latencies of an instance's tasks, seconds.

    Args:
        problem: The instance.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._tables: dict[int, Floats] = {}

    def table(self, task: int) -> Floats | None:
        """Returns a task's latency by device of each step, [devices + 2] * steps; None where there are too many.

        The two last places of each axis are ABSENT and OUTSIDE. A device that cannot run a step makes it infinite.
        """
        shape = self.problem.tasks[task]
        size = (len(self.problem.device_ids) + 2,) * len(shape.modules)
        if len(self.problem.device_ids) ** len(size) > _LARGEST_TABLE:
            return None
        known = self._tables.get(task)
        if known is None:
            # positions count up to the device before the last two, which are ABSENT and OUTSIDE from behind
            axes = np.indices(size, dtype=np.intp).reshape(len(size), -1)
            axes[axes >= len(self.problem.device_ids)] -= size[0]
            known = self._tables[task] = latencies_s(self.problem, shape, list(axes)).reshape(size)
        return known

    def of(self, task: int, columns: Sequence[Column]) -> Floats:
        """Returns the latencies of routes, given by column as in `latencies_s`."""
        table = self.table(task)
        if table is not None:
            return np.atleast_1d(table[tuple(columns)])
        return latencies_s(self.problem, self.problem.tasks[task], columns)

    def best_route(self, task: int, copies: Sequence[Sequence[int]]) -> tuple[float, Route]:
        """Returns the least latency over the copies of each step's module, and its route (the first of equals).

        Args:
            task: One task.
            copies: Devices that hold each module. A module without any leaves its steps out.
        """
        shape = self.problem.tasks[task]
        choices = [copies[module] or [ABSENT] for module in shape.modules]
        table = self.table(task)
        if all(len(choice) == 1 for choice in choices) and table is not None:
            route = tuple(choice[0] for choice in choices)
            return table.item(*route), route
        routes = list(product(*choices))
        if len(routes) <= _FEW_ROUTES and [ABSENT] not in choices:
            return min((latency_s(self.problem, shape, route), route) for route in routes)
        latencies = self.of(task, list(np.array(routes, dtype=np.intp).T))
        least = int(latencies.argmin())
        return float(latencies[least]), routes[least]
