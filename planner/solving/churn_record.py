"""The counters of a churn simulation: for each task the time without an answer, and the moves of all modules. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from s2m3.schemas.instance import PlacedTask

__all__ = ["ChurnResult", "Record", "TaskChurn"]


@dataclass(frozen=True, slots=True)
class TaskChurn:
    """The effect of a trace on one task.

    Args:
        availability: Part of the time in which the task had an answer.
        without_s: Time without an answer, seconds.
        longest_s: The longest time in a row without an answer, seconds.
        interruptions: Number of times without an answer.
        latency_s: Mean over the time with an answer, seconds; None if there was none.
    """

    availability: float
    without_s: float
    longest_s: float
    interruptions: int
    latency_s: float | None


@dataclass(frozen=True, slots=True)
class ChurnResult:
    """The effect of a trace on a site: its tasks, plans made, copies loaded and unloaded, and 10^6 bytes loaded."""

    policy: str
    until_s: float
    tasks: Mapping[str, TaskChurn]
    plans: int
    loads: int
    unloads: int
    loaded_mb: float

    @property
    def availability(self) -> float:
        """The mean of all tasks' availability."""
        return sum(task.availability for task in self.tasks.values()) / max(1, len(self.tasks))

    def to_json(self) -> dict[str, Any]:
        """Returns the result as `s2m3 churn --json` prints it."""
        tasks = {
            name: {
                "availability": task.availability,
                "without_s": task.without_s,
                "longest_s": task.longest_s,
                "interruptions": task.interruptions,
                "latency_s": task.latency_s,
            }
            for name, task in self.tasks.items()
        }
        return {
            "policy": self.policy,
            "until_s": self.until_s,
            "availability": self.availability,
            "plans": self.plans,
            "loads": self.loads,
            "unloads": self.unloads,
            "loaded_mb": self.loaded_mb,
            "tasks": tasks,
        }


@dataclass
class _Counts:
    latency_s: float | None = None
    devices: set[str] = field(default_factory=set)
    #: no answer before this time, although the copies are there: the loss of a device of the route is not yet noticed
    blind_until: float = 0.0
    without_s: float = 0.0
    longest_s: float = 0.0
    current_s: float = 0.0
    interruptions: int = 0
    latency_by_time: float = 0.0

    def pass_time(self, start: float, end: float) -> None:
        """Counts the time from `start` to `end`, in which the route does not change."""
        blind = end if self.latency_s is None else min(end, max(start, self.blind_until))
        if blind > start:
            self.interruptions += self.current_s == 0.0
            self.current_s += blind - start
            self.without_s += blind - start
            self.longest_s = max(self.longest_s, self.current_s)
        if end > blind:
            self.current_s = 0.0
            self.latency_by_time += (end - blind) * (self.latency_s or 0.0)


class Record:
    """Counts while time advances. Tasks have the route last set.

    Args:
        tasks: The tasks.
    """

    def __init__(self, tasks: Iterable[PlacedTask]) -> None:
        self._counts = {task.id: _Counts() for task in tasks}
        self._now = 0.0
        self.plans = self.loads = self.unloads = 0
        self.loaded_mb = 0.0

    @property
    def served(self) -> set[str]:
        """The tasks that have a route."""
        return {task for task, counts in self._counts.items() if counts.latency_s is not None}

    def advance(self, now: float) -> None:
        """Counts the time since the last call."""
        if now > self._now:
            for counts in self._counts.values():
                counts.pass_time(self._now, now)
            self._now = now

    def interrupt(self, device: str, until_s: float) -> None:
        """Counts a lost device: the tasks whose route uses it have no answer until a time."""
        for counts in self._counts.values():
            if device in counts.devices:
                counts.blind_until = max(counts.blind_until, until_s)

    def route(self, task: str, latency_s: float | None, devices: set[str]) -> None:
        """Sets a task's route from now on; None for no answer."""
        self._counts[task].latency_s, self._counts[task].devices = latency_s, devices

    def load(self, size_mb: float) -> None:
        """Counts a copy that a device loads."""
        self.loads += 1
        self.loaded_mb += size_mb

    def result(self, policy: str, until_s: float) -> ChurnResult:
        """Returns the counters up to a time."""
        tasks = {}
        for name, counts in self._counts.items():
            served_s = until_s - counts.without_s
            tasks[name] = TaskChurn(
                availability=served_s / until_s,
                without_s=counts.without_s,
                longest_s=counts.longest_s,
                interruptions=counts.interruptions,
                latency_s=counts.latency_by_time / served_s if served_s > 0 else None,
            )
        return ChurnResult(policy, until_s, tasks, self.plans, self.loads, self.unloads, self.loaded_mb)
