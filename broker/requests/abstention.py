"""Abstention: an answer whose score is below the task's threshold becomes None ("none of these"). Pure."""

from collections.abc import Mapping

from s2m3.schemas.wire.values import Value, is_boxes

__all__ = ["with_abstention"]


def with_abstention(outputs: Mapping[str, Value], answer: str, threshold: float | None) -> Mapping[str, Value]:
    """Returns the outputs, with None in place of the answer where its score is below the threshold.

    Of an answer of boxes those below the threshold are left out; without any box it is None too.

    Args:
        outputs: Output name -> value. Without a `score` nothing is changed; `score` and `ranking` stay as they are.
        answer: The output that is the answer.
        threshold: The least score of an answer; None accepts any.
    """
    boxes = outputs.get(answer)
    if threshold is not None and boxes and is_boxes(boxes):
        return {**outputs, answer: [box for box in boxes if box["score"] >= threshold] or None}
    score = outputs.get("score")
    if threshold is None or not isinstance(score, int | float) or score >= threshold:
        return outputs
    return {**outputs, answer: None}
