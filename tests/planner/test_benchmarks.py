"""What benchmarks print and keep: the report page, tables, ratios, and inputs that no cache has seen."""

import re
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a module of bench by name."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    return import_module


def test_every_benchmark_that_the_readme_names_is_on_the_report_page(bench: Any) -> None:
    report = bench("report")
    measured = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Measured")[2]
    named = set(re.findall(r"`python (bench/\w+\.py)`", measured))
    shown = {part.words[0] for part in report.PARTS.values()}
    assert named
    assert named <= shown
    assert all((ROOT / path).exists() for part in report.PARTS.values() for path in (*part.figures, *named))


def test_the_page_says_machine_date_seeds_and_what_failed(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    report = bench("report")
    measured = {**bench("tables").measured_on([7]), "date": "2026-01-02T03:04:05Z"}
    assert {"command", "date", "machine", "versions", "python", "seeds"} <= measured.keys()
    monkeypatch.setattr(report, "_own_record", lambda _: measured)
    done = {"command": "x", "printed": "a < b", "failed": "", "code": 0, "seconds": 1.0, "measured": measured}
    page = report.page({"bus": done, "paper": done | {"code": 2, "failed": "why & where"}})
    assert page.count("2026-01-02T03:04:05Z; seeds 7") == 2
    assert "a &lt; b" in page
    assert "ended with 2" in page
    assert "why &amp; where" in page
    assert page.count("<svg") == 6


def test_a_table_is_markdown_and_csv_and_says_nothing_of_rounding_noise(bench: Any) -> None:
    table = bench("tables").Table("t", ["what", "a", "b"], [["x", 1234.567, None], ["y", 0.123456789, -2e-14]])
    assert table.markdown().splitlines()[2:] == ["| x | 1,235 | - |", "| y | 0.1235 | 0 |"]
    assert table.csv() == "what,a,b\nx,1234.57,\ny,0.123457,0\n"
    assert table.column("b") == [None, -2e-14]


def test_ratios_are_to_ours_in_the_same_round(bench: Any) -> None:
    rounds = {"ours": [{"ms": 10.0}, {"ms": 100.0}, {"ms": 20.0}], "torch": [{"ms": 5.0}, {"ms": 100.0}, {"ms": 16.0}]}
    table = bench("peers").table(rounds)
    assert table.rows == [["ms", 20.0, 1.0, 16.0, 0.8]]


def test_no_two_requests_are_equal_and_a_run_can_be_repeated(bench: Any) -> None:
    inputs_of = bench("peer_servers.inputs").inputs_of
    for task in ("retrieval", "classification", "transcription"):
        asked = list(islice(inputs_of(task, "latency"), 20))
        assert asked == list(islice(inputs_of(task, "latency"), 20))
        assert len({one.file for one in asked}) == 20
