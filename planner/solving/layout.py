"""A placement under construction: copies, free memory and the best route of each task. It makes no choices itself."""

from collections.abc import Iterable, Mapping

from s2m3.planner.solving.costs import Costs
from s2m3.planner.solving.problem import ABSENT, Floats, Problem, Route

__all__ = ["SLACK_MB", "Layout"]

#: Tolerance of memory sums against floating-point error: a thousandth of a byte, in 10^6 bytes.
SLACK_MB = 1e-9


class Layout:
    """Copies of modules on devices, and the tasks' routes over these copies.

    Args:
        problem: The problem to place.
        copies: Initial copies, module position -> device positions.
    """

    def __init__(self, problem: Problem, copies: Mapping[int, Iterable[int]] | None = None) -> None:
        self.problem = problem
        self.costs = Costs(problem)
        self.copies: list[list[int]] = [[] for _ in problem.modules]
        self.free_mb: Floats = problem.memory_mb.copy()
        self.routes: list[Route] = [(ABSENT,) * len(task.modules) for task in problem.tasks]
        self.latencies: list[float] = [0.0] * len(problem.tasks)
        for module, devices in (copies or {}).items():
            for device in devices:
                self.add(module, device)

    def copy(self) -> "Layout":
        """Returns an independent copy; the problem and the cost tables are shared."""
        other = Layout.__new__(Layout)
        other.problem, other.costs = self.problem, self.costs
        other.copies = [devices.copy() for devices in self.copies]
        other.free_mb = self.free_mb.copy()
        other.routes = self.routes.copy()
        other.latencies = self.latencies.copy()
        return other

    def assign_from(self, other: "Layout") -> None:
        """Replaces copies, routes and latencies by those of another layout, which must not be changed afterwards."""
        self.copies, self.free_mb = other.copies, other.free_mb
        self.routes, self.latencies = other.routes, other.latencies

    def fits(self, module: int, device: int) -> bool:
        """Whether the device has enough free memory for one more copy of the module."""
        return bool(self.free_mb[device] + SLACK_MB >= self.problem.size_mb[module])

    def used_mb(self) -> list[float]:
        """Returns the memory of all modules on each device, 10^6 bytes."""
        used = [0.0] * len(self.free_mb)
        for size, devices in zip(self.problem.size_mb, self.copies, strict=True):
            for device in devices:
                used[device] += size
        return used

    def add(self, module: int, device: int) -> None:
        """Adds a copy; routes are unchanged until `reroute`."""
        self.copies[module].append(device)
        self.free_mb[device] -= self.problem.size_mb[module]

    def drop(self, module: int, device: int) -> None:
        """Removes a copy; routes are unchanged until `reroute`."""
        self.copies[module].remove(device)
        self.free_mb[device] += self.problem.size_mb[module]

    def settle(self, module: int, device: int) -> None:
        """Adds a copy and routes the module's steps in all tasks to it; latencies are unchanged until `reroute`."""
        self.add(module, device)
        for t in self.problem.users.get(module, ()):
            steps = zip(self.problem.tasks[t].modules, self.routes[t], strict=True)
            self.routes[t] = tuple(device if used == module else at for used, at in steps)

    def unsettle(self, module: int) -> None:
        """Removes all copies of a module and leaves its steps out of the tasks' routes (ABSENT)."""
        for device in self.copies[module].copy():
            self.drop(module, device)
        for t in self.problem.users.get(module, ()):
            steps = zip(self.problem.tasks[t].modules, self.routes[t], strict=True)
            self.routes[t] = tuple(ABSENT if used == module else at for used, at in steps)

    def reroute(self, tasks: Iterable[int] | None = None) -> None:
        """Sets routes and latencies of tasks (None: all) to the best over the current copies."""
        for t in range(len(self.routes)) if tasks is None else tasks:
            self.latencies[t], self.routes[t] = self.costs.best_route(t, self.copies)

    def drop_unused(self, modules: Iterable[int] | None = None) -> None:
        """Drops copies that no route uses, but never a module's last copy; `modules=None` takes all modules."""
        for module in range(len(self.copies)) if modules is None else modules:
            devices = self.copies[module]
            if len(devices) > 1:
                used = self.devices_used(module)
                for device in [device for device in devices if device not in used]:
                    if len(self.copies[module]) > 1:
                        self.drop(module, device)

    def devices_used(self, module: int) -> set[int]:
        """Returns the devices on which any route runs a module."""
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
