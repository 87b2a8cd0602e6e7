"""Writes the JSON Schemas of all documents and payloads: `python -m s2m3.schemas.json_schema docs/schema`.

The schemas say what a reader takes: what may be left out is not required, and more keys than are named may come. Field
names are those on the wire. docs/protocol.md says what the fields mean.
"""

import inspect
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from s2m3.schemas import topics
from s2m3.schemas.document import Document
from s2m3.schemas.ids import Id
from s2m3.schemas.messages import ErrorBody, StepTiming
from s2m3.schemas.preview import ModelList, TaskPreview
from s2m3.schemas.wire.codec import payload_models
from s2m3.schemas.wire.generation import Options

__all__ = ["PlainAnswer", "PlainPiece", "PlainRequest", "files", "schemas"]

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
Transaction = Annotated[str, Field(max_length=256)] | int | None


class PlainRequest(Document):
    """JSON on `request/<task>`. Values are texts, numbers, lists of these, and files as {"base64": …}."""

    inputs: dict[str, Any] | None = None
    transaction: Transaction = None
    deadline_s: float | None = Field(default=None, gt=0, le=86_400)
    options: Options | None = None
    stream: bool | None = None


class _Plain(Document):
    transaction: Transaction
    #: the request id, hexadecimal
    request: str = Field(pattern="^[0-9a-f]{32}$")


class _Last(_Plain):
    seq: int | None = Field(
        default=None, ge=0, description="where a stream was asked for: the number after the pieces'"
    )
    final: Literal[True] | None = Field(default=None, description="where a stream was asked for")
    ignored: list[str] | None = Field(default=None, description="what of the request was not known, and passed over")


class PlainResult(_Last):
    """The answer to a plain request."""

    status: Literal["ok"]
    answer: Any
    outputs: dict[str, Any]
    latency_ms: float = Field(ge=0)
    attempts: int = Field(ge=1)
    #: the model that answered, and its place among the models of the task: 0 for the best
    model: str | None = None
    rank: int | None = Field(default=None, ge=0)
    steps: dict[Id, StepTiming]


class PlainFailure(_Last):
    """The error that a plain request ended with."""

    status: Literal["error"]
    error: ErrorBody


class PlainPiece(_Plain):
    """A part of a text that is being written: it replaces what is behind `at`."""

    status: Literal["piece"]
    seq: int = Field(ge=0)
    at: int = Field(ge=0)
    text: str
    final: Literal[False]


PlainAnswer = Annotated[PlainResult | PlainFailure, Field(discriminator="status")]


def _kinds() -> Iterator[tuple[str, Any]]:
    """Each document's name and type: of topics, of the plain door, in responses, and the payloads in msgpack."""
    yield from ((path.document.__name__, path.document) for path in topics.ALL if isinstance(path, topics.Topic))
    yield from (("PlainRequest", PlainRequest), ("PlainAnswer", PlainAnswer), ("PlainPiece", PlainPiece))
    yield from (("TaskPreview", TaskPreview), ("ModelList", ModelList))
    yield from payload_models().items()


class _Generator(GenerateJsonSchema):
    """Pydantic's, with the comments above the fields as descriptions, and without titles made of the fields' names."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002  # pydantic's signature
        return False

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        if found.get("default", ...) is None:  # readers and writers take null for left out
            del found["default"]
        return found

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        found = super().dict_schema(schema)
        if "patternProperties" in found:  # which says nothing of the keys that do not fit
            ((pattern, values),) = found.pop("patternProperties").items()
            found |= {"propertyNames": {"pattern": pattern}, "additionalProperties": values}
        return found

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found, cls = super().model_schema(schema), schema["cls"]
        found["title"] = cls.__name__.lstrip("_")
        found.pop("additionalProperties", None)  # specs are strict in files; what comes off the bus may have more keys
        for name, comment in _comments(cls):
            field = cls.model_fields[name]
            found["properties"][field.serialization_alias or field.alias or name].setdefault("description", comment)
        return found


def _comments(cls: type[BaseModel]) -> Iterator[tuple[str, str]]:
    """The `#:` comments above a model's fields, and those of its bases."""
    for kind in cls.__mro__:
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            for found in re.finditer(r"((?:^ +#: .*\n)+) +(\w+): ", inspect.getsource(kind), flags=re.MULTILINE):
                if found[2] in cls.model_fields:
                    yield found[2], " ".join(line.strip().removeprefix("#: ") for line in found[1].splitlines())


def schemas() -> dict[str, dict[str, Any]]:
    """Returns the JSON Schema of each document, by its name. Those that it holds are in its own `$defs`."""
    found = {}
    for name, kind in _kinds():
        schema = TypeAdapter(kind).json_schema(by_alias=True, mode="validation", schema_generator=_Generator)
        text = json.dumps(schema).replace('"_', '"').replace("/$defs/_", "/$defs/")  # private classes of the codec
        found[name] = {"$schema": _DIALECT, "$id": f"{name}.json", **json.loads(text), "title": name}
    return found


def files() -> dict[str, str]:
    """Returns the content of each file of docs/schema, by its name."""
    return {
        f"{name}.json": json.dumps(schema, indent=2, ensure_ascii=False) + "\n" for name, schema in schemas().items()
    }


def main(folder: Path) -> None:
    """Writes the files into a folder, and removes those of documents that are gone."""
    wanted = files()
    folder.mkdir(parents=True, exist_ok=True)
    for path in folder.glob("*.json"):
        if path.name not in wanted:
            path.unlink()
    for name, text in wanted.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
