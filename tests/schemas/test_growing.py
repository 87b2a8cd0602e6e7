"""Readers are tolerant, files are strict: unknown keys at each level, values in each list.

The documents and the places in them are found by walking the models, so that a later one is covered too.
"""

import importlib
import json
import pkgutil
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

import s2m3.schemas
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.document import Document
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.preview import ModelList, TaskPreview
from s2m3.schemas.specs import ModuleSpec
from tests.schemas.growing import Path, at, closed_lists, full, levels, models_in, without

#: Documents in the `data` of a ControlResponse, read as those of topics are.
IN_RESPONSES = [topics.Topic(f"data: {model.__name__}", "", document=model) for model in (TaskPreview, ModelList)]
DOCUMENTS: list[topics.Topic[Any]] = [*(p for p in topics.ALL if isinstance(p, topics.Topic)), *IN_RESPONSES]
LEVELS = [(topic, path) for topic in DOCUMENTS for path in levels(topic.document, full(topic.document))]
LISTS = [(topic, path) for topic in DOCUMENTS for path in closed_lists(topic.document, full(topic.document))]
_NEWER = "a-newer-value"
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=5,
)


def named(case: Any) -> str | None:
    if isinstance(case, topics.Topic):
        return case.pattern
    return ".".join(map(str, case)) or "top" if isinstance(case, tuple) else None


def read_back(topic: topics.Topic[Any], document: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(topic.decode(json.dumps(document).encode()).encode())
    return found


@pytest.mark.parametrize(("topic", "path"), LEVELS, ids=named)
@settings(max_examples=15)
@given(key=st.text(max_size=12).map(lambda text: f"new-{text}"), value=json_values)
def test_a_document_is_read_with_an_unknown_key_at_each_level(
    topic: topics.Topic[Any], path: Path, key: str, value: Any
) -> None:
    document = full(topic.document)
    expected = read_back(topic, document)
    at(document, path)[key] = value
    assert read_back(topic, document) == expected


@pytest.mark.parametrize(("topic", "path"), LISTS, ids=named)
@pytest.mark.parametrize("value", [_NEWER, "unknown", 7, {"of": "a newer shape"}], ids=str)
def test_an_unknown_value_of_a_closed_list_excludes_only_what_it_is_about(
    topic: topics.Topic[Any], path: Path, value: object
) -> None:
    document = full(topic.document)
    expected = read_back(topic, document)
    at(document, path[:-1])[path[-1]] = value
    found = topic.decode(json.dumps(document).encode())
    unit = strict_unit(topic.document, path)
    if unit is None:
        at(expected, path[:-1])[path[-1]] = "unknown"
    else:
        without(expected, unit)
        assert found.unreadable, "what is excluded is said, with the reason"
    assert json.loads(found.encode()) == expected


def strict_unit(model: type[BaseModel], path: Path) -> Path | None:
    """Returns the place of the spec that a place is in: a module of a plan, the definition of a task."""
    for depth in range(len(path)):
        document = full(model)
        at(document, path[:depth])  # it is there
        if any(where == path[:depth] for where in _strict_levels(model, document)):
            return path[:depth]
    return None


def _strict_levels(model: type[BaseModel], document: dict[str, Any]) -> list[Path]:
    """Where a document's keys are those of a spec: strict in a user's files."""
    found = []
    for path in levels(model, document):
        changed = deepcopy(document)
        at(changed, path)["a-misspelt-key"] = 1
        try:
            model.model_validate(changed)
        except ValidationError:
            found.append(path)
    return found


def documents_of_the_package() -> Iterator[type[Document]]:
    for found in pkgutil.walk_packages(s2m3.schemas.__path__, "s2m3.schemas."):
        if found.name != "s2m3.schemas.json_schema":  # describes plain payloads, which schemas/wire/plain.py reads
            module = importlib.import_module(found.name)
            kinds = (value for value in vars(module).values() if isinstance(value, type))
            yield from (kind for kind in kinds if issubclass(kind, Document) and kind.__module__ == found.name)


def test_no_document_is_left_out() -> None:
    """A later document that no topic carries is to be added to those above, with how it is read."""
    walked = {model for topic in DOCUMENTS for model in models_in(topic.document)}
    assert set(documents_of_the_package()) - {Document} <= walked


def test_the_walk_finds_the_documents_their_levels_and_their_lists() -> None:
    """A walk that found nothing would show nothing."""
    levels_of_plan = {path for topic, path in LEVELS if topic is topics.PLAN}
    assert {(), ("modules", 0), ("modules", 1), ("modules", 0, "also", 0)} <= levels_of_plan
    assert ("steps", "x1", "replicas", 0) in {path for topic, path in LEVELS if topic is topics.ROUTE}
    lists = {(topic.pattern, path) for topic, path in LISTS}
    assert ("plan/{node}", ("modules", 0, "role")) in lists
    assert ("plan/{node}", ("modules", 0, "inputs", "x1")) in lists
    assert ("node/{node}/profile", ("dtype",)) in lists
    assert ("task/{task}", ("definition", "modules", 0, "dtype")) in lists
    assert ("route/{task}", ("inputs", "x1")) in lists
    assert strict_unit(m.Plan, ("modules", 1, "role")) == ("modules", 1)
    assert strict_unit(m.TaskSpec, ("definition", "modules", 0, "role")) == ("definition",)
    assert strict_unit(m.RouteDoc, ("inputs", "x1")) is None


def test_a_module_that_cannot_be_read_at_all_excludes_itself() -> None:
    modules = [full(ModuleSpec), {"id": "wrong", "memory_mb": "much"}, "no module", {"id": "../x"}, {"id": [1]}, {}]
    plan = topics.PLAN.decode(json.dumps({"epoch": 1, "revision": 2, "modules": modules, "fronts": ["t"]}).encode())
    assert [spec.id for spec in plan.modules] == ["x1"]
    assert plan.unreadable.keys() == {"wrong"}
    assert plan.gateways == ["t"]


def test_what_a_plan_says_itself_still_has_to_be_right() -> None:
    with pytest.raises(BadInputError, match="epoch"):
        topics.PLAN.decode(b'{"epoch": -1, "revision": 2, "modules": []}')
    with pytest.raises(BadInputError, match="modules"):
        topics.PLAN.decode(b'{"epoch": 1, "revision": 2, "modules": 5}')


@pytest.mark.parametrize("wrong", [{"colour": "red"}, {"role": "hologram"}, {"role": "unknown"}, {"dtype": "unknown"}])
def test_a_user_s_own_module_is_read_strictly(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModuleSpec.model_validate({**full(ModuleSpec), **wrong})
