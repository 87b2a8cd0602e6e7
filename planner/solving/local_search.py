"""Local search: descends by single moves, copies and pairs, then shakes and descends again while there is time."""

import random
from collections.abc import Callable, Iterable

from s2m3.planner.solving.greedy import complete
from s2m3.planner.solving.layout import Layout
from s2m3.planner.solving.moves import WORTH_S, add_copy, move_pair, relocate
from s2m3.planner.solving.repair import make_room

__all__ = ["descend", "shake"]

#: A pair looks at devices x devices places at once: beyond this, single moves only.
_LARGEST_PAIR = 10_000
#: How many modules a shake throws elsewhere, at most.
_SHAKEN = 8
#: A shake may leave things this much worse and be gone on from.
_WORSE = 0.05

Expired = Callable[[], bool]


def descend(layout: Layout, expired: Expired) -> None:
    """Improves until no move gains, or time is up.

    Args:
        layout: Improved in place; feasible at every moment.
        expired: Whether time is up; asked before every move.
    """
    modules = _by_stake(layout)
    while True:
        if _singles(layout, modules, expired):
            continue
        if expired() or not _pairs(layout, modules, expired):
            break
    layout.drop_unused()


def _by_stake(layout: Layout) -> list[int]:
    """Modules that tasks use, those of the costliest tasks first: time goes where most is to gain."""
    problem = layout.problem
    stake = {m: sum(problem.tasks[t].weight * layout.latencies[t] for t in users) for m, users in problem.users.items()}
    return sorted(stake, key=lambda m: (-stake[m], m))


def _singles(layout: Layout, modules: Iterable[int], expired: Expired) -> bool:
    """One round of single moves over all modules; returns whether any gained and time is left for another."""
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
    """Tries pairs until one gains."""
    able = layout.problem.able
    for position, one in enumerate(modules):
        for other in modules[position + 1 :]:
            if expired():
                return False
            if len(able(one)) * len(able(other)) <= _LARGEST_PAIR and move_pair(layout, one, other):
                return True
    return False


def shake(best: Layout, expired: Expired, *, rounds: int, seed: int = 0) -> Layout:
    """Returns the best layout found by taking a few modules out, putting them back greedily, and descending.

    Args:
        best: Where to begin; not changed.
        expired: Whether time is up.
        rounds: Most shakes without a gain.
        seed: The same seed makes the same shakes; only the time they are given can make a difference.
    """
    chance = random.Random(seed)  # noqa: S311  # not a secret
    modules = _by_stake(best)
    since_gain = 0
    here = best
    while since_gain < rounds and modules and not expired():
        since_gain += 1
        trial = here.twin()
        out = chance.sample(modules, min(len(modules), chance.randint(2, _SHAKEN)))
        if chance.choice((True, False)):  # the largest first fits more often; any order finds more
            out.sort(key=lambda m: -trial.problem.size_mb[m])
        for module in out:
            trial.unsettle(module)
        if not all(make_room(trial, module) for module in complete(trial, out)):
            continue
        trial.reroute()
        _singles(trial, out, expired)
        if trial.objective_s <= here.objective_s * (1 + _WORSE * chance.random()):
            here = trial
        if trial.objective_s < best.objective_s - WORTH_S:
            best, since_gain = trial, 0
    return best
