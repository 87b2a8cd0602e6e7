"""Makes entries of the history from answers that the bridge publishes. Pure: no I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from s2m3.bindings.bound_topic import Asked
from s2m3.history.pictures import SmallPicture
from s2m3.schemas.bridge import BridgeAnswer
from s2m3.schemas.history import HistoryBox, HistoryEntry
from s2m3.schemas.messages import StepTiming

__all__ = ["AnswerRecord", "asked_in_words", "entry_of"]

#: Inputs of one request that are kept as text, characters of each, and boxes.
_MOST_INPUTS, _LONGEST_INPUT, _MOST_BOXES = 16, 500, 60


@dataclass(frozen=True, slots=True)
class AnswerRecord:
    """An answer as the bridge publishes it, with the request that it belongs to."""

    asked: Asked
    answer: BridgeAnswer
    #: input name -> value; files are not kept
    inputs: Mapping[str, Any] = field(default_factory=dict)
    #: the boxes of a detector, as values of the kind `boxes` (schemas/wire/values.py)
    boxes: Sequence[Mapping[str, Any]] = ()
    #: step -> its time
    steps: Mapping[str, StepTiming] = field(default_factory=dict)
    #: the model of the task, for an answer that does not name its model
    model: str | None = None


def entry_of(entry_id: int, record: AnswerRecord, picture: SmallPicture | None) -> HistoryEntry:
    """Returns the history's entry for an answer.

    Args:
        entry_id: The id of the entry.
        record: The answer.
        picture: The picture that the history keeps with it; None if there is none.
    """
    size = picture.size if picture is not None else None
    return HistoryEntry(
        id=entry_id,
        task=record.asked.task,
        at_ms=int(datetime.fromisoformat(record.answer.at).timestamp() * 1000),
        answer=record.answer,
        model=record.answer.model or record.model,
        rank=record.answer.rank,
        asked=asked_in_words(record.inputs),
        boxes=[] if size is None else [_part_of(box, size) for box in record.boxes[:_MOST_BOXES]],
        steps=dict(record.steps),
        picture=picture is not None,
    )


def asked_in_words(inputs: Mapping[str, Any]) -> dict[str, str]:
    """Returns the inputs that are texts or numbers, cut to a length that a page shows."""
    found = {}
    for name, value in list(inputs.items())[:_MOST_INPUTS]:
        many = value if isinstance(value, list | tuple) else [value]
        if many and all(isinstance(one, str | int | float) for one in many):
            text = ", ".join(map(str, many))
            found[name] = text if len(text) <= _LONGEST_INPUT else f"{text[: _LONGEST_INPUT - 1]}…"
    return found


def _part_of(box: Mapping[str, Any], size: tuple[int, int]) -> HistoryBox:
    corners = [round(min(max(at / length, 0.0), 1.0), 4) for at, length in zip(box["box"], (*size, *size), strict=True)]
    across, down = sorted(corners[0::2]), sorted(corners[1::2])
    return HistoryBox(
        label=box["label"][:255],
        score=round(box["score"], 4),
        left=across[0],
        top=down[0],
        right=across[1],
        bottom=down[1],
    )
