"""docs/reliability.md against the tests: each promise names tests that are there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
TEXT = (ROOT.parent / "docs" / "reliability.md").read_text()
PROMISED = TEXT.split("## Promised")[1].split("## Not promised")[0]
PROMISES = [p for p in PROMISED.split("\n\n") if p.startswith("**")]


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: re.sub(r"\W+", "-", p[2:50]))
def test_each_promise_names_a_test_that_holds_it(promise: str) -> None:
    held = re.findall(r"\btest_\w+\b(?!\.py)", promise)
    assert held
    files = re.findall(r"\b(\w+/test_\w+\.py)", promise)
    assert files
    tests = "".join((ROOT / name).read_text() for name in files)
    assert [name for name in held if f"def {name}(" not in tests] == []
