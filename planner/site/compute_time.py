"""Estimates the time of a module on a node where it has not run: by the speeds in profiles, and a time of any call."""

from collections.abc import Iterable
from statistics import median_high, median_low

from s2m3.schemas.messages import NodeProfile
from s2m3.schemas.specs import ModuleSpec

__all__ = ["Pace", "expected_s", "pace_of"]

#: Part of a matrix product's throughput that models reach (measured on the zoo: 0.2 to 0.5).
_EFFICIENCY = 0.3
#: Seconds that any item takes on a CPU, and on an accelerator, where each layer is launched and tensors are copied. So
#: a small module is expected to be faster on the CPU of the same host, until it has been measured.
_LEAST_S, _LEAST_ON_ACCELERATOR_S = 0.0001, 0.003


#: Seconds per item x speed of a module, in GFLOP: the lower and the upper median over the nodes that have run it.
Pace = tuple[float, float]


def pace_of(spec: ModuleSpec, measured: Iterable[tuple[NodeProfile, float]]) -> Pace | None:
    """Returns the pace of a module; None if no node has run it.

    Args:
        spec: The module.
        measured: Of nodes that have run it: profile, and seconds per item.
    """
    paces = [seconds * _speed(spec, profile) for profile, seconds in measured]
    return (median_low(paces), median_high(paces)) if paces else None


def expected_s(spec: ModuleSpec, profile: NodeProfile, pace: Pace | None) -> float:
    """Returns the seconds per item that are expected of a module on a node.

    Args:
        spec: The module.
        profile: The node's.
        pace: The module's, on other nodes.
    """
    speed, least = _speed(spec, profile), _least_s(profile)
    if pace is None:
        return max(spec.gflops / speed / _EFFICIENCY, least)
    return sum(max(least, work / speed) for work in pace) / len(pace)


def _speed(spec: ModuleSpec, profile: NodeProfile) -> float:
    """Returns the node's speed in the dtype in which it would hold the module, GFLOP/s."""
    return profile.speeds.get(spec.dtype or profile.dtype) or profile.gflops


def _least_s(profile: NodeProfile) -> float:
    return _LEAST_S if profile.device == "cpu" else _LEAST_ON_ACCELERATOR_S
