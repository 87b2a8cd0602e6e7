"""A task's answers for Home Assistant: short enough for a state and its attributes. Pure: no I/O."""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

from s2m3.bindings.bound_topic import Asked
from s2m3.broker.requests.actions import Result
from s2m3.schemas.bridge import BridgeAnswer
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.messages import ErrorBody, StepTiming
from s2m3.schemas.wire.plain import plain_value
from s2m3.schemas.wire.values import is_boxes

__all__ = ["failure", "of_plain", "of_result", "steps_of_plain"]

#: Longest state that Home Assistant accepts, characters.
_LONGEST_STATE = 255
#: State of an answer that is null: nothing that the task knows was seen.
_NONE = "none of these"
#: Labels of one answer that are counted.
_MOST_LABELS = 100
#: Longest attribute, bytes of JSON; Home Assistant's recorder stores at most 16 KB of attributes of one state.
_LONGEST_ATTRIBUTE = 6_000


def of_result(asked: Asked, result: Result, at: str) -> BridgeAnswer:
    """Returns the document of a request's result or error.

    Args:
        asked: The request.
        result: Its result.
        at: The time now, ISO 8601.
    """
    if result.error is not None:
        return failure(asked, result.error, at)
    outputs = {name: plain_value(value) for name, value in result.outputs.items()}
    told = _answered(asked, at, outputs, outputs.get(result.answer[0]), result.latency_ms, result.route)
    return told.model_copy(update={"model": result.model, "rank": result.rank})


def of_plain(task: str, payload: bytes, at: str) -> BridgeAnswer | None:
    """Returns the document of another caller's plain answer on `response/<task>`; None if the payload is not one."""
    asked = Asked(task, "plain")
    try:
        answer = json.loads(payload)
        if answer["status"] == "error":
            return _failed(asked, at, ErrorBody.model_validate(answer["error"]))
        route = {step: timing["node"] for step, timing in answer["steps"].items()}
        told = _answered(asked, at, answer["outputs"], answer["answer"], answer["latency_ms"], route)
        # a gateway of an older release says neither
        return BridgeAnswer.model_validate({**dict(told), "model": answer.get("model"), "rank": answer.get("rank")})
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def steps_of_plain(payload: bytes) -> dict[str, StepTiming]:
    """Returns step -> time of another caller's plain answer; {} if it says none that can be read."""
    try:
        return {step: StepTiming.model_validate(timing) for step, timing in json.loads(payload)["steps"].items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def failure(asked: Asked, error: S2M3Error, at: str) -> BridgeAnswer:
    """Returns the document of a failed request."""
    return _failed(asked, at, ErrorBody(**error.as_dict()))


def _failed(asked: Asked, at: str, error: ErrorBody) -> BridgeAnswer:
    return BridgeAnswer(
        event_type="failed", at=at, source=asked.source, topic=asked.topic, question=asked.question, error=error
    )


def _answered(
    asked: Asked, at: str, outputs: Mapping[str, Any], answer: Any, latency_ms: float, route: Mapping[str, str]
) -> BridgeAnswer:
    text = _as_text(answer)
    score = outputs.get("score")
    others = {name: value for name, value in list(outputs.items())[1:] if name != "score"}
    return BridgeAnswer(
        event_type="answered",
        state=text if len(text) <= _LONGEST_STATE else text[: _LONGEST_STATE - 1] + "…",
        answer=answer if _fits(answer) else None,
        score=round(score, 4) if isinstance(score, int | float) else None,
        detected=_counted(answer),
        outputs=others if _fits(others) else {},
        latency_ms=round(latency_ms, 1),
        at=at,
        source=asked.source,
        topic=asked.topic,
        question=asked.question,
        route=dict(route),
    )


def _as_text(answer: Any) -> str:
    """Returns an answer as a state: of boxes their labels, counted (`2 cat, dog`), of bytes that they are a file."""
    if answer is None or answer == []:
        return _NONE
    if isinstance(answer, str):
        return answer
    if isinstance(answer, dict) and answer.keys() == {"base64"}:
        return "a file"
    if is_boxes(answer):
        counts = _counted(answer)
        return ", ".join(label if count == 1 else f"{count} {label}" for label, count in counts.items())
    return json.dumps(answer, ensure_ascii=False)


def _counted(answer: Any) -> dict[str, int]:
    """Returns label -> number of boxes; {} for an answer without boxes."""
    boxes = answer if isinstance(answer, list) and is_boxes(answer) else []
    return dict(Counter(str(box["label"])[:_LONGEST_STATE] for box in boxes).most_common(_MOST_LABELS))


def _fits(value: Any) -> bool:
    return len(json.dumps(value, ensure_ascii=False).encode()) <= _LONGEST_ATTRIBUTE
