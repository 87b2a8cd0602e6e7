"""A placement while it is being made: copies, room left, and the best route of each task. Bookkeeping, no choices."""

from collections.abc import Iterable, Mapping

from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.problem import ABSENT, Floats, Problem, Route

__all__ = ["SLACK_MB", "Layout"]

#: Sums of decimal sizes are off by their last bits; this is a thousandth of a byte.
SLACK_MB = 1e-9


class Layout:
    """Copies of modules on devices, with the routes that follow from them.

    Args:
        problem: What is placed.
        copies: Module position -> devices, to begin with.
    """

    def __init__(self, problem: Problem, copies: Mapping[int, Iterable[int]] | None = None) -> None:
        self.problem = problem
        self.costs = Costs(problem)
        self.copies: list[list[int]] = [[] for _ in problem.modules]
        self.room: Floats = problem.memory_mb.copy()
        self.routes: list[Route] = [(ABSENT,) * len(task.modules) for task in problem.tasks]
        self.latencies: list[float] = [0.0] * len(problem.tasks)
        for module, devices in (copies or {}).items():
            for device in devices:
                self.add(module, device)

    def twin(self) -> "Layout":
        """Returns a copy of its own."""
        twin = Layout.__new__(Layout)
        twin.problem, twin.costs = self.problem, self.costs
        twin.copies = [devices.copy() for devices in self.copies]
        twin.room = self.room.copy()
        twin.routes = self.routes.copy()
        twin.latencies = self.latencies.copy()
        return twin

    def become(self, other: "Layout") -> None:
        """Takes over all of another layout of the same problem."""
        self.copies, self.room = other.copies, other.room
        self.routes, self.latencies = other.routes, other.latencies

    def fits(self, module: int, device: int) -> bool:
        """Whether there is room for one more copy."""
        return bool(self.room[device] + SLACK_MB >= self.problem.size_mb[module])

    def used_mb(self) -> list[float]:
        """Returns what the modules on each device take together."""
        used = [0.0] * len(self.room)
        for size, devices in zip(self.problem.size_mb, self.copies, strict=True):
            for device in devices:
                used[device] += size
        return used

    def add(self, module: int, device: int) -> None:
        """Puts a copy; routes stay as they are until `reroute`."""
        self.copies[module].append(device)
        self.room[device] -= self.problem.size_mb[module]

    def drop(self, module: int, device: int) -> None:
        """Takes a copy away; routes stay as they are until `reroute`."""
        self.copies[module].remove(device)
        self.room[device] += self.problem.size_mb[module]

    def settle(self, module: int, device: int) -> None:
        """Puts the first copy and sends the module's tasks there. Latencies are left for `reroute`."""
        self.add(module, device)
        for t in self.problem.users.get(module, ()):
            steps = zip(self.problem.tasks[t].modules, self.routes[t], strict=True)
            self.routes[t] = tuple(device if used == module else at for used, at in steps)

    def unsettle(self, module: int) -> None:
        """Takes all copies of a module away and leaves its steps out of its tasks' routes."""
        for device in self.copies[module].copy():
            self.drop(module, device)
        for t in self.problem.users.get(module, ()):
            steps = zip(self.problem.tasks[t].modules, self.routes[t], strict=True)
            self.routes[t] = tuple(ABSENT if used == module else at for used, at in steps)

    def reroute(self, tasks: Iterable[int] | None = None) -> None:
        """Gives tasks (all, if none are named) their best routes over the copies there are."""
        for t in range(len(self.routes)) if tasks is None else tasks:
            self.latencies[t], self.routes[t] = self.costs.best_route(t, self.copies)

    def drop_unused(self, modules: Iterable[int] | None = None) -> None:
        """Drops copies that no route uses, as long as one is left."""
        for module in range(len(self.copies)) if modules is None else modules:
            devices = self.copies[module]
            if len(devices) > 1:
                used = self.devices_used(module)
                for device in [device for device in devices if device not in used]:
                    if len(self.copies[module]) > 1:
                        self.drop(module, device)

    def devices_used(self, module: int) -> set[int]:
        """Returns the devices at which some route uses a module."""
        return {
            device
            for t in self.problem.users.get(module, ())
            for device, used in zip(self.routes[t], self.problem.tasks[t].modules, strict=True)
            if used == module
        }

    @property
    def objective_s(self) -> float:
        """The sum over tasks of weight x latency, seconds."""
        return sum(task.weight * latency for task, latency in zip(self.problem.tasks, self.latencies, strict=True))
