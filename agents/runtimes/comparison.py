"""How far the outputs of an export are from torch's, and whether those of a smaller dtype still rank the same."""

from collections.abc import Mapping, Sequence

import numpy as np

from s2m3.agents.modules.ranking import Floats, unit
from s2m3.agents.runtimes.network import Array
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.wire.values import Value

__all__ = ["between", "check_ranking", "distance_of"]

#: Least cosine of a row of a smaller dtype with the row of float32.
_LEAST_COSINE = 0.98


def distance_of(wanted: Sequence[Array], found: Sequence[Array]) -> float:
    """Returns how far arrays are from others, as a share of the largest number of each (at least 1)."""
    if [array.shape for array in wanted] != [array.shape for array in found]:
        return float("inf")
    pairs = zip(wanted, found, strict=True)
    return max(float(np.abs(w - f).max() / max(1.0, np.abs(w).max())) if w.size else 0.0 for w, f in pairs)


def between(wanted: Value, found: Value) -> float:
    """Returns how far a value is from another: 0 for equal texts, infinity for values of other shapes or kinds."""
    match wanted:
        case np.ndarray():
            return distance_of([wanted], [found])
        case dict() if isinstance(found, dict) and wanted.keys() == found.keys():
            return max((between(value, found[name]) for name, value in wanted.items()), default=0.0)
        case [float(), *_] if isinstance(found, list):  # the corners of a box
            return distance_of([np.array(wanted)], [np.array(found)])
        case list() if isinstance(found, list) and len(wanted) == len(found):
            return max((between(*pair) for pair in zip(wanted, found, strict=True)), default=0.0)
        case float() if isinstance(found, float):
            return abs(wanted - found) / max(1.0, abs(wanted))
    return 0.0 if wanted == found else float("inf")


def check_ranking(
    module: str, dtype: str, wanted: Sequence[Mapping[str, Value]], found: Sequence[Mapping[str, Value]]
) -> float:
    """Refuses outputs in a smaller dtype that rank otherwise than those in float32.

    Every row has to be near its row in float32, and to have the same nearest neighbour among the others; logits have to
    have the same largest one; texts have to be equal, and other numbers near.

    Args:
        module: Its id, for the error.
        dtype: The smaller dtype.
        wanted: The outputs of each item, by float32.
        found: The same, by the smaller one.

    Returns:
        The largest distance: 1 - cosine of rows, of other numbers what `between` says.

    Raises:
        ModuleFailedError: A ranking differs; the text says how many.
    """
    distance = 0.0
    for name, value in wanted[0].items():
        if not isinstance(value, np.ndarray):
            near = [between(one[name], other[name]) for one, other in zip(wanted, found, strict=True)]
            differ = [one > 1 - _LEAST_COSINE for one in near]
            distance = max(distance, *(one for one in near if one < float("inf")), 0.0)
        else:
            ours, theirs = _rows(found, name), _rows(wanted, name)
            cosine = float((unit(ours) * unit(theirs)).sum(-1).min())
            if not cosine >= _LEAST_COSINE:
                raise ModuleFailedError(
                    f"{dtype} of {module} is refused: its {name} is {1 - cosine:.3f} from float32's"
                )
            best = _largest if name == "logits" else _nearest
            differ = (best(ours) != best(theirs)).tolist()
            distance = max(distance, 1 - cosine)
        if any(differ):
            raise ModuleFailedError(
                f"{dtype} of {module} is refused: {sum(differ)} of {len(differ)} rankings by its {name} differ"
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
