"""Texts of any weights follow a JSON schema and close before their tokens run out."""

import json
from typing import Any

import jsonschema
import pytest
import torch
import transformers as t

from s2m3.agents.modules.json_constraint import JsonFormats
from s2m3.schemas.errors import BadInputError
from tests.checkpoints.spelling import spelling

SIZE = 272
END = 2
VALUES: list[dict[str, Any]] = [
    {"type": "string"},
    {"type": "number"},
    {"type": "boolean"},
    {"type": "array", "items": {"type": "object", "properties": {"a": {"minLength": 9}}, "required": ["a"]}},
    {"enum": ["a", "b" * 40]},
    {"anyOf": [{"type": "null"}, {"type": "integer"}]},
]
TWELVE = {
    "type": "object",
    "properties": {f"field_{number}": VALUES[number % len(VALUES)] for number in range(12)},
    "required": [f"field_{number}" for number in range(12)],
    "additionalProperties": False,
}
NESTED = {
    "$ref": "#/$defs/n",
    "$defs": {"n": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/n"}]}}},
}


@pytest.fixture(scope="module")
def tokenizer() -> t.PreTrainedTokenizerFast:
    return spelling(SIZE)


@pytest.fixture(scope="module")
def formats(tokenizer: t.PreTrainedTokenizerFast) -> JsonFormats:
    return JsonFormats(tokenizer, SIZE, [END])


def written(formats: JsonFormats, form: Any, limit: int, seed: int, *, draws: bool = False) -> list[int]:
    """Returns the tokens that a network with random outputs writes; the last one is the end if it came in time."""
    generator = torch.Generator().manual_seed(seed)
    constraint, ids = formats.constraint(form, limit), [1]
    likes = torch.randn(1, SIZE, generator=generator) * 2
    while len(ids) <= limit and ids[-1] != END:
        scores = constraint(torch.tensor([ids]), likes + torch.randn(1, SIZE, generator=generator))[0]
        drawn = torch.multinomial(scores.softmax(-1), 1, generator=generator)
        ids.append(int(drawn if draws else scores.argmax()))
    return ids[1:]


@pytest.mark.parametrize(("form", "limit"), [(TWELVE, 300), (TWELVE, 450), ("json", 40), (NESTED, 60)])
def test_random_weights_write_what_follows_the_schema(
    formats: JsonFormats, tokenizer: t.PreTrainedTokenizerFast, form: Any, limit: int
) -> None:
    for seed in range(2):
        tokens = written(formats, form, limit, seed, draws=seed % 2 == 1)
        assert tokens[-1] == END
        value = json.loads(tokenizer.decode(tokens[:-1]))
        jsonschema.validate(value, {"type": "object"} if form == "json" else form)


def test_a_limit_that_no_answer_fits_into_cuts_the_text(formats: JsonFormats) -> None:
    assert END not in written(formats, TWELVE, 50, 0)


def test_each_text_has_its_own_state(formats: JsonFormats, tokenizer: t.PreTrainedTokenizerFast) -> None:
    one, other = formats.constraint({"const": "one"}, 20), formats.constraint({"const": "other"}, 20)
    ids: list[list[int]] = [[1], [1, 1]]
    for _ in range(3):
        for said, constraint in zip(ids, (one, other), strict=True):
            said.append(int(constraint(torch.tensor([said]), torch.zeros(1, SIZE))[0].argmax()))
    assert [tokenizer.decode(said[start:]) for said, start in zip(ids, (1, 2), strict=True)] == ['"on', '"ot']


@pytest.mark.parametrize(
    "form",
    [
        {"type": "strin"},
        {"$ref": "#/nowhere"},
        {"type": "string", "pattern": "("},
    ],
)
def test_what_is_no_schema_is_bad_input(formats: JsonFormats, form: dict[str, Any]) -> None:
    with pytest.raises(BadInputError, match=r"options\.format"):
        formats.constraint(form, 100)


def test_a_tokenizer_that_cannot_be_led_is_bad_input() -> None:
    with pytest.raises(BadInputError, match="cannot be led"):
        JsonFormats(object(), SIZE, [END]).constraint("json", 100)
