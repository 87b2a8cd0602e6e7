"""What benchmarks print and keep: the report page, tables, ratios, and inputs that no cache has seen."""

import json
import os
import re
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

import psutil
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


def test_every_benchmark_on_the_report_page_keeps_command_machine_and_date_where_the_page_looks(bench: Any) -> None:
    scripts = [ROOT / part.words[0] for part in bench("report").PARTS.values() if part.words[0].endswith(".py")]
    kept = {path.stem for path in scripts if re.search(r'"measured"\]?( =|:) measured_on\(', path.read_text())}
    assert kept == {path.stem for path in scripts} != set()


def test_every_option_that_documents_give_to_a_benchmark_is_one_of_its_own() -> None:
    benches = sorted((ROOT / "bench").glob("*.py"))
    options = {path.name: set(re.findall(r'add_argument\(\s*"(--[\w-]+)"', path.read_text())) for path in benches}
    papers = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "Makefile", *(ROOT / "docs").rglob("*.md"), *benches]
    wrong = [
        (path.name, name, option)
        for path in papers
        for name, words in re.findall(r"bench/(\w+\.py)((?: [^`;#|\n)]*)?)", path.read_text(encoding="utf-8"))
        for option in re.findall(r"(?<![\w-])--[a-z][\w-]*", words)
        if option not in options[name]
    ]
    assert wrong == []


def test_a_benchmark_that_fails_is_told_and_one_without_a_new_record_has_todays(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    report = bench("report")
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    record = {"measured": {"seeds": [7]}}
    writes = f"import pathlib; pathlib.Path({str(tmp_path / 'bus.json')!r}).write_text({json.dumps(record)!r})"
    assert report.run("bus", report.Part("The bus", ("-c", writes)))["measured"] == record["measured"]
    os.utime(tmp_path / "bus.json", (1, 1))
    failed = report.run("bus", report.Part("The bus", ("-c", "print('so far'); raise SystemExit('why')")))
    assert (failed["code"], failed["printed"], failed["failed"]) == (1, "so far\n", "why\n")
    assert {"command", "date", "machine", "versions", "python", "seeds"} <= failed["measured"].keys()
    monkeypatch.setattr(report, "_MOST_S", 0.2)
    late = report.run("bus", report.Part("The bus", ("-c", "import threading; threading.Event().wait()")))
    assert (late["code"], late["failed"]) == (124, "ended after 0.2 s")


def test_the_page_says_machine_date_seeds_and_what_failed(bench: Any) -> None:
    report = bench("report")
    measured = {**bench("tables").measured_on([7]), "date": "2026-01-02T03:04:05Z"}
    assert {"command", "date", "machine", "versions", "python", "seeds"} <= measured.keys()
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
    assert bench("peers").table({"torch": rounds["torch"]}).rows == [["ms", 16.0, None]]
    assert bench("peers").table({}).rows == []


def test_a_peer_that_does_not_start_leaves_no_process(
    bench: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    peers = bench("peer_servers.peers")
    monkeypatch.setattr(peers, "_READY_S", 0.0)
    peer = peers.FastApi(tmp_path, tmp_path, None)
    with pytest.raises(RuntimeError, match="not ready after 0 s"):
        peer.__enter__()
    with pytest.raises(psutil.NoSuchProcess):
        peer.roots()


def test_no_two_requests_are_equal_and_a_run_can_be_repeated(bench: Any) -> None:
    inputs_of = bench("peer_servers.inputs").inputs_of
    for task in ("retrieval", "classification", "transcription"):
        asked = list(islice(inputs_of(task, "latency"), 20))
        assert asked == list(islice(inputs_of(task, "latency"), 20))
        assert len({one.file for one in asked}) == 20
