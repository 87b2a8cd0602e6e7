"""Local search: a descent by single moves, added copies and pair moves, then perturbations that are descended again."""

import random
from collections.abc import Callable, Iterable

from s2m3.planner.solving.greedy import complete
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.moves import WORTH_S, add_copy, move_pair, relocate
from s2m3.planner.solving.repair import make_room

__all__ = ["descend", "shake"]

#: A pair move evaluates devices x devices positions at once; pairs with more positions than this are skipped.
_LARGEST_PAIR = 10_000
#: Most modules that one perturbation places again.
_SHAKEN = 8
#: A perturbed layout may be up to this part worse than the current one and still replace it.
_WORSE = 0.05

Expired = Callable[[], bool]


def descend(layout: Layout, expired: Expired) -> None:
    """Applies improving moves until none is left or time is up.

    Args:
        layout: Improved in place; it stays feasible throughout.
        expired: Returns whether time is up; called before every move.
    """
    modules = _by_weighted_latency(layout)
    while True:
        if _singles(layout, modules, expired):
            continue
        if expired() or not _pairs(layout, modules, expired):
            break
    layout.drop_unused()


def _by_weighted_latency(layout: Layout) -> list[int]:
    """Returns the modules that tasks use, those of the tasks with the largest weighted latency first."""
    problem = layout.problem
    weighted_s = {
        m: sum(problem.tasks[t].weight * layout.latencies[t] for t in users) for m, users in problem.users.items()
    }
    return sorted(weighted_s, key=lambda m: (-weighted_s[m], m))


def _singles(layout: Layout, modules: Iterable[int], expired: Expired) -> bool:
    """Tries single moves and added copies of all modules once; returns whether one gained, False when time is up."""
    gained = False
    for module in modules:
        if expired():
            return False
        if relocate(layout, module):
            gained = True
        while layout.problem.max_replicas > 1 and not expired() and add_copy(layout, module):
            gained = True
            layout.drop_unused()
    return gained


def _pairs(layout: Layout, modules: list[int], expired: Expired) -> bool:
    """Tries pair moves until one gains; returns whether one did."""
    able = layout.problem.able
    for position, one in enumerate(modules):
        for other in modules[position + 1 :]:
            if expired():
                return False
            if len(able(one)) * len(able(other)) <= _LARGEST_PAIR and move_pair(layout, one, other):
                return True
    return False


def shake(best: Layout, expired: Expired, *, rounds: int, seed: int = 0) -> Layout:
    """Returns the best layout of an iterated local search: remove a few modules, place them greedily, descend.

    Args:
        best: The initial layout; not changed.
        expired: Returns whether time is up.
        rounds: Most perturbations in a row without a gain.
        seed: Equal seeds give equal perturbations, so that results differ only by the time available.
    """
    rng = random.Random(seed)  # noqa: S311  # not a secret
    modules = _by_weighted_latency(best)
    since_gain = 0
    incumbent = best
    while since_gain < rounds and modules and not expired():
        since_gain += 1
        trial = incumbent.copy()
        removed = rng.sample(modules, min(len(modules), rng.randint(2, _SHAKEN)))
        if rng.choice((True, False)):  # largest first fits more often; random order explores more
            removed.sort(key=lambda m: -trial.problem.size_mb[m])
        for module in removed:
            trial.unsettle(module)
        if not all(make_room(trial, module) for module in complete(trial, removed)):
            continue
        trial.reroute()
        _singles(trial, removed, expired)
        if trial.objective_s <= incumbent.objective_s * (1 + _WORSE * rng.random()):
            incumbent = trial
        if trial.objective_s < best.objective_s - WORTH_S:
            best, since_gain = trial, 0
    return best
