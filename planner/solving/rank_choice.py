"""Chooses a model for each task where not all best ones fit: first answers for most tasks, then better models. Pure."""

import heapq
from collections.abc import Callable, Mapping, Sequence
from math import prod

from s2m3.schemas.errors import NoCapacityError

__all__ = ["WhyNot", "choose_ranks", "cost_of"]

#: task -> rank
Ranks = Mapping[str, int]
#: Returns why the models of these ranks do not fit together; None if they do.
WhyNot = Callable[[Ranks], NoCapacityError | None]
#: (weight of the tasks that are left out, of those that are not at rank 0, of those that are not at rank 1, ...)
Cost = tuple[float, ...]

#: Instances of more combinations than this are not searched, and a search ends after so many placements.
_MOST_COMBINATIONS, _MOST_PLACED = 100_000, 150
#: In the place of a rank in a state: the task is left out. It comes after all ranks, so that of equal choices the last
#: tasks are left out.
_LEFT_OUT = 1_000_000


def cost_of(ranks: Ranks, weights: Mapping[str, float], lowest: int) -> Cost:
    """Returns the cost of a choice; costs are compared from the first number on.

    Args:
        ranks: The choice.
        weights: Task -> what it costs to leave the task out.
        lowest: The lowest rank of any task.
    """
    levels = (
        sum(weight for task, weight in weights.items() if task not in ranks),
        *(sum(weights[task] for task, rank in ranks.items() if rank > level) for level in range(lowest)),
    )
    return tuple(round(weight, 9) for weight in levels)


def choose_ranks(
    options: Mapping[str, Sequence[int]],
    weights: Mapping[str, float],
    size: Callable[[str, int], float],
    why_not: WhyNot,
) -> tuple[dict[str, int], dict[str, NoCapacityError]]:
    """Returns the rank of each task that gets a model, and why each other task gets none.

    As few tasks as possible are left out; then as many as possible have their best model, then their second, and so on
    (`cost_of`). Where there are few combinations, the search finds that choice. On larger instances each task in turn
    first gets its smallest model, if that fits, then its best, if that fits, then its second.

    Args:
        options: Task -> ranks of its models, the best first. Of equal choices the first tasks get the better ranks.
        weights: Task -> what it costs to leave the task out.
        size: Returns the memory of a task's model of a rank, 10^6 bytes.
        why_not: Whether models fit together; if they do not, more models do not fit either.
    """
    smallest = {task: min(ranks, key=lambda rank: (size(task, rank), rank)) for task, ranks in options.items()}
    chosen, left_out = _grown({}, list(options), smallest, why_not)
    waiting = [task for task in options if task in chosen]
    for position in range(max(map(len, options.values()), default=0)):
        better = {task: options[task][position] for task in waiting if position < len(options[task])}
        raised = [task for task in waiting if better.get(task, chosen[task]) < chosen[task]]
        chosen, refused = _grown(chosen, raised, better, why_not)
        waiting = [task for task in waiting if task in refused]
    found = _search(options, weights, chosen, why_not)
    if found is None:
        return chosen, left_out
    for task in options.keys() - found.keys() - left_out.keys():
        error = why_not({**found, task: smallest[task]})
        left_out[task] = error or NoCapacityError(f"the models of {task} do not fit beside those of other tasks")
    return found, {task: left_out[task] for task in options if task not in found}


def _grown(
    chosen: Ranks, tasks: Sequence[str], ranks: Ranks, why_not: WhyNot
) -> tuple[dict[str, int], dict[str, NoCapacityError]]:
    """Returns a choice with as many tasks at these ranks as fit, the first before the later, and why others do not.

    Tasks are tried in halves, so that few attempts are needed where few tasks do not fit.
    """
    grown, refused = dict(chosen), dict[str, NoCapacityError]()
    blocks = [list(tasks)] if tasks else []
    while blocks:
        block = blocks.pop()
        trial = {**grown, **{task: ranks[task] for task in block}}
        error = why_not(trial)
        if error is None:
            grown = trial
        elif len(block) == 1:
            refused[block[0]] = error
        else:
            middle = len(block) // 2
            blocks += [block[middle:], block[:middle]]
    return grown, refused


def _search(
    options: Mapping[str, Sequence[int]], weights: Mapping[str, float], known: Ranks, why_not: WhyNot
) -> dict[str, int] | None:
    """Returns the choice of least cost, by best-first search; None if that is the known one, or the search is too long.

    A state is a choice for the first tasks. What the other tasks cost at least, at their best ranks, bounds it from
    below, and it is placed only when no state has a lower bound.
    """
    names, lowest = list(options), max((max(ranks) for ranks in options.values()), default=0)
    if prod(len(ranks) + 1 for ranks in options.values()) > _MOST_COMBINATIONS:
        return None
    best = {task: ranks[0] for task, ranks in options.items()}
    limit = cost_of(known, weights, lowest)
    heap: list[tuple[Cost, tuple[int, ...]]] = [(cost_of(best, weights, lowest), ())]
    placed = 0
    while heap and heap[0][0] < limit and placed < _MOST_PLACED:
        _, state = heapq.heappop(heap)
        ranks = {task: rank for task, rank in zip(names, state, strict=False) if rank != _LEFT_OUT}
        if state and state[-1] != _LEFT_OUT:
            placed += 1
            if why_not(ranks) is not None:
                continue
        if len(state) == len(names):
            return ranks
        task, rest = names[len(state)], {name: best[name] for name in names[len(state) + 1 :]}
        for rank in (*options[task], _LEFT_OUT):
            bound = {**ranks, **rest} if rank == _LEFT_OUT else {**ranks, task: rank, **rest}
            heapq.heappush(heap, (cost_of(bound, weights, lowest), (*state, rank)))
    return None
