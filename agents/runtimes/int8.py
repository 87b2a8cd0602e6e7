"""Exports whose matrices are int8: made of a float32 export, and refused where they rank otherwise than it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from onnxruntime.quantization import QuantType, quantize_dynamic

from s2m3.agents.modules.ranking import Floats, unit
from s2m3.agents.runtimes.network import Array
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["check_ranking", "to_int8"]

#: Least cosine of a row of int8 with the row of float32.
_LEAST_COSINE = 0.98


def to_int8(path: Path) -> None:
    """Writes an ONNX file anew: its matrices in int8 with a scale for each column; between them it stays float32."""
    made = path.with_suffix(".int8")
    quantize_dynamic(path, made, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
    for beside in path.parent.glob(f"{path.name}*"):
        beside.unlink()
    made.rename(path)


def check_ranking(module: str, wanted: Sequence[Mapping[str, Value]], found: Sequence[Mapping[str, Value]]) -> float:
    """Refuses outputs in int8 that rank otherwise than those in float32.

    Every row has to be near its row in float32, and to have the same nearest neighbour among the others; logits have to
    have the same largest one; texts have to be equal.

    Args:
        module: Its id, for the error.
        wanted: The outputs of each item, by float32.
        found: The same, by int8.

    Returns:
        The largest distance, 1 - cosine.

    Raises:
        ModuleFailedError: A ranking differs; the text says how many.
    """
    distance = 0.0
    for name, value in wanted[0].items():
        if not isinstance(value, np.ndarray):
            differ = [one[name] != other[name] for one, other in zip(wanted, found, strict=True)]
        else:
            ours, theirs = _rows(found, name), _rows(wanted, name)
            cosine = float((unit(ours) * unit(theirs)).sum(-1).min())
            if not cosine >= _LEAST_COSINE:
                raise ModuleFailedError(f"int8 of {module} is refused: its {name} is {1 - cosine:.3f} from float32's")
            best = _largest if name == "logits" else _nearest
            differ = (best(ours) != best(theirs)).tolist()
            distance = max(distance, 1 - cosine)
        if any(differ):
            raise ModuleFailedError(
                f"int8 of {module} is refused: {sum(differ)} of {len(differ)} rankings by its {name} differ"
            )
    return distance


def _rows(made: Sequence[Mapping[str, Value]], name: str) -> Floats:
    found: Floats = np.concatenate([np.reshape(one[name], (len(one[name]), -1)) for one in made])
    return found


def _largest(rows: Floats) -> Array:
    found: Array = rows.argmax(-1)
    return found


def _nearest(rows: Floats) -> Array:
    """Returns for each row which of the others is nearest, by cosine."""
    near = unit(rows) @ unit(rows).T
    np.fill_diagonal(near, -np.inf)
    found: Array = near.argmax(-1)
    return found
