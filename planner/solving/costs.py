"""The evaluator with a table per task: a task's routes, where they are few, are simulated once and then looked up."""

from collections.abc import Sequence
from itertools import product

import numpy as np

from s2m3.planner.solving.latency import Column, latencies_s, latency_s
from s2m3.planner.solving.problem import ABSENT, Floats, Problem, Route

__all__ = ["Costs"]

#: A task gets a table if it has at most this many routes, which take about 20 ms to simulate.
_LARGEST_TABLE = 60_000
#: A table is made once this part of its routes was asked for one by one.
_WORTH_A_TABLE = 0.25
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
        #: task -> routes simulated without a table
        self._simulated: dict[int, int] = {}

    def table(self, task: int) -> Floats | None:
        """Returns a task's latency for every route, s, one axis of devices + 2 per step; None for too many routes.

        The last two positions of each axis are ABSENT and OUTSIDE. Latency is infinite where a device cannot run a
        step.
        """
        shape = self.problem.tasks[task]
        size = (len(self.problem.device_ids) + 2,) * len(shape.modules)
        if len(self.problem.device_ids) ** len(size) > _LARGEST_TABLE:
            return None
        table_s = self._tables.get(task)
        if table_s is None:
            # the last two positions of each axis become the negative indices ABSENT and OUTSIDE
            axes = np.indices(size, dtype=np.intp).reshape(len(size), -1)
            axes[axes >= len(self.problem.device_ids)] -= size[0]
            table_s = self._tables[task] = latencies_s(self.problem, shape, list(axes)).reshape(size)
        return table_s

    def of(self, task: int, columns: Sequence[Column]) -> Floats:
        """Returns the latencies of routes, s, [routes]; `columns` as in `latencies_s`."""
        count = max(np.size(column) for column in columns)
        table = self._table_if_worth(task, count)
        if table is not None:
            return np.atleast_1d(table[tuple(columns)])
        if count <= _FEW_ROUTES and self._is_too_large(task):  # needs no row of run times on all devices
            routes = list(zip(*(np.broadcast_to(column, (count,)).tolist() for column in columns), strict=True))
            if not any(ABSENT in route for route in routes):
                return np.array([latency_s(self.problem, self.problem.tasks[task], route) for route in routes])
        return latencies_s(self.problem, self.problem.tasks[task], columns)

    def _is_too_large(self, task: int) -> bool:
        """Returns whether a task has too many routes for a table."""
        size: int = len(self.problem.device_ids) ** len(self.problem.tasks[task].modules)
        return size > _LARGEST_TABLE

    def _table_if_worth(self, task: int, routes: int) -> Floats | None:
        """Returns a task's table if there is one, or if so many routes have been asked for that it saves time."""
        if task not in self._tables:
            self._simulated[task] = self._simulated.get(task, 0) + routes
            size = len(self.problem.device_ids) ** len(self.problem.tasks[task].modules)
            if self._simulated[task] < _WORTH_A_TABLE * size:
                return None
        return self.table(task)

    def best_route(self, task: int, copies: Sequence[Sequence[int]]) -> tuple[float, Route]:
        """Returns the least latency over all choices of copies, s, and its route (of equal routes, the first).

        Args:
            task: The task's position.
            copies: Devices that hold each module. Steps of a module without a copy are left out of the route.
        """
        shape = self.problem.tasks[task]
        choices = [copies[module] or [ABSENT] for module in shape.modules]
        table = self._tables.get(task)
        if all(len(choice) == 1 for choice in choices) and table is not None:
            route = tuple(choice[0] for choice in choices)
            return table.item(*route), route
        routes = list(product(*choices))
        if len(routes) <= _FEW_ROUTES and [ABSENT] not in choices:
            return min((latency_s(self.problem, shape, route), route) for route in routes)
        latencies = self.of(task, list(np.array(routes, dtype=np.intp).T))
        least = int(latencies.argmin())
        return float(latencies[least]), routes[least]
