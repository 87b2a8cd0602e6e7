"""None of these: what a requester makes of an answer whose score is below the task's threshold."""

import pytest

from s2m3.broker.requests.abstention import with_abstention
from s2m3.schemas.messages import RouteDoc
from s2m3.schemas.wire.work import Answer
from tests.broker.asked import ID, requests, result, route

OUTPUTS = {"label": "a person", "score": 0.383, "ranking": [{"label": "a person", "score": 0.383}]}


def test_20_a_black_frame_is_none_of_these_and_the_caller_sees_what_it_would_have_been() -> None:
    assert with_abstention(OUTPUTS, "label", 0.45) == OUTPUTS | {"label": None}


@pytest.mark.parametrize("threshold", [None, 0.383, 0.1, -1.0])
def test_a_score_at_the_threshold_or_above_is_an_answer(threshold: float | None) -> None:
    assert with_abstention(OUTPUTS, "label", threshold) == OUTPUTS


@pytest.mark.parametrize("outputs", [{"text": "hello"}, {"label": "x", "score": None}, {}])
def test_answers_without_a_score_are_as_they_are(outputs: dict[str, object]) -> None:
    assert with_abstention(outputs, "label", 0.9) == outputs


def test_of_boxes_those_below_the_threshold_are_left_out() -> None:
    boxes = [{"label": "dog", "score": score, "box": [0.0, 0.0, 9.0, 9.0]} for score in (0.9, 0.6, 0.3)]
    outputs = {"boxes": boxes, "label": "dog", "score": 0.9}
    assert with_abstention(outputs, "boxes", None) == outputs
    assert with_abstention(outputs, "boxes", 0.6) == outputs | {"boxes": boxes[:2]}
    assert with_abstention(outputs, "boxes", 0.95) == outputs | {"boxes": None}
    nothing = {"boxes": [], "label": "", "score": 0.0}
    assert with_abstention(nothing, "boxes", 0.5) == nothing | {"boxes": None}


def test_20_a_requester_abstains_by_the_threshold_in_the_route() -> None:
    made = requests()
    made.on_route("t", route("a", answer=["label", "score", "ranking"], threshold=0.45), 0.0)
    made.submit(ID, "t", {"x": "a"}, 10.0, 0.0)
    found = result(made.on_answer(Answer(ID, "head", 1, OUTPUTS), 1.0))
    assert found.error is None
    assert found.outputs == OUTPUTS | {"label": None}


def test_a_route_of_an_older_planner_has_no_threshold() -> None:
    doc = route("a").model_copy(update={"threshold": 0.4})
    assert b"threshold" not in doc.encode(0)
    assert RouteDoc.model_validate_json(doc.encode(0)).threshold is None
    assert RouteDoc.model_validate_json(doc.encode()).threshold == 0.4
