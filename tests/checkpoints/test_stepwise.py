"""Texts whose steps transformers prepares begin, advance and end at any time; what one says is what it says alone."""

from pathlib import Path
from typing import Any

import pytest

from s2m3.schemas.wire.generation import Options
from tests.checkpoints.inprocess import loaded, run_module
from tests.families.family import definition
from tests.families.table import FAMILIES
from tests.zoo.samples import sample

ROWS = {family.name: family for family in FAMILIES}
#: Positions in three dimensions, windows, convolutions, cross-attention: one after another. The last two share a batch.
NAMES = ["qwen2-5-vl", "gemma3-text", "lfm2", "florence-2", "llama", "internvl"]
TEXTS = ["what is this", "who sits on the red mat", "two"]
GREEDY, DRAWN = Options(), Options(temperature=1.5, seed=7)


def started(folder: Path, name: str) -> tuple[Any, list[Any]]:
    """The module that writes, and an item of each text."""
    (folder / name).mkdir()
    ROWS[name].make(folder / name)
    modules = [loaded(folder, spec) for spec in definition(folder / name).modules]
    writer, given = modules[-1], {}
    if len(modules) > 1:
        given = run_module(modules[0], {"image": [sample("chelsea.jpg")]}, "features")
    return writer, [writer.prepare({**given, "text": text}) for text in TEXTS]


def alone(writer: Any, item: Any, options: Options, tokens: int) -> list[int]:
    row = writer.begin(item, options)
    while not row.ended and len(row.tokens) < tokens:
        writer.advance([row])
    writer.drop([row])
    found: list[int] = row.tokens
    return found


@pytest.mark.parametrize("options", [GREEDY, DRAWN], ids=["greedy", "drawn"])
@pytest.mark.parametrize("name", NAMES)
def test_what_a_text_says_does_not_depend_on_those_beside_it(tmp_path: Path, name: str, options: Options) -> None:
    writer, items = started(tmp_path, name)
    wanted = [alone(writer, item, options, 8) for item in items]
    assert len({tuple(tokens) for tokens in wanted}) > 1
    rows = [writer.begin(items[0], options)]
    for step in range(12):
        if step == 2:
            rows.append(writer.begin(items[1], options))
            dropped = writer.begin(items[2], options)
        if step == 4:
            writer.drop([dropped])
            rows.append(writer.begin(items[2], options))
        active = [row for row in rows if not row.ended]
        writer.advance(active + ([dropped] if 2 <= step < 4 and not dropped.ended else []))
        writer.drop([row for row in active if row.ended])
    for row, tokens in zip(rows, wanted, strict=True):
        assert row.tokens[: len(tokens)] == tokens


def test_a_seed_decides_what_is_drawn(tmp_path: Path) -> None:
    writer, items = started(tmp_path, "qwen2-5-vl")
    said = [alone(writer, items[0], Options(temperature=1.5, seed=seed), 8) for seed in (1, 1, 2, 3)]
    assert said[0] == said[1]
    assert len({tuple(tokens) for tokens in said}) > 1
