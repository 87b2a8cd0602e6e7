"""Churn offline: a trace of losses and joins through the planner's own rules, event by event. Pure.

Time is the trace's; how long planning takes is not counted. docs/placement.md says what is modelled and what is not.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from typing import Literal

from s2m3.planner.solving.churn_record import ChurnResult, Record
from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.greedy import greedy
from s2m3.planner.solving.migration import steps
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.ranked_instance import best_models
from s2m3.planner.solving.replan import replan
from s2m3.planner.solving.second_copies import Spare, second_copies
from s2m3.schemas.churn_trace import Trace
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance, PlacedTask

__all__ = ["POLICIES", "Policy", "Speeds", "simulate_churn"]

#: `fixed`: a device that joins again loads its earlier modules; nothing else moves. `replan`: lost modules are placed
#: again. `copies`: as `replan`, and spare memory holds second copies.
Policy = Literal["fixed", "replan", "copies"]
POLICIES: tuple[Policy, ...] = ("fixed", "replan", "copies")
#: Seconds by which the planner's clock advances at each look: its search ends after as many looks on any machine.
_TICK_S = 1e-4


@dataclass(frozen=True, slots=True)
class Speeds:
    """How fast a site reacts.

    Args:
        notice_s: From a loss or a join to the plan that follows, seconds.
        load_mb_s: Speed at which a device loads modules, one after the other, 10^6 bytes a second.
        improve_s: Budget of the search for a better placement after a join, seconds; 0 searches none.
    """

    notice_s: float = 0.3
    load_mb_s: float = 100.0
    improve_s: float = 1.0


def simulate_churn(
    instance: Instance, trace: Trace, policy: Policy = "copies", speeds: Speeds | None = None
) -> ChurnResult:
    """Returns the effect of a trace on the tasks of an instance.

    The trace begins with every device there and every module of the greedy's placement (improved, for `improve_s`)
    loaded. A task has no answer while one of its modules has no ready copy, and for `notice_s` after a device of its
    route was lost.

    Args:
        instance: Devices, modules, tasks. Stand-ins are left out: each task has its best model alone.
        trace: Losses and joins.
        policy: The reaction of the planner.
        speeds: Times; None takes the defaults.

    Raises:
        NoCapacityError: The modules do not fit while all devices are there.
    """
    site = _Site(best_models(instance), policy, speeds or Speeds())
    site.start()
    for event in trace.events:
        site.at(event.at_s, event.kind, event.device)
    site.run(trace.until_s)
    return site.record.result(policy, trace.until_s)


def _ticking() -> Callable[[], float]:
    ticks = count()
    return lambda: next(ticks) * _TICK_S


@dataclass
class _Site:
    """The simulated site: present devices, copies with the time at which each is ready, and coming events."""

    instance: Instance
    policy: Policy
    speeds: Speeds
    present: set[str] = field(default_factory=set)
    #: module -> device -> when the copy is ready, seconds
    copies: dict[str, dict[str, float]] = field(default_factory=dict)
    desired: dict[str, list[str]] = field(default_factory=dict)
    #: what the site began with, module -> devices
    first: dict[str, set[str]] = field(default_factory=dict)
    busy_until: dict[str, float] = field(default_factory=dict)
    now: float = 0.0
    _events: list[tuple[float, int, str, str]] = field(default_factory=list)
    _order: Iterator[int] = field(default_factory=count)

    def __post_init__(self) -> None:
        self.size_mb = {module.id: module.memory_mb for module in self.instance.modules}
        self.room_mb = {device.id: device.memory_mb for device in self.instance.devices}
        self.record = Record(self.instance.tasks)
        self._costs = Costs(Problem(self.instance.model_copy(update={"max_replicas": len(self.room_mb)})))
        self._searched: dict[str, dict[str, list[str]]] = {}

    def start(self) -> None:
        """Loads the first placement, all ready at time 0."""
        self.present = set(self.room_mb)
        first = greedy(self.instance)
        self.desired = self._better(self.instance, first)
        self.copies = {module: dict.fromkeys(devices, 0.0) for module, devices in self._with_copies().items()}
        self.first = {module: set(devices) for module, devices in self.copies.items()}
        self._route()

    def at(self, when: float, kind: str, device: str) -> None:
        """Queues an event."""
        heappush(self._events, (when, next(self._order), kind, device))

    def run(self, until_s: float) -> None:
        """Takes all events up to a time, in order."""
        while self._events and self._events[0][0] <= until_s:
            self.now, _, kind, device = heappop(self._events)
            if kind == "lost":
                self._lose(device)
            elif kind == "joined":
                self.present.add(device)
                self.at(self.now + self.speeds.notice_s, "plan improved", device)
            elif kind.startswith("plan"):
                self._plan(improve=kind == "plan improved")
            self._move()
            self._route()
        self.record.advance(until_s)

    def _lose(self, device: str) -> None:
        self.present.discard(device)
        for held in self.copies.values():
            held.pop(device, None)
        self.busy_until.pop(device, None)
        noticed = self.now + self.speeds.notice_s
        self.record.advance(self.now)
        self.record.interrupt(device, noticed)
        self.at(noticed, "plan", device)

    def _plan(self, *, improve: bool) -> None:
        """Decides the placement, as the running planner does after a change."""
        self.record.plans += 1
        if self.policy == "fixed":
            there = {module: sorted(devices & self.present) for module, devices in self.first.items()}
            self.desired = {module: devices for module, devices in there.items() if devices}
            return
        current = {module: sorted(held) for module, held in self.copies.items() if held}
        placed, instance = self._placed(current)
        self.desired = self._better(instance, placed) if improve and instance.tasks else placed
        if self.policy == "copies" and self.desired:
            self.desired = self._with_copies(current)

    def _placed(self, current: dict[str, list[str]]) -> tuple[dict[str, list[str]], Instance]:
        """Returns a placement of all tasks, or else of those that fit one after another, and its instance."""
        whole = _present(self.instance, self.present, list(self.instance.tasks))
        try:
            if whole is not None:
                return dict(replan(whole, current, budget_s=0.0).placement), whole
        except NoCapacityError:
            pass
        fitting: list[PlacedTask] = []
        placed: dict[str, list[str]] = {}
        served = self.record.served
        best = self.instance.model_copy(update={"tasks": (), "modules": ()})
        for task in sorted(self.instance.tasks, key=lambda task: (task.id not in served, -task.weight, task.id)):
            trial = _present(self.instance, self.present, [*fitting, task])
            if trial is None:
                continue
            try:
                placed = dict(replan(trial, current, budget_s=0.0).placement)
            except NoCapacityError:
                continue
            fitting, best = [*fitting, task], trial
        return placed, best

    def _better(self, instance: Instance, placed: dict[str, list[str]]) -> dict[str, list[str]]:
        """Returns the improved placement; equal questions are searched once."""
        if self.speeds.improve_s <= 0 or not instance.tasks:
            return placed
        key = f"{[device.id for device in instance.devices]} {[task.id for task in instance.tasks]} {placed}"
        if key not in self._searched:
            found = replan(instance, placed, budget_s=self.speeds.improve_s, clock=_ticking())
            self._searched[key] = dict(found.placement)
        return self._searched[key]

    def _with_copies(self, current: dict[str, list[str]] | None = None) -> dict[str, list[str]]:
        if self.policy != "copies":
            return self.desired
        users = [t for t in self.instance.tasks if all(step.module in self.desired for step in t.steps)]
        instance = _present(self.instance, self.present, users, list(self.desired))
        if instance is None:
            return self.desired
        spare = Spare(notice_s=self.speeds.notice_s, load_mb_s=self.speeds.load_mb_s)
        added = second_copies(instance, self.desired, spare=spare, current=current)
        return {module: [*devices, *added.get(module, ())] for module, devices in self.desired.items()}

    def _move(self) -> None:
        """Starts loads and unloads as far as they can be made now."""
        held = {module: sorted(devices) for module, devices in self.copies.items() if devices}
        ready = {m: [d for d, at in self.copies[m].items() if at <= self.now] for m in held}
        room = {device: mb for device, mb in self.room_mb.items() if device in self.present}
        able = {module.id: module.seconds.keys() & self.present for module in self.instance.modules}
        moves = steps(held, self.desired, ready, room_mb=room, size_mb=self.size_mb, able=able)
        for move in moves:
            if move.verb == "unload":
                self.copies[move.module].pop(move.device)
                self.record.unloads += 1
                continue
            begins = max(self.now, self.busy_until.get(move.device, 0.0))
            done = begins + self.size_mb[move.module] / self.speeds.load_mb_s
            self.busy_until[move.device] = done
            self.copies.setdefault(move.module, {})[move.device] = done
            self.record.load(self.size_mb[move.module])
            self.at(done, "loaded", move.device)
        if any(move.verb == "unload" for move in moves):
            self._move()  # loads that waited for the memory

    def _route(self) -> None:
        """Routes every task over the ready copies of present devices, each where its latency is least."""
        problem = self._costs.problem
        copies = [
            [problem.device_at[d] for d, at in self.copies.get(m, {}).items() if at <= self.now]
            for m in problem.module_ids
        ]
        self.record.advance(self.now)
        for t, task in enumerate(problem.tasks):
            if all(copies[m] for m in task.modules):
                latency_s, route = self._costs.best_route(t, copies)
                latency_s -= problem.price_s(task, route)
                self.record.route(self.instance.tasks[t].id, latency_s, set(problem.route_ids(task, route).values()))
            else:
                self.record.route(self.instance.tasks[t].id, None, set())


def _present(
    instance: Instance, devices: set[str], tasks: list[PlacedTask], modules: list[str] | None = None
) -> Instance | None:
    """Returns the instance of some tasks on some devices; None if a module can run on none of them.

    Args:
        instance: All of it.
        devices: The devices that are there. A task whose source is away is asked from behind the broker.
        tasks: The tasks.
        modules: The modules; None takes those of the tasks, and where all tasks are taken, all.
    """
    if modules is None:
        every = len(tasks) == len(instance.tasks)
        modules = [m.id for m in instance.modules if every or any(m.id == s.module for t in tasks for s in t.steps)]
    kept = []
    for module in instance.modules:
        if module.id in modules:
            seconds = {device: s for device, s in module.seconds.items() if device in devices}
            if not seconds:
                return None
            kept.append(module.model_copy(update={"seconds": seconds}))
    asked = tuple(t if t.source in devices else t.model_copy(update={"source": None}) for t in tasks)
    there = tuple(device for device in instance.devices if device.id in devices)
    if not there:
        return None
    return instance.model_copy(update={"devices": there, "modules": tuple(kept), "tasks": asked})
