"""The evaluator of design.md 6.1: how long one request takes on idle devices, given which device does which step."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from schemas.instance import Device, Instance, PlacedModule, PlacedTask

__all__ = ["Evaluator"]

#: step -> device
Route = Mapping[str, str]


@dataclass(frozen=True)
class Evaluator:
    """Latencies of an instance's tasks on routes, however these were found. Seconds throughout."""

    instance: Instance

    @cached_property
    def devices(self) -> dict[str, Device]:
        """By id."""
        return {device.id: device for device in self.instance.devices}

    @cached_property
    def modules(self) -> dict[str, PlacedModule]:
        """By id."""
        return {module.id: module for module in self.instance.modules}

    def transfer_s(self, kb: float, a: str | None, b: str | None) -> float:
        """Returns seconds to send kB from a to b; None is somewhere behind the broker, whose own link is not counted."""
        if a == b or (a is None and b is None):
            return 0.0
        ends = [self.devices[end] for end in (a, b) if end is not None]
        return (sum(end.latency_ms for end in ends) + 8 * kb / min(end.mbps for end in ends)) / 1000

    def latency_s(self, task: PlacedTask, route: Route) -> float:
        """Returns seconds from asking to the reply: each device does one step at a time, in the order of readiness."""
        steps = {step.id: step for step in task.steps}
        ready = {
            step.id: self.transfer_s(self.modules[step.module].input_kb, task.source, route[step.id])
            for step in task.steps
            if not step.after
        }
        missing = {step.id: set(step.after) for step in task.steps if step.after}
        arrives: dict[str, float] = defaultdict(float)
        free: dict[str, float] = defaultdict(float)
        end = 0.0
        while ready:
            # the next to start anywhere: earliest start; ties: earlier ready, then longer, then smaller id
            name = min(
                ready,
                key=lambda s: (max(ready[s], free[route[s]]), ready[s], -self._seconds(steps[s].module, route[s]), s),
            )
            device, module = route[name], self.modules[steps[name].module]
            end = free[device] = max(ready.pop(name), free[device]) + self._seconds(module.id, device)
            for other, before in list(missing.items()):
                if name in before:
                    before.discard(name)
                    arrives[other] = max(arrives[other], end + self.transfer_s(module.output_kb, device, route[other]))
                    if not before:
                        del missing[other]
                        ready[other] = arrives[other]
        head = _head(task)
        return end + self.transfer_s(self.modules[steps[head].module].output_kb, route[head], task.source)

    def _seconds(self, module: str, device: str) -> float:
        return self.modules[module].seconds[device]

    def memory_mb(self, placement: Mapping[str, list[str]]) -> dict[str, float]:
        """Returns what the distinct modules on each device take."""
        used = dict.fromkeys(self.devices, 0.0)
        for module, places in placement.items():
            for device in places:
                used[device] += self.modules[module].memory_mb
        return used


def _head(task: PlacedTask) -> str:
    followed = {before for step in task.steps for before in step.after}
    return next(step.id for step in task.steps if step.id not in followed)
