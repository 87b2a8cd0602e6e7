"""Energy of one request: the power of the devices of its route times its duration. Pure.

Links, the broker and a requester that runs no step are left out; docs/placement.md has the formula.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from s2m3.schemas.instance import Instance, PlacedTask

__all__ = ["Energy", "energy_of"]


@dataclass(frozen=True, slots=True)
class Energy:
    """Energy of one request, joules.

    Args:
        joules: All that the devices of the route draw from the request's start to its reply.
        above_idle: The part that they would not draw if they stood idle for that time.
    """

    joules: float
    above_idle: float


def energy_of(instance: Instance, task: PlacedTask, route: Mapping[str, str], latency_s: float) -> Energy | None:
    """Returns the energy of one request of a task, or None if a device of its route states no `energy_w`.

    Each device of the route draws `energy_w` watts while it computes and `idle_w` (0 if not stated) until the reply.

    Args:
        instance: Devices and modules.
        task: A task of the instance.
        route: Step -> device.
        latency_s: From sending the request to its reply, seconds.
    """
    devices = {device.id: device for device in instance.devices}
    seconds = {module.id: module.seconds for module in instance.modules}
    busy_s: dict[str, float] = defaultdict(float)
    for step in task.steps:
        busy_s[route[step.id]] += seconds[step.module][route[step.id]]
    joules = above = 0.0
    for name, busy in busy_s.items():
        watts, idle = devices[name].energy_w, devices[name].idle_w or 0.0
        if watts is None:
            return None
        joules += busy * watts + (latency_s - busy) * idle
        above += busy * (watts - idle)
    return Energy(joules, above)
