"""The change of tasks to better models, and the copies held meanwhile so that every task has an answer. Pure."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from s2m3.planner.solving.layout import SLACK_MB

__all__ = ["ChangeOver", "Changing", "Memory", "change_over"]

#: module -> devices
Copies = Mapping[str, Collection[str]]
#: A module on a device.
Copy = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Memory:
    """The memory of devices and modules, and the devices that can run each module.

    Args:
        room_mb: Memory of each device for modules, 10^6 bytes.
        size_mb: Memory of each module, 10^6 bytes.
        able: Module -> devices that can run it.
    """

    room_mb: Mapping[str, float]
    size_mb: Mapping[str, float]
    able: Copies


@dataclass(frozen=True, slots=True)
class Changing:
    """A task that a model answers until another one is loaded, or until the same one is elsewhere.

    Args:
        placed: The modules of the model that is placed.
        others: The modules of each model that may answer meanwhile: first the one that answers now.
    """

    placed: Collection[str]
    others: tuple[Collection[str], ...]


@dataclass(slots=True)
class ChangeOver:
    """The result of `change_over`.

    Args:
        transit: Copies to hold besides those of the goal until the placed models are loaded, module -> devices.
        yielding: The tasks whose model is unloaded to free memory, once another copy or model answers.
        stuck: The tasks whose placed model cannot be loaded while all tasks keep an answer.
    """

    transit: dict[str, list[str]] = field(default_factory=dict)
    yielding: set[str] = field(default_factory=set)
    stuck: list[str] = field(default_factory=list)


def change_over(
    goal: Copies, ready: Copies, current: Copies, tasks: Mapping[str, Changing], memory: Memory
) -> ChangeOver:
    """Returns the copies to hold until the placed models answer all tasks, and the tasks whose models cannot be loaded.

    Copies of the goal are loaded where they fit beside the models that answer. If all remaining copies wait for the
    memory of a model that answers a task, other devices answer the task meanwhile: with the same model if it fits
    there, else with another of its models.

    Args:
        goal: The copies of all placed models.
        ready: The copies that serve requests now.
        current: The copies that devices hold or load now: of equal devices these are taken.
        tasks: The tasks that change over.
        memory: The memory of devices and modules.
    """
    way = _Way(goal, ready, current, tasks, memory)
    found = ChangeOver(yielding=way.yielding)
    touched: set[str] = set()
    while True:
        touched |= way.settle()
        if not way.waiting:
            return found
        transit = way.next_transit()
        if transit is None:
            found.stuck = [task for task in tasks if task in way.waiting]
            return found
        if touched.isdisjoint(device for _, device in transit):  # later copies may find their memory taken now
            for module, device in transit:
                found.transit.setdefault(module, []).append(device)
        touched.update(device for _, device in transit)


class _Way:
    """The copies on all devices while loads end and models cease to answer, in the order of these events."""

    def __init__(
        self, goal: Copies, ready: Copies, current: Copies, tasks: Mapping[str, Changing], memory: Memory
    ) -> None:
        self._tasks, self._memory, self._current = tasks, memory, current
        self._ready = {(module, device) for module, devices in ready.items() for device in devices}
        self._goal = {(module, device) for module, devices in goal.items() for device in devices}
        self._held = self._goal & self._ready
        self._transit: set[Copy] = set()
        #: the tasks that are not answered by their placed model yet
        self.waiting = dict(tasks)
        #: the tasks that another model, or another copy, took over before the placed model did
        self.yielding: set[str] = set()
        #: task -> the copies of the model that answers it, which stay until another one does
        self._kept = {
            task: {(module, device) for module in one.others[0] for device in ready.get(module, ())} - self._goal
            for task, one in tasks.items()
        }

    def settle(self) -> set[str]:
        """Loads the copies that fit, and drops those that answer no task any more; returns the devices that changed."""
        changed: set[str] = set()
        while True:
            loaded = self._load()
            freed = self._let_go()
            if not loaded | freed:
                return changed
            changed |= loaded | freed

    def _load(self) -> set[str]:
        """Loads the missing copies that fit, the smaller first; returns their devices."""
        missing = sorted(self._missing(), key=lambda copy: (self._memory.size_mb[copy[0]], copy))
        free = self._free(self._held.union(*self._kept.values()))
        loaded = set()
        for module, device in missing:
            if self._memory.size_mb[module] <= free.get(device, 0.0) + SLACK_MB:
                free[device] -= self._memory.size_mb[module]
                self._held.add((module, device))
                loaded.add(device)
        return loaded

    def _let_go(self) -> set[str]:
        """Drops the copies of models that another one has taken over from; returns the devices that they were on."""
        freed = set()
        placed, held = ({module for module, _ in copies} for copies in (self._held & self._goal, self._held))
        for task, one in list(self.waiting.items()):
            is_changed = placed.issuperset(one.placed)
            if is_changed:
                del self.waiting[task]
            elif task in self._kept and any(held.issuperset(modules) for modules in one.others):
                self.yielding.add(task)
            else:
                continue
            freed |= {device for _, device in self._kept.pop(task, ())}
        return freed

    def _missing(self) -> set[Copy]:
        return (self._goal | self._transit) - self._held

    def _free(self, copies: Collection[Copy]) -> dict[str, float]:
        """Returns the memory that some copies leave on each device, 10^6 bytes."""
        free = dict(self._memory.room_mb)
        for module, device in copies:
            if device in free:
                free[device] -= self._memory.size_mb[module]
        return free

    def next_transit(self) -> set[Copy] | None:
        """Returns copies that can answer a task whose model occupies memory that others wait for; None without any."""
        full = {device for _, device in self._missing()}
        for task, modules in self._in_the_way(full):
            found = self._elsewhere(task, modules, full)
            if found is not None:
                self._transit |= found
                self._held |= found & self._ready
                return found
        return None

    def _in_the_way(self, full: Collection[str]) -> Iterator[tuple[str, Collection[str]]]:
        """Yields each task whose model occupies memory that others wait for, with each of the task's models."""
        for task, copies in self._kept.items():
            if any(device in full for _, device in copies):
                for modules in self._tasks[task].others:
                    yield task, modules

    def _elsewhere(self, task: str, modules: Collection[str], full: Collection[str]) -> set[Copy] | None:
        """Returns further copies with which a model can answer a task instead of its current copies; None without room.

        They fit beside all present copies, and beside all coming copies once the task's current ones are dropped.
        """
        others = set[Copy]().union(*(copies for of, copies in self._kept.items() if of != task))
        now = self._free(self._held | others | self._kept[task])
        later = self._free(self._held | self._goal | self._transit | others)
        found, there = set[Copy](), {module for module, _ in self._held}
        for module in sorted(set(modules) - there, key=lambda one: (-self._memory.size_mb[one], one)):
            size_mb = self._memory.size_mb[module]
            standing = {device for of, device in others | self._kept[task] if of == module and device not in full}
            able = [device for device in self._memory.able.get(module, ()) if device in now]
            fitting = [d for d in able if d in standing or size_mb <= min(now[d], later[d]) + SLACK_MB]
            fitting = [device for device in fitting if (module, device) not in self._kept[task] or device in standing]
            if not fitting:
                return None
            known = self._current.get(module, ())
            device = min(fitting, key=lambda one: (one not in standing, one not in known, now[one], one))
            if device not in standing:
                now[device] -= size_mb
                later[device] -= size_mb
            found.add((module, device))
        return found
