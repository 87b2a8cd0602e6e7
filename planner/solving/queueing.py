"""Waiting at shared devices under request rates: an approximation, and a local search that lowers it.

The approximation: each device is an M/G/1 queue of its own. Requests come at random at each task's rate, every step
adds its seconds to its device's work, and a step waits, on the mean, what the Pollaczek-Khinchine formula says:
W = sum(rate x seconds^2) / (2 (1 - utilisation)). It leaves out that a request's steps arrive one because of the other,
batching, and what links can carry. docs/placement.md compares it with a simulation.
"""

from collections.abc import Callable, Sequence

import numpy as np

from s2m3.planner.solving.latency import latency_s
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.moves import WORTH_S, roomy
from s2m3.planner.solving.problem import Floats, Problem, Route

__all__ = [
    "has_rates",
    "loaded_latencies_s",
    "loaded_objective_s",
    "mean_objective_s",
    "relieve",
    "utilisation",
    "waits_s",
]

#: 1 / (1 - utilisation) goes on as its tangent from here: overloaded plans still compare, the less overloaded wins.
_STEEPEST_AT = 0.95


def has_rates(problem: Problem) -> bool:
    """Whether any task says how often it is asked."""
    return any(task.rate > 0 for task in problem.tasks)


def utilisation(problem: Problem, routes: Sequence[Route]) -> Floats:
    """Returns, per device, the part of the time it computes: rate x seconds over all steps it serves."""
    busy = np.zeros(len(problem.device_ids))
    for task, route in zip(problem.tasks, routes, strict=True):
        for module, device in zip(task.modules, route, strict=True):
            busy[device] += task.rate * problem.runs_s(module, device)
    return busy


def waits_s(problem: Problem, routes: Sequence[Route]) -> Floats:
    """Returns, per device, how long a step waits there on the mean before it is its turn, seconds (M/G/1)."""
    squares = np.zeros(len(problem.device_ids))
    for task, route in zip(problem.tasks, routes, strict=True):
        for module, device in zip(task.modules, route, strict=True):
            squares[device] += task.rate * problem.runs_s(module, device) ** 2
    busy = utilisation(problem, routes)
    steepest = 1 / (1 - _STEEPEST_AT)
    growth = np.where(
        busy < _STEEPEST_AT,
        1 / (1 - np.minimum(busy, _STEEPEST_AT)),
        steepest + steepest**2 * (busy - _STEEPEST_AT),
    )
    return squares / 2 * growth


def loaded_latencies_s(problem: Problem, routes: Sequence[Route]) -> list[float]:
    """Returns each task's mean latency under load, seconds: the evaluator's, each step delayed by its device's wait."""
    waits = waits_s(problem, routes).tolist()
    return [latency_s(problem, task, route, waits) for task, route in zip(problem.tasks, routes, strict=True)]


def loaded_objective_s(problem: Problem, routes: Sequence[Route]) -> float:
    """Returns the sum over tasks of weight x mean latency under load, seconds."""
    latencies = loaded_latencies_s(problem, routes)
    return sum(task.weight * latency for task, latency in zip(problem.tasks, latencies, strict=True))


def mean_objective_s(layout: Layout) -> float:
    """Returns the objective: under load where tasks say their rates, on idle devices where none does."""
    if has_rates(layout.problem):
        return loaded_objective_s(layout.problem, layout.routes)
    return layout.objective_s


def relieve(layout: Layout, expired: Callable[[], bool]) -> None:
    """Moves modules, adds copies and sends tasks to other copies as long as that lowers the objective under load.

    Args:
        layout: Changed in place; its latencies stay those of idle devices, on the routes that load asks for.
        expired: Whether time is up.
    """
    best_s = loaded_objective_s(layout.problem, layout.routes)
    gained = True
    while gained:
        gained = False
        for module in sorted(layout.problem.users):
            for device in [*layout.copies[module], *roomy(layout, module).tolist()]:
                if expired():
                    return
                for trial in _trials(layout, module, device):
                    value = loaded_objective_s(trial.problem, trial.routes)
                    if value < best_s - WORTH_S:
                        best_s, gained = value, True
                        layout.become(trial)
                        break


def _trials(layout: Layout, module: int, device: int) -> list[Layout]:
    """One module's tasks to a device: all of them, or one task where copies may differ."""
    users = layout.problem.users[module]
    groups = [list(users)]
    if layout.problem.max_replicas > 1 and len(users) > 1:
        groups += [[t] for t in users]
    trials = []
    for group in groups:
        trial = layout.twin()
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
