"""Every family of checkpoints, split over two agents on a real broker, answers as transformers does with the whole."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from tests.checkpoints.inprocess import run_all
from tests.families.conftest import checkpoint, serve
from tests.families.document import documented, row
from tests.families.family import Family, altered, definition
from tests.families.table import FAMILIES
from tests.zoo.test_against_whole import assert_same


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_a_family_answers_as_the_whole_model(site: Cluster, client: Client, folder: Path, family: Family) -> None:
    source = checkpoint(folder, family)
    served = serve(site, family.name, source, family.options)
    with torch.inference_mode():
        expected = [family.whole(source, inputs) for inputs in family.asks]
    assert not _same(expected[0], expected[1]), "the requests of a row have to differ in their answers"
    for inputs, wanted in zip(family.asks, expected, strict=True):
        answer = client.ask(family.name, **inputs)
        assert_same({name: answer.outputs[name] for name in wanted}, wanted)
        assert len(set(answer.route.values())) == min(2, len(served.modules))
    _overlapping(client, family, expected)
    assert row(family, source) in documented(), "python -m tests.families.document"


def _overlapping(client: Client, family: Family, expected: list[dict[str, Any]]) -> None:
    """Four requests at once: what one is answered does not depend on the others."""
    turns = [number % len(family.asks) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda turn: client.ask(family.name, **family.asks[turn]).outputs, turns))
    for turn, outputs in zip(turns, answers, strict=True):
        assert_same({name: outputs[name] for name in expected[turn]}, expected[turn])


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_an_altered_tensor_of_any_part_changes_the_answer(folder: Path, family: Family) -> None:
    source = checkpoint(folder, family)
    with torch.inference_mode():
        wanted = family.whole(source, family.asks[0])
        for name, part in architecture_of(read_checkpoint(source).config).parts.items():
            changed = altered(source, list(part.names(read_checkpoint(source).tensors)))
            values = run_all(folder, definition(changed, family.options), family.asks[0])
            answer = {out: values[f"{step}.{out}"] for step, out in _answered(changed, family) if out in wanted}
            assert not _same(answer, wanted), f"the answer does not depend on {name}"


def _answered(folder: Path, family: Family) -> list[tuple[str, str]]:
    model = definition(folder, family.options).model
    places = {name: step for step in model.steps for name in model.wanted_outputs(step)}
    return [(places[name], name) for name in model.answer]


def _same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    try:
        assert_same(one, other)
    except AssertionError:
        return False
    return True


def test_the_document_has_the_rows_of_the_table_and_no_others() -> None:
    assert [line.split(" | ")[0].removeprefix("| ") for line in documented()] == [family.name for family in FAMILIES]
