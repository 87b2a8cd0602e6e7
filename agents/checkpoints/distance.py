"""How far a module's outputs are from those of a reference, e.g. the same part in float32. Loads nothing itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2m3.agents.serving.module import Module
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.values import Value

__all__ = ["Distance", "distance"]


@dataclass(frozen=True, slots=True)
class Distance:
    """How far one output is from the reference's, over all items of a batch.

    Args:
        cosine: Least cosine similarity of an item's numbers, all in one row; 1 is the same direction. None for texts.
        max_abs: Largest difference of two numbers. None for texts.
        same: Part of the items whose output is equal: texts and labels.
    """

    cosine: float | None
    max_abs: float | None
    same: float


def distance(
    reference: Module, other: Module, items: Sequence[Mapping[str, Value]], wanted: Sequence[str]
) -> dict[str, Distance]:
    """Runs the same items through both modules, one by one, and compares what comes out.

    Args:
        reference: What is right, e.g. the part in float32.
        other: What is compared with it, e.g. the part in int8.
        items: Inputs as the runner gives them: port -> value. At least one.
        wanted: Outputs to compare.

    Returns:
        Output -> distance.

    Raises:
        BadInputError: No item, or one that a module cannot read, or outputs of different shapes.
    """
    if not items:
        raise BadInputError("a distance needs at least one item")
    pairs = [(_outputs(reference, item, wanted), _outputs(other, item, wanted)) for item in items]
    return {name: _compared(name, [(right[name], found[name]) for right, found in pairs]) for name in wanted}


def _outputs(module: Module, item: Mapping[str, Value], wanted: Sequence[str]) -> dict[str, Value]:
    return module.run([module.prepare(item)], frozenset(wanted))[0]


def _compared(name: str, pairs: Sequence[tuple[Value, Value]]) -> Distance:
    same = sum(_equal(right, found) for right, found in pairs) / len(pairs)
    if not all(_is_numbers(value) for pair in pairs for value in pair):
        return Distance(None, None, same)
    numbers = [(np.asarray(right, np.float64).ravel(), np.asarray(found, np.float64).ravel()) for right, found in pairs]
    if any(right.shape != found.shape for right, found in numbers):
        raise BadInputError(f"the output {name!r} has other shapes in the two modules")
    cosine = min(_cosine(right, found) for right, found in numbers)
    return Distance(cosine, max(float(np.abs(right - found).max(initial=0.0)) for right, found in numbers), same)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, np.ndarray | float | int) and not isinstance(value, bool)


def _equal(right: Value, found: Value) -> bool:
    return bool(np.array_equal(right, found)) if isinstance(right, np.ndarray) else bool(right == found)


def _cosine(right: Any, found: Any) -> float:
    lengths = float(np.linalg.norm(right) * np.linalg.norm(found))
    return float(right @ found) / lengths if lengths else float(np.array_equal(right, found))
