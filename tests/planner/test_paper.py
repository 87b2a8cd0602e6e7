"""bench/paper.py and docs/paper.md: equal to each other, to a brute force, and to what processes hold."""

import json
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from s2m3.planner.solving.integer_program import is_available
from s2m3.planner.solving.solve import solve
from s2m3.schemas import extras
from tests.planner import naive

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "paper.md").read_text(encoding="utf-8")
#: Most placements that the brute force tries for one instance.
_MOST_PLACEMENTS = 250
needs_highs = pytest.mark.skipif(not is_available(), reason="highspy is not installed")


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of bench by name."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return import_module


def _rows(table: Any) -> list[str]:
    return str(table.markdown()).splitlines()[2:]


@needs_highs
def test_the_page_shows_what_the_bench_computes_now(bench: Any) -> None:
    tables = bench("paper_tables")
    measured, _ = bench("paper").measured_sharing()
    some = tables.latency(["retrieval-rn50", "vqa-phi-3"])
    for table in (some, tables.by_task(), tables.split(), tables.sharing(measured), tables.memory()):
        assert [row for row in _rows(table) if row not in PAGE] == []
        listed = (ROOT / "docs" / "paper" / f"{table.name}.csv").read_text(encoding="utf-8").splitlines()
        assert [line for line in table.csv().splitlines() if line not in listed] == []


def test_every_figure_and_file_that_the_page_shows_is_there() -> None:
    linked = re.findall(r"\]\((paper/[\w.-]+)\)", PAGE)
    assert len(linked) >= 6
    for name in linked:
        drawn = (ROOT / "docs" / name).read_text(encoding="utf-8")
        assert "prefers-color-scheme: dark" in drawn
        assert (ROOT / "docs" / name).with_suffix(".png").exists()


def test_the_greedys_share_and_the_optimum_are_what_a_brute_force_finds(bench: Any) -> None:
    """All placements and all routes of the small ones of the 95 instances, in exact fractions."""
    paper = bench("paper_models")
    tried = shared = optimal = 0
    for _, instance in paper.paper_like():
        if len(instance.devices) ** len(instance.modules) > _MOST_PLACEMENTS:
            continue
        best = naive.best_objective_s(instance)
        exact = solve(instance, budget_s=60.0)
        assert best is not None
        assert exact.objective_s == pytest.approx(best, rel=1e-9)
        greedy = solve(instance, method="greedy").objective_s
        assert greedy >= best * (1 - 1e-9)
        optimal += greedy <= best * (1 + 1e-9)
        shared += greedy <= exact.objective_s * (1 + 1e-9)
        tried += 1
    assert tried >= 30
    assert optimal == shared


def test_the_counted_memory_is_what_processes_hold(bench: Any) -> None:
    """docs/paper/sharing.json is what `bench/sharing.py` measured; buffers and biases beside the weights are 0.1 %."""
    measured, _ = bench("paper").measured_sharing()
    shared, apart = bench("paper_claims").sharing_mb()
    assert shared == pytest.approx(measured["shared"], rel=0.002)
    assert apart == pytest.approx(measured["a copy for each task"], rel=0.002)
    by_module = json.loads((ROOT / "docs" / "paper" / "sharing.json").read_text(encoding="utf-8"))["shared"]["modules"]
    held = {name.split(" on ")[0][:11]: size for name, size in by_module.items()}
    counted = bench("paper_claims").counted_mb()
    assert held["clip-vision"] == pytest.approx(counted["image"], rel=0.002)
    assert held["head-encode"] == pytest.approx(counted["head-encoder-vqa"], rel=0.002)


@pytest.mark.long
@needs_highs
@pytest.mark.skipif(bool(extras.missing("plot")), reason="matplotlib is not installed")
def test_the_whole_page_is_made_again_without_a_difference_but_its_date(tmp_path: Path) -> None:
    command = [sys.executable, "bench/paper.py", "--out", str(tmp_path)]
    subprocess.run(command, check=True, cwd=ROOT, timeout=560, capture_output=True)
    made = (tmp_path / "paper.md").read_text(encoding="utf-8")
    without_date = re.compile(r"on \d{4}-\d\d-\d\d, in minutes")
    assert without_date.sub("", made) == without_date.sub("", PAGE)
    for drawn in (tmp_path / "paper").glob("*.[cs]*"):
        assert drawn.read_text(encoding="utf-8") == (ROOT / "docs" / "paper" / drawn.name).read_text(encoding="utf-8")
