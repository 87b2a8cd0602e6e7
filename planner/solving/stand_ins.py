"""Warm stand-ins in spare memory: which further models of tasks are held ready, and where. Pure.

A stand-in serves after the loss of a device. So its copies lie, where possible, on other devices than those whose loss
takes the better model away.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from s2m3.planner.solving.layout import SLACK_MB
from s2m3.planner.solving.rank_choice import choose_ranks
from s2m3.planner.solving.second_copies import Spare
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance, PlacedModule

__all__ = ["RankedTask", "StandIns", "absence_s", "stand_ins"]

#: Most branches of the search for places of some stand-ins together, and of how many modules it is made.
_MOST_BRANCHES, _MOST_SEARCHED = 2_000, 64
#: A module, the devices that do not count as its places, and the modules of its model.
_Need = tuple[str, frozenset[str], tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class RankedTask:
    """A task that one of its models answers, and the modules of its models by rank.

    Args:
        answers: The rank of the model that is placed.
        models: Rank -> modules: that model, and those below it that can be held.
    """

    answers: int
    models: Mapping[int, tuple[str, ...]]

    @property
    def lower(self) -> list[int]:
        """The ranks below the one that answers, the best first."""
        return sorted(rank for rank in self.models if rank > self.answers)

    def models_at(self, *ranks: int) -> list[tuple[str, ...]]:
        """Returns the modules of the models of some ranks."""
        return [self.models[rank] for rank in ranks]


@dataclass(slots=True)
class StandIns:
    """The stand-ins that are held warm.

    Args:
        copies: Module -> devices, beyond those of the placement.
        ranks: Task -> ranks held warm below the one that answers, in the order in which they were chosen.
    """

    copies: dict[str, list[str]] = field(default_factory=dict)
    ranks: dict[str, list[int]] = field(default_factory=dict)


def absence_s(task: RankedTask, size_mb: Mapping[str, float], spare: Spare) -> float:
    """Returns the cost of a task without a warm stand-in, seconds: the time to load one, times the chance of a loss.

    It is the time to notice the loss and to load the smallest model below the one that answers.
    """
    least_mb = min(sum(size_mb[module] for module in set(task.models[rank])) for rank in task.lower)
    return spare.lost * (spare.notice_s + least_mb / spare.load_mb_s)


def stand_ins(
    instance: Instance,
    placement: Mapping[str, Sequence[str]],
    tasks: Mapping[str, RankedTask],
    *,
    current: Mapping[str, Sequence[str]] | None = None,
    spare: Spare | None = None,
) -> StandIns:
    """Returns the stand-ins to hold in the memory that a placement leaves.

    Each task first gets one stand-in: the choice leaves out the cheapest tasks (`absence_s`), then prefers the best
    ranks. Then follow the tasks whose stand-in must lie on devices of the better model (if that is spread over all
    devices, the stand-in lies on as few as possible), further ranks, and stand-ins for losses that the others do not
    outlive.

    Args:
        instance: Devices, and the modules of the placement and of all models of the tasks.
        placement: Module -> devices of the models that answer.
        tasks: The tasks with more than one model.
        current: Module -> devices now; a copy that exists is kept where that is as good.
        spare: The parameters of the cost of a loss; None takes the defaults.
    """
    spare, current = spare or Spare(), current or {}
    size_mb = {module.id: module.memory_mb for module in instance.modules}
    held = {module: set(devices) for module, devices in placement.items()}
    found = StandIns()
    room = _Room(instance, held, current)
    # tasks with a warm stand-in come first: of equal choices the first tasks are served
    worth = {task: absence_s(one, size_mb, spare) for task, one in tasks.items() if one.lower}
    order = sorted(worth, key=lambda task: (-worth[task], not _is_held(tasks[task], current), task))
    for strict in (True, False):
        avoided = {
            task: room.broken_by([tasks[task].models[tasks[task].answers]]) if strict else frozenset[str]()
            for task in order
            if task not in found.ranks
        }
        _choose(tasks, worth, room, found, avoided)
    for _ in range(max((len(one.lower) for one in tasks.values()), default=1) - 1):
        models = {task: tasks[task].models_at(tasks[task].answers, *found.ranks.get(task, ())) for task in order}
        _choose(tasks, worth, room, found, {task: room.broken_by(models[task]) for task in order})
    for _ in range(max((len(one.lower) for one in tasks.values()), default=1) - 1):
        models = {task: tasks[task].models_at(tasks[task].answers, *found.ranks.get(task, ())) for task in order}
        fatal = {task: room.breaking_each(models[task]) for task in order if task in found.ranks}
        _choose(tasks, worth, room, found, {task: devices for task, devices in fatal.items() if devices})
    found.copies = {module: sorted(devices) for module, devices in room.added.items() if devices}
    return found


def _is_held(task: RankedTask, current: Mapping[str, Sequence[str]]) -> bool:
    return any(all(current.get(module) for module in task.models[rank]) for rank in task.lower)


def _choose(
    tasks: Mapping[str, RankedTask],
    worth: Mapping[str, float],
    room: "_Room",
    found: StandIns,
    avoided: Mapping[str, frozenset[str]],
) -> None:
    """Adds at most one stand-in to each task of `avoided`, and their copies to the room.

    Args:
        tasks: The tasks.
        worth: Task -> what it costs to leave the task out.
        room: The memory that is left.
        found: The stand-ins so far; those that are chosen are added.
        avoided: Task -> devices whose loss the stand-in is to outlive.
    """
    warm = {task: found.ranks.get(task, []) for task in avoided}
    options = {task: [rank for rank in tasks[task].lower if rank not in warm[task]] for task in avoided}
    options = {task: ranks for task, ranks in options.items() if ranks}
    if not options:
        return

    def needs(ranks: Mapping[str, int]) -> list[_Need]:
        models = ((avoided[task], tasks[task].models[rank]) for task, rank in ranks.items())
        wanted = {(module, devices, modules) for devices, modules in models for module in modules}
        return sorted(wanted, key=lambda need: (-room.size_mb(need[0]), need[0], sorted(need[1]), need[2]))

    def why_not(ranks: Mapping[str, int]) -> NoCapacityError | None:
        return None if room.places(needs(ranks)) is not None else NoCapacityError("no spare memory for the stand-ins")

    weights = {task: worth[task] for task in options}
    chosen, _ = choose_ranks(options, weights, lambda task, rank: room.missing_mb(tasks[task].models[rank]), why_not)
    room.add(room.places(needs(chosen)) or [])
    for task, rank in chosen.items():
        found.ranks.setdefault(task, []).append(rank)


class _Room:
    """The memory that is left on each device, and the copies in it."""

    def __init__(self, instance: Instance, held: Mapping[str, set[str]], current: Mapping[str, Sequence[str]]) -> None:
        self._modules: dict[str, PlacedModule] = {module.id: module for module in instance.modules}
        self._free = {device.id: device.memory_mb for device in instance.devices}
        for module, devices in held.items():
            for device in devices:
                self._free[device] -= self._modules[module].memory_mb
        self._held, self._current = held, current
        self.added: dict[str, list[str]] = {}

    def size_mb(self, module: str) -> float:
        """Returns a module's memory, 10^6 bytes."""
        return self._modules[module].memory_mb

    def missing_mb(self, modules: Collection[str]) -> float:
        """Returns the memory of those modules that have no copy, 10^6 bytes."""
        return sum(self.size_mb(module) for module in set(modules) if not self._places_of(module))

    def _places_of(self, module: str) -> set[str]:
        return {*self._held.get(module, ()), *self.added.get(module, ())}

    def broken_by(self, models: Collection[Collection[str]]) -> frozenset[str]:
        """Returns the devices whose loss alone takes away one of some models."""
        places = [self._places_of(module) for modules in models for module in modules]
        return frozenset(device for devices in places if len(devices) == 1 for device in devices)

    def breaking_each(self, models: Collection[Collection[str]]) -> frozenset[str]:
        """Returns the devices whose loss alone takes away all of some models."""
        broken = [self.broken_by([modules]) for modules in models]
        return frozenset.intersection(*broken)

    def add(self, copies: Sequence[tuple[str, str]]) -> None:
        """Takes the memory of copies, (module, device) each."""
        for module, device in copies:
            self._free[device] -= self.size_mb(module)
            self.added.setdefault(module, []).append(device)

    def places(self, needs: Sequence[_Need]) -> list[tuple[str, str]] | None:
        """Returns the copies, (module, device) each, that satisfy every need; None if none were found.

        Each need in turn takes its best device; if that leads to no solution and the needs are few, others are tried.
        """
        branches = _MOST_BRANCHES if len(needs) <= _MOST_SEARCHED else len(needs) + 1
        free, copies = dict(self._free), list[tuple[str, str]]()
        #: for each need that took a device: the devices that it may still take
        others: list[Iterator[str]] = []
        placed: list[int] = []
        position = 0
        while position < len(needs):
            module, avoided, model = needs[position]
            there = self._places_of(module) | {device for of, device in copies if of == module}
            if there - avoided:
                position += 1
                continue
            near = self._alone_with(model, copies)
            waiting = iter([one for one in self._candidates(module, avoided, free, near) if one not in there])
            while (device := self._next_with_room(waiting, module, free)) is None:
                if not others:
                    return None
                module, device = copies.pop()
                free[device] += self.size_mb(module)
                waiting, position = others.pop(), placed.pop()
            branches -= 1
            if branches < 0:
                return None
            free[device] -= self.size_mb(module)
            copies.append((module, device))
            others.append(waiting)
            placed.append(position)
            position += 1
        return copies

    def _next_with_room(self, devices: Iterator[str], module: str, free: Mapping[str, float]) -> str | None:
        return next((device for device in devices if free[device] + SLACK_MB >= self.size_mb(module)), None)

    def _alone_with(self, model: Collection[str], copies: Sequence[tuple[str, str]]) -> set[str]:
        """Returns the devices that alone hold one of a model's modules, with these further copies."""
        added = {module: {device for of, device in copies if of == module} for module in model}
        places = [self._places_of(module) | added[module] for module in model]
        return {device for devices in places if len(devices) == 1 for device in devices}

    def _candidates(
        self, module: str, avoided: frozenset[str], free: Mapping[str, float], near: Collection[str]
    ) -> list[str]:
        """Returns the devices for a copy: those whose loss takes its model in any case, then those that hold one now.

        Then come the fastest, and those with least room left.
        """
        seconds, now = self._modules[module].seconds, self._current.get(module, ())
        able = [device for device in seconds if device in free and device not in avoided]
        return sorted(able, key=lambda one: (one not in near, one not in now, seconds[one], free[one], one))
