"""Queueing at shared devices under request rates: an M/G/1 approximation, and a local search that minimises it.

Each device is an independent M/G/1 queue. Requests of a task arrive as a Poisson process at its rate; the mean wait of
a step follows the Pollaczek-Khinchine formula, W = sum(rate x seconds^2) / (2 (1 - utilisation)). The approximation
ignores that arrivals of one request's steps are correlated, batching, and link capacity. docs/placement.md compares it
with a simulation.
"""

from collections.abc import Callable, Sequence

import numpy as np

from s2m3.planner.solving.latency import latency_s
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.moves import WORTH_S, devices_with_room
from s2m3.planner.solving.problem import Floats, Problem, Route

__all__ = [
    "growth",
    "has_rates",
    "loaded_latencies_s",
    "loaded_objective_s",
    "mean_objective_s",
    "relieve",
    "utilisation",
    "waits_s",
]

#: Above this utilisation, 1 / (1 - utilisation) is continued by its tangent, so that overloaded plans still compare.
_STEEPEST_AT = 0.95


def has_rates(problem: Problem) -> bool:
    """Whether any task has a request rate above 0."""
    return any(task.rate > 0 for task in problem.tasks)


def utilisation(problem: Problem, routes: Sequence[Route]) -> Floats:
    """Returns each device's utilisation, the sum of rate x seconds over the steps routed to it, [devices]."""
    busy = np.zeros(len(problem.device_ids))
    for task, route in zip(problem.tasks, routes, strict=True):
        for module, device in zip(task.modules, route, strict=True):
            busy[device] += task.rate * problem.runs_s(module, device)
    return busy


def waits_s(problem: Problem, routes: Sequence[Route]) -> Floats:
    """Returns the mean queueing delay of a step at each device, s, [devices] (M/G/1)."""
    squares = np.zeros(len(problem.device_ids))
    for task, route in zip(problem.tasks, routes, strict=True):
        for module, device in zip(task.modules, route, strict=True):
            squares[device] += task.rate * problem.runs_s(module, device) ** 2
    longer: Floats = np.array([growth(busy) for busy in utilisation(problem, routes).tolist()])
    return squares / 2 * longer


def growth(busy: float) -> float:
    """Returns by how much a device's utilisation lengthens the queue: 1 / (1 - utilisation), its tangent near 1."""
    if busy < _STEEPEST_AT:
        return 1 / (1 - busy)
    steepest = 1 / (1 - _STEEPEST_AT)
    return steepest + steepest**2 * (busy - _STEEPEST_AT)


def loaded_latencies_s(problem: Problem, routes: Sequence[Route]) -> list[float]:
    """Returns each task's mean latency under load, s: the evaluator's, with each step delayed by its device's queue."""
    waits = waits_s(problem, routes).tolist()
    return [latency_s(problem, task, route, waits) for task, route in zip(problem.tasks, routes, strict=True)]


def loaded_objective_s(problem: Problem, routes: Sequence[Route]) -> float:
    """Returns the sum over tasks of weight x mean latency under load, seconds."""
    latencies = loaded_latencies_s(problem, routes)
    return sum(task.weight * latency for task, latency in zip(problem.tasks, latencies, strict=True))


def mean_objective_s(layout: Layout) -> float:
    """Returns the objective, seconds: under load if any task has a request rate, else on idle devices."""
    if has_rates(layout.problem):
        return loaded_objective_s(layout.problem, layout.routes)
    return layout.objective_s


def relieve(layout: Layout, expired: Callable[[], bool]) -> None:
    """Moves modules, adds copies and reroutes tasks as long as that lowers the objective under load.

    Args:
        layout: Changed in place. Routes become those that are best under load; latencies stay those of idle devices.
        expired: Returns whether time is up.
    """
    best_s = loaded_objective_s(layout.problem, layout.routes)
    gained = True
    while gained:
        gained = False
        for module in sorted(layout.problem.users):
            for device in [*layout.copies[module], *devices_with_room(layout, module).tolist()]:
                if expired():
                    return
                for trial in _trials(layout, module, device):
                    value = loaded_objective_s(trial.problem, trial.routes)
                    if value < best_s - WORTH_S:
                        best_s, gained = value, True
                        layout.assign_from(trial)
                        break


def _trials(layout: Layout, module: int, device: int) -> list[Layout]:
    """Returns layouts with a module's tasks routed to a device: all tasks, and each task alone if copies may differ."""
    users = layout.problem.users[module]
    groups = [list(users)]
    if layout.problem.max_replicas > 1 and len(users) > 1:
        groups += [[t] for t in users]
    trials = []
    for group in groups:
        trial = layout.copy()
        if device not in trial.copies[module]:
            trial.add(module, device)
        for t in group:
            task = layout.problem.tasks[t]
            steps = zip(task.modules, layout.routes[t], strict=True)
            trial.routes[t] = tuple(device if used == module else at for used, at in steps)
            trial.latencies[t] = latency_s(layout.problem, task, trial.routes[t])
        trial.drop_unused([module])
        if len(trial.copies[module]) <= layout.problem.max_replicas:
            trials.append(trial)
    return trials
