"""Decides whether a binding's answer is published, and encodes it. Pure."""

from s2m3.broker.requests.actions import Result
from s2m3.broker.requests.plain_result import encode_result
from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.wire.plain import encode_plain_error, encode_plain_value
from s2m3.schemas.wire.values import is_boxes

__all__ = ["error_payload", "payload_of", "wanted"]


def wanted(binding: Binding, result: Result) -> bool:
    """Returns whether an answer meets the binding's condition; an answer of boxes does if any box does.

    Raises:
        BadInputError: The condition needs a score, and the task's answers have none.
    """
    boxes = result.value
    if boxes and is_boxes(boxes):
        return any(_is_wanted(binding, box["label"], box["score"]) for box in boxes)
    if binding.above is not None:
        score = result.outputs.get("score")
        if not isinstance(score, int | float):
            raise BadInputError(f"the answers of {binding.task} have no score that could be above {binding.above:g}")
        if not score > binding.above or result.value is None:  # null: none of these
            return False
    return not binding.labels or result.value in binding.labels


def _is_wanted(binding: Binding, label: str, score: float) -> bool:
    return (binding.above is None or score > binding.above) and (not binding.labels or label in binding.labels)


def payload_of(binding: Binding, result: Result, topic: str) -> bytes:
    """Returns the bytes of a result: a plain answer whose transaction is the source topic, or the value alone."""
    return encode_plain_value(result.value) if binding.form == "value" else encode_result(result, transaction=topic)


def error_payload(binding: Binding, error: S2M3Error, request: bytes, topic: str) -> bytes | None:
    """Returns the bytes of an error; None for bindings that publish values alone: readers expect a value there."""
    return encode_plain_error(error, request=request, transaction=topic) if binding.form == "json" else None
