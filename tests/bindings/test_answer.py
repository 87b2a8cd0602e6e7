"""Which answers a binding publishes, and as what."""

import json
from typing import Any

import pytest

from s2m3.bindings.answer import error_payload, payload_of, wanted
from s2m3.broker.requests.actions import Result
from s2m3.schemas.bridge import Binding
from s2m3.schemas.errors import BadInputError, BusyError


def _result(label: Any, score: float | None) -> Result:
    outputs = {"label": label} | ({"score": score} if score is not None else {})
    return Result(b"1" * 16, "porch", 1, 12.34, answer=tuple(outputs), outputs=outputs)


def _binding(**fields: Any) -> Binding:
    return Binding(source="a", task="porch", input="image", publish="b", **fields)


@pytest.mark.parametrize(
    ("fields", "published"),
    [
        ({}, True),
        ({"labels": ["a person"]}, True),
        ({"labels": ["a cat", "a dog"]}, False),
        ({"above": 0.5}, True),
        ({"above": 0.8}, False),
        ({"labels": ["a person"], "above": 0.9}, False),
    ],
)
def test_an_answer_is_published_if_label_and_score_meet_the_condition(fields: dict[str, Any], published: bool) -> None:  # noqa: FBT001
    assert wanted(_binding(**fields), _result("a person", 0.8)) == published


@pytest.mark.parametrize(("fields", "published"), [({}, True), ({"above": 0.1}, False), ({"labels": ["a cat"]}, False)])
def test_20_none_of_these_meets_no_condition(fields: dict[str, Any], published: bool) -> None:  # noqa: FBT001
    assert wanted(_binding(**fields), _result(None, 0.383)) == published


@pytest.mark.parametrize(
    ("fields", "published"),
    [
        ({}, True),
        ({"labels": ["person"]}, True),
        ({"labels": ["person"], "above": 0.5}, False),
        ({"labels": ["dog"], "above": 0.5}, True),
        ({"above": 0.95}, False),
        ({"labels": ["bird"]}, False),
    ],
)
def test_an_answer_of_boxes_is_published_if_one_of_them_meets_the_condition(
    fields: dict[str, Any],
    published: bool,  # noqa: FBT001
) -> None:
    boxes = [
        {"label": "dog", "score": 0.9, "box": [0, 0, 9, 9]},
        {"label": "person", "score": 0.4, "box": [1, 1, 5, 5]},
    ]
    result = Result(b"1" * 16, "porch", 1, 1.0, answer=("boxes", "score"), outputs={"boxes": boxes, "score": 0.9})
    assert wanted(_binding(**fields), result) == published


def test_nothing_found_meets_no_condition() -> None:
    result = Result(b"1" * 16, "porch", 1, 1.0, answer=("boxes", "score"), outputs={"boxes": [], "score": 0.0})
    assert wanted(_binding(), result)
    assert not wanted(_binding(labels=["dog"]), result)
    assert not wanted(_binding(above=0.1), result)


def test_a_condition_on_a_score_that_is_not_there_is_an_error_not_a_silence() -> None:
    with pytest.raises(BadInputError, match="no score"):
        wanted(_binding(above=0.1), _result("words", None))


def test_the_json_form_is_a_plain_answer_that_names_its_source() -> None:
    document = json.loads(payload_of(_binding(), _result("a person", 0.8), "cam/porch"))
    assert document["status"] == "ok"
    assert document["transaction"] == "cam/porch"
    assert document["answer"] == "a person"


@pytest.mark.parametrize(("answer", "payload"), [("a cät", "a cät".encode()), (3, b"3"), ([{"a": 1}], b'[{"a": 1}]')])
def test_the_value_form_is_the_answer_alone(answer: Any, payload: bytes) -> None:
    assert payload_of(_binding(form="value"), _result(answer, None), "t") == payload


def test_errors_are_published_as_json_and_never_as_a_caption() -> None:
    error = BusyError("full")
    assert error_payload(_binding(form="value"), error, b"1" * 16, "t") is None
    document = json.loads(error_payload(_binding(), error, b"1" * 16, "t") or b"")
    assert document["error"] == {"code": "busy", "detail": "full"}
    assert document["transaction"] == "t"
