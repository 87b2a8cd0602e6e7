"""docs/schema against the code: up to date, and as strict as the readers are about what they must not take."""

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, ValidationError

from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.json_schema import files, schemas
from s2m3.schemas.wire.plain import parse_plain

FOLDER = Path(__file__).parents[2] / "docs" / "schema"
SCHEMAS = schemas()


def test_the_files_are_what_the_code_says() -> None:
    """If not: `make schema`, and look at what changed; whoever reads the bus will see it too."""
    assert {path.name: path.read_text() for path in FOLDER.glob("*.json")} == files()


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[name])


def test_every_document_of_a_topic_has_one() -> None:
    carried = {path.document.__name__ for path in topics.ALL if isinstance(path, topics.Topic)}
    others = {"PlainRequest", "PlainAnswer", "PlainPiece", "Work", "Answer", "Piece", "TaskPreview", "ModelList"}
    assert carried | others == SCHEMAS.keys()


def test_fields_have_their_names_on_the_wire_and_the_comments_of_the_code() -> None:
    profile, plan = SCHEMAS["NodeProfile"]["properties"], SCHEMAS["Plan"]["properties"]
    assert profile["memory_mb"]["description"] == "memory budget of the whole agent process, 10^6 bytes"
    assert "front" in profile
    assert "fronts" in plan
    assert "class" in SCHEMAS["Plan"]["$defs"]["ModuleSpec"]["properties"]


def test_ids_are_checked_where_they_are_keys_and_where_they_are_values() -> None:
    load, step = Draft202012Validator(SCHEMAS["NodeLoad"]), {"queued_ms": 0, "run_ms": 0, "batch": 1}
    assert load.is_valid({"queues": {"m": 1}, "latest": {"t": {"s": {"node": "pi", **step}}}})
    assert not load.is_valid({"queues": {"My Module": 1}})
    assert not load.is_valid({"queues": {}, "latest": {"t": {"s": {"node": "pi/5", **step}}}})


REQUESTS: list[dict[str, Any]] = [
    {},
    {"inputs": {"text": ["a"], "image": {"base64": ""}}, "transaction": 7, "deadline_s": 2.5, "stream": True},
    {"transaction": "x" * 256, "options": {"stop": ".", "seed": 1}},
    {"options": {"stop": ["a", "b"], "temperature": 2.0, "max_tokens": 1}},
    {"nonsense": 1, "options": {"nonsense": 1}},
    {"inputs": []},
    {"transaction": {}},
    {"transaction": "x" * 257},
    {"deadline_s": 0},
    {"deadline_s": 86_401},
    {"stream": "yes"},
    {"options": {"stop": ""}},
    {"options": {"stop": ["x"] * 9}},
    {"options": {"temperature": 2.1}},
    {"options": {"seed": -1}},
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda document: json.dumps(document)[:40])
def test_the_schema_of_a_plain_request_takes_what_the_parser_takes(request_: dict[str, Any]) -> None:
    try:
        parse_plain(json.dumps(request_).encode())
        taken = True
    except BadInputError:
        taken = False
    assert Draft202012Validator(SCHEMAS["PlainRequest"]).is_valid(request_) is taken


def test_a_piece_is_no_answer() -> None:
    piece = {"status": "piece", "transaction": None, "request": "0" * 32, "seq": 0, "at": 0, "text": "", "final": False}
    Draft202012Validator(SCHEMAS["PlainPiece"]).validate(piece)
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMAS["PlainAnswer"]).validate(piece)
