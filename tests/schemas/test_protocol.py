"""Who can read what is said: what a later number brought is marked once, and kept from older readers."""

from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, Field

from s2m3.schemas import protocol
from s2m3.schemas.document import Document
from s2m3.schemas.protocol import ClosedList, Since, needs, newer_fields

_Shape = Annotated[Literal["round", "square", "star", "unknown"], ClosedList((("star", 2),))]


class _Part(BaseModel):
    name: str
    colour: Annotated[str, Since(1)] = "red"
    engine: Annotated[str | None, Since(2, needed=True)] = None
    shape: _Shape = "round"


class _Whole(Document):
    parts: list[_Part] = Field(default_factory=list)
    by_name: dict[str, _Part] = Field(default_factory=dict)
    shapes: dict[str, _Shape | None] = Field(default_factory=dict)
    hint: Annotated[int, Since(2)] = 0


@pytest.fixture(autouse=True)
def _later_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "PROTOCOL", 2)


WHOLE = _Whole(parts=[_Part(name="a"), _Part(name="b")], by_name={"c": _Part(name="c")}, hint=7)


def test_a_reader_of_our_own_number_gets_everything() -> None:
    assert newer_fields(WHOLE, 2) == {}
    assert _Whole.model_validate_json(WHOLE.encode(2)) == WHOLE


def test_an_older_reader_gets_what_its_number_has_at_every_depth() -> None:
    expected = '{"parts":[{"name":"a","shape":"round"},{"name":"b","shape":"round"}]'
    assert WHOLE.encode(0).decode() == expected + ',"by_name":{"c":{"name":"c","shape":"round"}},"shapes":{}}'
    assert b"colour" in WHOLE.encode(1)
    assert b"hint" not in WHOLE.encode(1)


def test_a_document_needs_what_its_fields_and_values_need() -> None:
    assert needs(WHOLE) == 0
    assert needs(_Part(name="a", engine="steam")) == 2
    assert needs(_Part(name="a", shape="star")) == 2
    assert needs(_Whole(parts=[_Part(name="a"), _Part(name="b", engine="steam")])) == 2
    assert needs(_Whole(by_name={"c": _Part(name="c", shape="star")})) == 2
    assert needs(_Whole(shapes={"d": None, "e": "star"})) == 2
    assert needs(_Whole(shapes={"d": "square"})) == 0


def test_a_list_that_has_no_unknown_is_no_closed_list() -> None:
    with pytest.raises(TypeError, match="unknown"):

        class _Wrong(BaseModel):
            shape: Annotated[Literal["round"], ClosedList()]
