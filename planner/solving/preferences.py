"""The price of preferences in seconds: an order of devices per task, and a weight per device. Pure."""

from collections.abc import Mapping, Sequence

__all__ = ["prices_s"]


def prices_s(weights: Mapping[str, float], order: Sequence[str], preference_s: float) -> dict[str, float]:
    """Returns the price of a task's step on each device beside its time, seconds; 0 on the most preferred device.

    A device is charged `preference_s` for each place behind the first of the task's order, and for each point of its
    weight below the largest. Devices that the order does not name come behind its last one.

    Args:
        weights: Device -> its weight.
        order: The task's devices in order of preference; empty for none. Names of absent devices are passed over.
        preference_s: Seconds per place and per point.
    """
    largest = max(weights.values(), default=0.0)
    place = {device: position for position, device in enumerate(name for name in order if name in weights)}
    return {
        device: preference_s * (place.get(device, len(place)) + largest - weight) for device, weight in weights.items()
    }
