"""Plain requests and answers: JSON from anybody, never more than `bad_input` from a wrong one."""

import base64
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.schemas.errors import BadInputError, BusyError
from s2m3.schemas.ids import shown_id
from s2m3.schemas.wire.plain import (
    PlainRequest,
    encode_plain_error,
    encode_plain_result,
    parse_plain,
    plain_inputs,
    plain_value,
    read_inputs,
    transaction_of,
)
from s2m3.schemas.wire.values import Kind
from s2m3.schemas.wire.work import Timing

KINDS: dict[str, Kind] = {"image": "image", "text": "texts"}


def base(data: bytes) -> dict[str, str]:
    return {"base64": base64.b64encode(data).decode()}


def test_a_request_is_read() -> None:
    assert parse_plain(b'{"inputs":{"text":"a"},"transaction":"t1","deadline_s":2.5}') == PlainRequest(
        {"text": "a"}, "t1", 2.5
    )
    assert parse_plain(b"{}") == PlainRequest()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff",
        b"[]",
        b"null",
        b"5",
        b'{"inputs":[]}',
        b'{"inputs":"text"}',
        b'{"transaction":NaN}',
        b'{"transaction":-Infinity}',
        b'{"transaction":true}',
        b'{"transaction":{}}',
        b'{"transaction":"' + b"x" * 257 + b'"}',
        b'{"transaction":"\\ud800"}',
        b'{"deadline_s":0}',
        b'{"deadline_s":-1}',
        b'{"deadline_s":"5"}',
        b'{"deadline_s":true}',
        b'{"deadline_s":NaN}',
        b'{"deadline_s":Infinity}',
        b'{"deadline_s":86401}',
        b'{"inputs":' * 2000,
        b"[" * 100_000,
    ],
)
def test_a_wrong_request_is_bad_input(payload: bytes) -> None:
    with pytest.raises(BadInputError):
        parse_plain(payload)


@given(st.binary(max_size=60) | st.recursive(st.none() | st.text(), st.lists).map(lambda x: json.dumps(x).encode()))
def test_anything_at_all_is_a_request_or_bad_input(payload: bytes) -> None:
    try:
        assert isinstance(parse_plain(payload), PlainRequest)
    except BadInputError as error:
        assert error.detail  # noqa: PT017  # it may also be a request
    transaction_of(payload)


def test_4_a_transaction_may_be_any_number() -> None:
    assert parse_plain(b'{"transaction":1.5}').transaction == 1.5
    assert transaction_of(b'{"transaction":1.5,"inputs":[]}') == 1.5


def test_the_transaction_of_a_wrong_request_is_still_found() -> None:
    assert transaction_of(b'{"transaction":"t","nonsense":1}') == "t"
    assert transaction_of(b'{"transaction":7}') == 7
    for payload in (b"", b"[1]", b'{"transaction":[]}', b'{"transaction":true}', b'{"transaction":"\\udfff"}'):
        assert transaction_of(payload) is None


@given(st.text(max_size=20) | st.integers() | st.floats(allow_nan=False))
def test_4_every_transaction_that_is_taken_can_be_sent_back(transaction: str | float) -> None:
    payload = json.dumps({"transaction": transaction}).encode()
    try:
        taken = parse_plain(payload).transaction
    except BadInputError:
        taken = None
    for found in (taken, transaction_of(payload)):
        answer = encode_plain_error(BusyError("full"), request=b"\0" * 16, transaction=found)
        assert json.loads(answer)["transaction"] == found


def test_inputs_are_read_and_defaults_fill_in() -> None:
    read = read_inputs(KINDS, {"image": base(b"jpeg")}, {"text": ["a cat", "a dog"]})
    assert read == {"image": b"jpeg", "text": ["a cat", "a dog"]}


def test_what_is_given_goes_before_the_default() -> None:
    assert read_inputs(KINDS, {"image": b"x", "text": "mine"}, {"text": "yours"})["text"] == ["mine"]


def test_10_a_number_is_its_digits_where_a_text_is_taken() -> None:
    assert read_inputs({"text": "texts"}, {"text": [1, "two", 2.5]}, {}) == {"text": ["1", "two", "2.5"]}
    assert read_inputs({"text": "text"}, {"text": 7}, {}) == {"text": "7"}


