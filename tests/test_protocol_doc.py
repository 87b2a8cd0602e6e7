"""docs/protocol.md against the code: every topic, document, field, code, and every example read by the real parser."""

import json
import re
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from s2m3.schemas import bridge, history, messages, sleep, topics
from s2m3.schemas.errors import S2M3Error, error_from_code
from s2m3.schemas.ids import shown_id
from s2m3.schemas.protocol import PROTOCOL, ClosedList, Since
from s2m3.schemas.wire import plain
from s2m3.schemas.wire.codec import CONTENT_TYPE
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import pack_tensor

TEXT = (Path(__file__).parents[1] / "docs" / "protocol.md").read_text()
CODES = sorted(set(re.findall(r"^\| `(\w+)` \| [^|]+ \| (?:yes|no) \|$", TEXT, flags=re.MULTILINE)))


@pytest.mark.parametrize("path", topics.ALL, ids=lambda path: path.pattern)
def test_every_topic_is_documented_as_it_is(path: topics.TopicPath) -> None:
    document = getattr(path, "document", None)
    carries = document.__name__ if document else r"[^|]+"
    row = rf"\| `{re.escape(path.pattern)}` \| {'yes' if path.retain else 'no'} \| {path.qos} \| {carries} \|"
    assert re.search(row, TEXT), row


def test_no_topic_is_documented_that_is_not_there() -> None:
    rows = re.findall(r"^\| `([^`]+/[^`]*|event|rollcall)` \|", TEXT, flags=re.MULTILINE)
    assert set(rows) == {path.pattern for path in topics.ALL}


@pytest.mark.parametrize(
    "name", [*messages.__all__, *bridge.__all__, *history.__all__, "NodeSettings", "WakeOrder", "Demand"]
)
def test_every_field_of_every_document_is_named(name: str) -> None:
    paragraph = next(p for p in TEXT.split("\n\n") if p.startswith(f"**{name}**"))
    document = next(getattr(module, name) for module in (messages, bridge, history, sleep) if hasattr(module, name))
    fields = {field.serialization_alias or field_id for field_id, field in document.model_fields.items()}
    named = set(re.findall(r"`(\w+)`", paragraph)) - {"lost"}
    assert named == fields


def test_every_field_that_a_later_protocol_brought_is_named_with_its_number() -> None:
    """Whoever marks a field with `Since` finds here that the page has to say so, and the other way round."""
    rows = dict(re.findall(r"^\| (\d+) \| [^|]+ \| ([^|]+) \|$", TEXT, flags=re.MULTILINE))
    assert [int(number) for number in rows] == list(range(PROTOCOL + 1))
    named = {(int(number), name) for number, row in rows.items() for name in re.findall(r"`(\w+\.\w+)`", row)}
    assert named == set(_later_fields()) | set(_later_values())


def _models() -> list[type[BaseModel]]:
    """Every model that can be in a document, and the options of work."""
    documents = [path.document for path in topics.ALL if isinstance(path, topics.Topic)]
    found: dict[type[BaseModel], None] = {Options: None}
    waiting: list[Any] = [*documents]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in found:
            found[annotation] = None
            waiting += [field.annotation for field in annotation.model_fields.values()]
        else:
            waiting += get_args(annotation)
    return list(found)


def _later_fields() -> list[tuple[int, str]]:
    return [
        (mark.protocol, f"{model.__name__}.{name}")
        for model in _models()
        for name, field in model.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Since)
    ]


def _later_values() -> list[tuple[int, str]]:
    return [
        (number, f"{name}.{value}")
        for model in _models()
        for name, field in model.model_fields.items()
        for mark in [*field.metadata, *_inside(field.annotation)]
        if isinstance(mark, ClosedList)
        for value, number in mark.since
    ]


def _inside(annotation: Any) -> list[Any]:
    """All that an annotation is made of: of `dict[str, Kind]` also what marks Kind."""
    return [part for argument in get_args(annotation) for part in (argument, *_inside(argument))]


def test_what_was_passed_over_is_named_as_documented() -> None:
    request = plain.parse_plain(b'{"voice": "soft", "options": {"beams": 4}}')
    assert f'`["{request.ignored[0]}", "{request.ignored[1]}"]`' in TEXT.replace("\n", " ")


def test_all_nine_codes_are_documented() -> None:
    assert len(CODES) == 9
    assert {error_from_code(code, "x").code for code in CODES} == set(CODES)


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_documented_with_whether_it_is_tried_again(code: str) -> None:
    error = error_from_code(code, "x")
    assert type(error) is not S2M3Error
    row = next(line for line in TEXT.splitlines() if line.startswith(f"| `{code}` |"))
    assert row.endswith("| yes |" if error.retriable else "| no |")


def test_the_example_request_is_read_by_the_real_parser() -> None:
    (example,) = re.findall(r"```json request\n(.*?)```", TEXT, flags=re.DOTALL)
    request = plain.parse_plain(example.encode())
    inputs = plain.read_inputs({"image": "image", "text": "texts"}, request.inputs, {})
    assert request.transaction == "door-17"
    assert inputs["text"] == ["a cat", "a person"]


def test_the_example_answers_have_the_keys_that_are_really_sent() -> None:
    (answer,) = re.findall(r"```json answer\n(.*?)```", TEXT, flags=re.DOTALL)
    (error,) = re.findall(r"```json error\n(.*?)```", TEXT, flags=re.DOTALL)
    result = plain.encode_plain_result(
        answer="x",
        outputs={},
        timings={},
        latency_ms=1,
        attempts=1,
        request=b"1" * 16,
        transaction=None,
        model="m",
    )
    assert json.loads(answer).keys() == json.loads(result).keys()
    refused = plain.encode_plain_error(error_from_code("busy", "x"), request=b"1" * 16, transaction=None)
    assert json.loads(error).keys() == json.loads(refused).keys()


def test_the_example_of_a_stream_is_read_by_the_real_parser_and_its_piece_is_what_is_sent() -> None:
    (example,) = re.findall(r"```json stream\n(.*?)```", TEXT, flags=re.DOTALL)
    request = plain.parse_plain(example.encode())
    assert request.stream
    assert request.options == {"max_tokens": 40, "stop": ["."]}
    (piece,) = re.findall(r"```json piece\n(.*?)```", TEXT, flags=re.DOTALL)
    sent = plain.encode_plain_piece(at=0, text="The quick", seq=0, request=bytes.fromhex("00"), transaction=8)
    assert json.loads(piece) | {"request": shown_id(bytes.fromhex("00"))} == json.loads(sent)


def test_every_option_of_a_written_text_is_documented() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", TEXT.split("| option |")[1].split("\n\n")[0], flags=re.MULTILINE))
    assert named == set(Options.model_fields)


def test_content_type_and_tensor_types_are_those_of_the_code() -> None:
    import numpy as np  # noqa: PLC0415  # only here

    assert CONTENT_TYPE in TEXT
    (named,) = re.findall(r"of dtype ([\w, ]+) or (\w+)\.", TEXT.replace("\n", " "))
    for dtype in [*named[0].split(", "), named[1]]:
        assert pack_tensor(np.zeros(2, dtype=dtype))["dtype"] == dtype
