"""What heads answer with: probabilities, unit vectors, rankings of labels by their scores. numpy alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from s2m3.schemas.wire.values import Value

__all__ = ["Floats", "answer_of", "ranked", "softmax", "unit"]

Floats = npt.NDArray[np.float32]


def softmax(logits: Floats) -> Floats:
    """Returns probabilities over the last dimension."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = e / e.sum(axis=-1, keepdims=True)
    return probabilities


def unit(vectors: Floats) -> Floats:
    """Returns the vectors of the last dimension at length 1; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    scaled: Floats = vectors / np.maximum(lengths, 1e-12)
    return scaled


def ranked(name: str, labels: Sequence[Value], scores: Floats, top: int | None = None) -> list[dict[str, Value]]:
    """Returns [{name: label, "score": float}], best first, the first of equals first, at most `top` of them."""
    order = np.argsort(-scores, kind="stable")[:top]
    return [{name: labels[i], "score": float(scores[i])} for i in order]


def answer_of(ranking: list[dict[str, Value]], wanted: frozenset[str]) -> dict[str, Value]:
    """Returns the wanted ones of `label`, `score` and `ranking`."""
    outputs = {"label": ranking[0]["label"], "score": ranking[0]["score"], "ranking": ranking}
    return {name: value for name, value in outputs.items() if name in wanted}
