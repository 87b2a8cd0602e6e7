"""Tensors between nodes in half the bytes: rounded to float16 where a task tolerates it, and widened again. Pure.

float16 keeps 11 bits: a number within its range is off by at most 2^-11, 0.0005 of itself. Each tensor is checked, so
that one whose numbers are too large for it, or not finite, goes as it is.
"""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from s2m3.schemas.wire.values import Tensor, Value
from s2m3.schemas.wire.work import Work

__all__ = ["rounded", "widened", "with_rounded"]

#: Bytes up to which a tensor goes as it is: its packet is hardly larger than the rest of the message.
_SMALL = 16_384


def rounded(outputs: Mapping[str, Value], tolerance: float) -> Mapping[str, Value]:
    """Returns the outputs of a step for a step on another node, as small as a tolerance allows.

    Args:
        outputs: Input name of the next step -> value.
        tolerance: Largest change of a tensor's numbers, as a share of its largest magnitude (or of 1, if that is more).
    """
    return {name: _rounded(value, tolerance) for name, value in outputs.items()} if tolerance else outputs


def _rounded(value: Value, tolerance: float) -> Value:
    match value:
        case np.ndarray() if value.dtype == np.float32 and value.nbytes > _SMALL:
            return _halved(value, tolerance)
        case Mapping():
            return {name: _rounded(inner, tolerance) for name, inner in value.items()}
        case list():
            return [_rounded(inner, tolerance) for inner in value]
    return value


def _halved(tensor: Tensor, tolerance: float) -> Tensor:
    with np.errstate(over="ignore", invalid="ignore"):
        half = tensor.astype(np.float16)
        distance, largest = np.abs(half - tensor).max(), max(1.0, float(np.abs(tensor).max()))
    return half if distance <= tolerance * largest else tensor  # NaN is not less: the tensor goes as it is


def with_rounded(work: Work) -> Work:
    """Returns work that names its inputs that came rounded, by its route: a later attempt's may say something else."""
    steps = {port: ref.partition(".")[0] for port, ref in work.hop.inputs.items()}
    tolerant = [port for port in work.inputs if (hop := work.route.get(steps[port])) is not None and hop.tolerance]
    halved = frozenset(port for port in tolerant if _has_half(work.inputs[port]))
    return replace(work, rounded=halved) if halved else work


def _has_half(value: Value) -> bool:
    match value:
        case np.ndarray():
            return bool(value.dtype == np.float16)
        case Mapping():
            return any(map(_has_half, value.values()))
        case list():
            return any(map(_has_half, value))
    return False


def widened(work: Work) -> Mapping[str, Value]:
    """Returns the inputs of work as the step before made them: what came rounded is float32 again.

    It takes a millisecond for Whisper's hidden states, and so is not for the loop's thread.
    """
    if not work.rounded:
        return work.inputs
    return {port: _widened(value) if port in work.rounded else value for port, value in work.inputs.items()}


def _widened(value: Value) -> Value:
    match value:
        case np.ndarray() if value.dtype == np.float16:
            return value.astype(np.float32)
        case Mapping():
            return {name: _widened(inner) for name, inner in value.items()}
        case list():
            return [_widened(inner) for inner in value]
    return value
