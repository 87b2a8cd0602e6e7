"""Boxes as detectors answer them, and which of those that overlap is kept."""

from collections.abc import Sequence

import numpy as np

from s2m3.agents.modules.ranking import Floats
from s2m3.schemas.wire.values import Value

__all__ = ["box_outputs", "keep_best"]


def box_outputs(
    labels: Sequence[str], scores: Sequence[float], corners: Sequence[Sequence[float]], wanted: frozenset[str]
) -> dict[str, Value]:
    """Returns the wanted of `boxes`, `label` and `score`; without any box, `label` is empty and `score` 0.

    Args:
        labels: One per box, best first.
        scores: One per box.
        corners: Left, top, right, bottom of each box, pixels of the picture that was sent.
        wanted: Names of outputs.
    """
    boxes: list[dict[str, Value]] = [
        {"label": label, "score": score, "box": list(box)}
        for label, score, box in zip(labels, scores, corners, strict=True)
    ]
    first = boxes[0] if boxes else {"label": "", "score": 0.0}
    outputs: dict[str, Value] = {"boxes": boxes, "label": first["label"], "score": first["score"]}
    return {name: value for name, value in outputs.items() if name in wanted}


def keep_best(corners: Floats, scores: Floats, least: float, overlap: float, most: int) -> list[int]:
    """Returns the numbers of the boxes that stay, best first (non-maximum suppression).

    Args:
        corners: (boxes, 4): left, top, right, bottom.
        scores: (boxes,).
        least: The least score of a box that stays.
        overlap: Intersection over union from which the worse of two boxes goes.
        most: Boxes that stay at most.
    """
    kept: list[int] = []
    for number in np.argsort(-scores, kind="stable"):
        if scores[number] < least or len(kept) == most:
            break
        if not kept or float(_overlaps(corners[number], corners[kept]).max()) < overlap:
            kept.append(int(number))
    return kept


def _overlaps(box: Floats, others: Floats) -> Floats:
    """Returns the intersection over union of one box (4,) with others (boxes, 4)."""
    common = np.clip(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), 0, None).prod(axis=1)
    areas = (others[:, 2:] - others[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod()
    found: Floats = common / np.maximum(areas - common, np.finfo(np.float32).tiny)
    return found
