"""The searches find on drawn sites what they found when that was recorded (tests/planner/recorded.py)."""

import json

import pytest

from tests.planner import recorded

pytestmark = pytest.mark.mutants_of("s2m3.planner.solving.")


@pytest.mark.parametrize("seed", recorded.SEEDS)
def test_what_a_search_finds_is_what_was_recorded(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    monkeypatch.setattr("s2m3.planner.solving.solve.is_available", lambda: False)  # HiGHS' ties are its release's
    written = json.loads(recorded.FILE.read_text(encoding="utf-8"))[str(seed)]
    found = recorded.found(seed)
    for what, value in written.items():
        assert found[what] == value, f"{what}; if that is meant: python -m tests.planner.recorded"
    assert found.keys() == written.keys()
