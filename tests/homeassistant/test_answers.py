"""Answers short enough for a state of 255 characters and attributes of 16 KB, whatever a model says."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from s2m3.bindings.bound_topic import Asked
from s2m3.broker.requests.actions import Result
from s2m3.homeassistant.answers import of_plain, of_result
from s2m3.schemas.errors import BusyError, RequestTimeoutError
from s2m3.schemas.wire.plain import encode_plain_error, encode_plain_result

ASKED = Asked("porch", "question", question="who?")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.text("ä\u2028\x00", min_size=300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
)


def _result(outputs: dict[str, Any]) -> Result:
    return Result(b"1" * 16, "porch", 1, 12.0, answer=tuple(outputs), outputs=outputs, route={"s": "pi"})


@given(JSON, JSON)
def test_any_answer_fits_and_is_told(answer: Any, other: Any) -> None:
    told = of_result(ASKED, _result({"text": answer, "more": other}), "now")
    document = json.loads(told.encode())
    assert len(document["state"]) <= 255
    assert len(told.encode()) < 16 * 1024
    assert document["question"] == "who?"


def test_20_an_answer_that_is_null_is_shown_as_none_of_these() -> None:
    told = of_result(ASKED, _result({"label": None, "score": 0.383}), "now")
    assert (told.event_type, told.state, told.answer, told.score) == ("answered", "none of these", None, 0.383)


def test_boxes_are_told_by_their_labels_and_nothing_found_as_none_of_these() -> None:
    boxes = [{"label": label, "score": 0.9, "box": [0.5, 1, 2, 3]} for label in ("cat", "dog", "cat")]
    told = of_result(ASKED, _result({"boxes": boxes, "label": "cat", "score": 0.9}), "now")
    assert (told.state, told.answer, told.score) == ("2 cat, dog", boxes, 0.9)
    assert told.detected == {"cat": 2, "dog": 1}
    assert of_result(ASKED, _result({"depth": b"png"}), "now").state == "a file"
    assert of_result(ASKED, _result({"boxes": [], "label": "", "score": 0.0}), "now").state == "none of these"


def test_a_long_answer_is_cut_in_the_state_and_whole_beside_it() -> None:
    told = of_result(ASKED, _result({"text": "word " * 100}), "now")
    assert told.state is not None
    assert len(told.state) == 255
    assert told.state.endswith("…")
    assert told.answer == "word " * 100


def test_an_answer_that_is_too_long_for_attributes_is_told_by_its_beginning_only() -> None:
    told = of_result(ASKED, _result({"text": "x" * 50_000, "all": ["y"] * 50_000}), "now")
    assert len(told.encode()) < 16_000


def test_a_failure_says_its_code_and_where() -> None:
    told = of_result(ASKED, Result(b"1" * 16, "porch", 2, 9.0, error=BusyError("full", node="pi")), "now")
    assert told.event_type == "failed"
    assert told.error is not None
    assert (told.error.code, told.error.node) == ("busy", "pi")


def test_plain_answers_of_others_are_read_and_what_is_none_is_not() -> None:
    ok = encode_plain_result(
        answer="a cat",
        outputs={"label": "a cat", "score": 0.5},
        timings={},
        latency_ms=3,
        attempts=1,
        request=b"1" * 16,
        transaction=None,
        model="retrieval",
        rank=1,
    )
    told = of_plain("porch", ok, "now")
    assert told is not None
    assert (told.state, told.score, told.source) == ("a cat", 0.5, "plain")
    bad = of_plain("porch", encode_plain_error(RequestTimeoutError("late"), request=b"1" * 16, transaction=None), "now")
    assert bad is not None
    assert bad.event_type == "failed"
    for junk in (b"", b"[]", b"{}", b'"x"', b'{"status": "error"}', b'{"status": "ok", "steps": 3}', b"\xff"):
        assert of_plain("porch", junk, "now") is None
