"""All tasks' routes with their objective under load, kept up to date route by route. Pure.

A changed route changes the queues of the devices that it leaves and takes, and with them the tasks that run there: only
these are computed again. `loaded_objective_s` computes the same from nothing.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from s2m3.planner.solving.latency import latency_s
from s2m3.planner.solving.problem import Problem, Route
from s2m3.planner.solving.queueing import growth

__all__ = ["LoadedRoutes"]


@dataclass(frozen=True, slots=True)
class _Taken:
    """The values before a task took a route, to undo that."""

    task: int
    route: Route
    objective_s: float
    #: device, utilisation, sum of squares, wait, tasks
    devices: list[tuple[int, float, float, float, frozenset[int]]]
    latencies: list[tuple[int, float]]


class LoadedRoutes:
    """Routes of all tasks, and the sum over tasks of weight x mean latency under load.

    Args:
        problem: The problem.
        routes: The route of each task, all steps placed.
    """

    def __init__(self, problem: Problem, routes: Sequence[Route]) -> None:
        count = len(problem.device_ids)
        self._problem = problem
        self.routes = list(routes)
        #: utilisation and sum of rate x seconds^2 by device
        self._busy, self._squares = [0.0] * count, [0.0] * count
        self._taken: list[_Taken] = []
        at: list[set[int]] = [set() for _ in range(count)]
        for t, route in enumerate(self.routes):
            self._load(t, route, 1.0)
            for device in route:
                at[device].add(t)
        #: the tasks with a step on each device; the sets are replaced, never changed
        self._at = [frozenset(tasks) for tasks in at]
        self._waits = [self._wait(device) for device in range(count)]
        self._latencies = [self._latency(t, route) for t, route in enumerate(self.routes)]
        self.objective_s = self._sum(range(len(self.routes)))

    def take_if_better(self, task: int, route: Route) -> bool:
        """Gives a task another route if that lowers the objective; returns whether it does."""
        before = self.objective_s
        devices = {*self.routes[task], *route}
        affected = {task}
        if self._problem.tasks[task].rate > 0:
            affected.update(*(self._at[d] for d in devices))
        self._taken.append(
            _Taken(
                task,
                self.routes[task],
                before,
                [(d, self._busy[d], self._squares[d], self._waits[d], self._at[d]) for d in devices],
                [(t, self._latencies[t]) for t in affected],
            )
        )
        self._move(task, route, devices)
        self.objective_s -= self._sum(affected)
        for t in affected:
            self._latencies[t] = self._latency(t, self.routes[t])
        self.objective_s += self._sum(affected)
        if self.objective_s < before:
            return True
        self.undo_to(self.taken - 1)
        return False

    @property
    def taken(self) -> int:
        """Number of routes taken, for `undo_to`."""
        return len(self._taken)

    def undo_to(self, taken: int) -> None:
        """Takes the last routes back until so many are taken."""
        while len(self._taken) > taken:
            last = self._taken.pop()
            self.routes[last.task], self.objective_s = last.route, last.objective_s
            for device, busy, squares, wait, tasks in last.devices:
                self._busy[device], self._squares[device] = busy, squares
                self._waits[device], self._at[device] = wait, tasks
            for t, latency in last.latencies:
                self._latencies[t] = latency

    def _move(self, task: int, route: Route, devices: Iterable[int]) -> None:
        self._load(task, self.routes[task], -1.0)
        self._load(task, route, 1.0)
        self.routes[task] = route
        for device in devices:
            tasks = self._at[device]
            self._at[device] = tasks | {task} if device in route else tasks - {task}
            self._waits[device] = self._wait(device)

    def _load(self, task: int, route: Route, sign: float) -> None:
        shape = self._problem.tasks[task]
        for module, device in zip(shape.modules, route, strict=True):
            seconds = self._problem.runs_s(module, device)
            self._busy[device] += sign * shape.rate * seconds
            self._squares[device] += sign * shape.rate * seconds**2

    def _wait(self, device: int) -> float:
        return max(0.0, self._squares[device]) / 2 * growth(self._busy[device])

    def _latency(self, task: int, route: Route) -> float:
        return latency_s(self._problem, self._problem.tasks[task], route, self._waits)

    def _sum(self, tasks: Iterable[int]) -> float:
        shapes = self._problem.tasks
        return sum(shapes[t].weight * self._latencies[t] for t in tasks)