def test_raw_bytes_are_a_text_where_a_text_is_taken() -> None:
    assert read_inputs({"text": "text"}, {"text": "grün".encode()}, {}) == {"text": "grün"}
    with pytest.raises(BadInputError, match="UTF-8"):
        read_inputs({"text": "text"}, {"text": b"\xff"}, {})


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"image": base(b"x"), "sound": 1}, "no input 'sound'; it takes image, text"),
        ({}, "'image' is missing"),
        ({"image": None}, "'image' is missing"),
        ({"image": "jpeg"}, "base64"),
        ({"image": {"base64": "not base64!"}}, "not base64"),
        ({"image": {"base64": "é"}}, "not base64"),
        ({"image": {"base64": 5}}, "base64"),
        ({"image": [base(b"a"), base(b"b")]}, "one picture"),
        ({"image": [[base(b"a")]]}, "base64"),
        ({"image": []}, "one picture"),
        ({"image": base(b"x"), "text": {"a": 1}}, "one or more texts, not an object"),
        ({"image": base(b"x"), "text": True}, "one or more texts, not true or false"),
        ({"image": base(b"x"), "text": []}, "one or more texts, not an empty list"),
        (
            {"image": base(b"x"), "text": ["a", None, [1]]},
            "not a list of a list of a number, a text, null",
        ),
    ],
)
def test_wrong_inputs_are_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        read_inputs(KINDS, given, {"text": "default"})


def test_pictures_in_lists_without_end_are_bad_input() -> None:
    deep: Any = base(b"x")
    for _ in range(5_000):
        deep = [deep]
    with pytest.raises(BadInputError):
        read_inputs({"image": "images"}, {"image": deep}, {})


@given(st.binary(), st.text())
def test_inputs_in_plain_form_are_read_back(picture: bytes, text: str) -> None:
    written = plain_inputs({"image": picture, "text": [text]})
    assert read_inputs(KINDS, written, {}) == {"image": picture, "text": [text]}


def test_values_become_json() -> None:
    value = {"a": np.ones((1, 2)), "b": (b"\0", None), "c": 1.5}
    assert plain_value(value) == {"a": [[1.0, 1.0]], "b": [{"base64": "AA=="}, None], "c": 1.5}


def strict(payload: bytes) -> Any:
    def refuse(name: str) -> None:
        pytest.fail(f"{name} is not JSON")

    return json.loads(payload, parse_constant=refuse)


def test_a_result_is_strict_json_even_of_what_is_not_a_number() -> None:
    payload = encode_plain_result(
        answer=float("nan"),
        outputs={"score": float("inf"), "vector": np.array([1.0, np.nan], np.float32), "nested": [{"x": -np.inf}]},
        timings={"rank": Timing("pi5", 0.1, 2.0, 1)},
        latency_ms=12.34,
        attempts=2,
        request=bytes(16),
        transaction="t",
        model="retrieval",
        rank=1,
    )
    found = strict(payload)
    assert found == {
        "status": "ok",
        "transaction": "t",
        "request": shown_id(bytes(16)),
        "answer": None,
        "outputs": {"score": None, "vector": [1.0, None], "nested": [{"x": None}]},
        "latency_ms": 12.3,
        "attempts": 2,
        "model": "retrieval",
        "rank": 1,
        "steps": {"rank": {"node": "pi5", "queued_ms": 0.1, "run_ms": 2.0, "batch": 1}},
    }


def test_an_error_names_code_detail_step_and_node() -> None:
    error = BusyError("64 wait", step="image", node="pi5")
    assert strict(encode_plain_error(error, request=b"\xab" * 16, transaction=None)) == {
        "status": "error",
        "transaction": None,
        "request": shown_id(b"\xab" * 16),
        "error": {"code": "busy", "detail": "64 wait", "step": "image", "node": "pi5"},
    }


def test_of_a_request_that_was_cut_the_transaction_is_found_where_it_is_the_first_key() -> None:
    cut = b'{"inputs":{"image":{"base64":"/9j/4AAQ'
    for first, found in ((b'"t\\"1"', 't"1'), (b"-7.5e1", -75.0), (b"12", 12)):
        assert transaction_of(b' { "transaction" : ' + first + b"," + cut[1:]) == found
    for none in (cut, b'{"transaction":1.2.3,"inputs":{', b'{"transaction":"t', b'{"transaction":true,"inputs":{'):
        assert transaction_of(none) is None


def test_raw_sound_says_what_it_is_in_its_content_type_or_its_data_url() -> None:
    samples, said = bytes(range(32)), "audio/L16;rate=16000;endian=little"
    text = base64.b64encode(samples).decode()
    given: list[Any] = [
        {"base64": text, "content_type": said},
        {"base64": f"data:{said};base64,{text}"},
        f"data:{said};base64,{text}",
    ]
    kinds: dict[str, Kind] = {"sound": "audio"}
    for value in given:
        found = read_inputs(kinds, {"sound": value}, {})["sound"]
        assert isinstance(found, bytes)
        assert (found[:4], found[44:]) == (b"RIFF", samples)
