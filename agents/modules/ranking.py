"""What heads answer with: probabilities, unit vectors, rankings of labels by their scores. numpy alone."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from s2m3.schemas.wire.values import Value

__all__ = ["Floats", "answer_of", "ranked", "sigmoid", "softmax", "unit"]

Floats = npt.NDArray[np.float32]


def softmax(logits: Floats) -> Floats:
    """Returns probabilities over the last dimension."""
    e = np.exp(logits - logits.max(axis=-1, keepdims=True))
    probabilities: Floats = e / e.sum(axis=-1, keepdims=True)
    return probabilities


def sigmoid(logits: Floats) -> Floats:
    """Returns a probability for each logit by itself."""
    with np.errstate(over="ignore"):  # exp of more than 88 is infinite, and its reciprocal 0
        probabilities: Floats = np.reciprocal(1 + np.exp(-logits))
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
    """Returns the wanted ones of `label`, `score` and `ranking`: an empty label at 0 where nothing is ranked."""
    first = ranking[0] if ranking else {"label": "", "score": 0.0}
    outputs = {"label": first["label"], "score": first["score"], "ranking": ranking}
    return {name: value for name, value in outputs.items() if name in wanted}
