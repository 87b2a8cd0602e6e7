"""How long a module takes on a node where it has not run: by the speeds that profiles tell, and what any call takes."""

from collections.abc import Iterable
from statistics import median

from s2m3.schemas.messages import NodeProfile
from s2m3.schemas.specs import ModuleSpec

__all__ = ["expected_s"]

#: Part of a matrix product's throughput that models reach (measured on the zoo: 0.2 to 0.5).
_EFFICIENCY = 0.3
#: Seconds that any item takes: on a CPU; on an accelerator, which is told of each layer, and to and from which tensors
#: are copied. So a small module is expected to be faster on the CPU of the same host, until it has been measured.
_LEAST_S, _LEAST_ON_ACCELERATOR_S = 0.0001, 0.003


def expected_s(spec: ModuleSpec, profile: NodeProfile, measured: Iterable[tuple[NodeProfile, float]]) -> float:
    """Returns the seconds per item that are expected of a module on a node.

    Args:
        spec: The module.
        profile: The node's.
        measured: Of other nodes that have run it: profile, and seconds per item.
    """
    speed, least = _speed(spec, profile), _least_s(profile)
    scaled = [max(least, seconds * _speed(spec, other) / speed) for other, seconds in measured]
    return median(scaled) if scaled else max(spec.gflops / speed / _EFFICIENCY, least)


def _speed(spec: ModuleSpec, profile: NodeProfile) -> float:
    """Returns the node's speed in the dtype in which it would hold the module, GFLOP/s."""
    return profile.speeds.get(spec.dtype or profile.dtype) or profile.gflops


def _least_s(profile: NodeProfile) -> float:
    return _LEAST_S if profile.device == "cpu" else _LEAST_ON_ACCELERATOR_S
