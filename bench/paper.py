"""The paper's evaluation as one command: every table and figure of docs/paper.md, from placements alone.

Writes docs/paper.md, docs/paper/*.csv, *.svg and *.png, and bench/results/paper.json. The instances are an independent
construction, with every assumption printed: not a reproduction of the paper's numbers. Under 5 minutes on two cores.

Run: python bench/paper.py [--out docs]
"""

import argparse
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import paper_models as paper
import paper_page
import paper_tables
from tables import Table, measured_on

from s2m3 import figures

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "bench" / "results" / "paper.json"
#: What `python bench/sharing.py --json docs/paper/sharing.json` measured.
SHARING = ROOT / "docs" / "paper" / "sharing.json"


def measured_sharing() -> tuple[dict[str, float], str]:
    """Returns the tensors that processes held, MB, shared and with a copy for each task; and the day they did."""
    found = json.loads(SHARING.read_text(encoding="utf-8"))
    held = {kind: float(found[kind]["tensors_mb"]) for kind in ("shared", "a copy for each task")}
    return held, found["measured"]["date"][:10]


def make_tables() -> dict[str, Table]:
    """Returns all tables by name; says how long each took."""
    measured, _ = measured_sharing()
    makers: list[Callable[[], Table]] = [
        paper_tables.latency,
        paper_tables.by_task,
        paper_tables.split,
        lambda: paper_tables.sharing(measured),
        paper_tables.memory,
        paper_tables.per_device,
        paper_tables.optimal,
        paper_tables.sensitivity,
        paper_tables.load,
        paper_tables.churn,
    ]
    found = {}
    for make in makers:
        began = time.perf_counter()
        table = make()
        found[table.name] = table
        print(f"{table.name} ({time.perf_counter() - began:.1f} s)\n{table.markdown()}", flush=True)
    return found


def draw(tables: dict[str, Table], folder: Path) -> None:
    """Draws all figures into a folder, each as SVG and as PNG."""
    latency = tables["latency"]
    shown = [
        "on the asking board",
        "random",
        "cloud behind a WAN",
        "on the server",
        "greedy, compute",
        "ours (auto)",
        "ours, no server",
    ]
    panel = _panel(4.9)
    figures.dots(panel, _names(latency), {name: latency.column(name) for name in shown}, unit="mean latency, ms")
    _save(panel, folder, "latency")
    _bars(tables["split"], folder, ["full towers", "without the text token embedding"], "% less on the fullest device")
    _bars(tables["memory"], folder, ["a copy for each task", "shared"], "all devices, MB")
    shares = ["greedy, memory, %", "greedy, compute, %"]
    _bars(tables["sensitivity"], folder, shares, "optimal, % of instances")
    _bars(tables["churn"], folder, ["without, s"], "longest-hit task without an answer, s of a day")
    load = tables["load"]
    plans = list(load.columns[1:5])
    panel = _panel(2.8)
    across = {"across": "requests/s of each task", "unit": "mean latency, ms"}
    figures.lines(panel, _names(load), {name: load.column(name) for name in plans}, **across)
    _save(panel, folder, "load")


def _names(table: Table) -> list[Any]:
    return [row[0] for row in table.rows]


def _panel(height: float) -> Any:
    return figures.new_figure((height,))[1][0]


def _save(panel: Any, folder: Path, name: str) -> None:
    for suffix in (".svg", ".png"):
        figures.save(panel.figure, folder / f"{name}{suffix}")


def _bars(table: Table, folder: Path, columns: list[str], unit: str) -> None:
    panel = _panel(1.0 + 0.22 * len(table.rows) * (0.5 + 0.5 * len(columns)))
    figures.bars(panel, _names(table), {name: table.column(name) for name in columns}, unit=unit)
    _save(panel, folder, table.name)


def main() -> None:
    """Makes all tables and figures, and the page that shows them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of paper.md and paper/")
    given = parser.parse_args()
    folder = given.out / "paper"
    folder.mkdir(parents=True, exist_ok=True)
    figures.check_suffix(folder / "latency.svg")
    print("Assumed:", *paper.assumptions(), sep="\n  ")
    began = time.perf_counter()
    tables = make_tables()
    draw(tables, folder)
    for table in tables.values():
        (folder / f"{table.name}.csv").write_text(table.csv(), encoding="utf-8")
    _, day = measured_sharing()
    page = paper_page.page(tables, made=time.strftime("%Y-%m-%d"), measured=day)
    (given.out / "paper.md").write_text(page, encoding="utf-8")
    seconds = time.perf_counter() - began
    result = {"seconds": seconds, "measured": measured_on([paper_tables.SEED])}
    result["tables"] = {name: {"columns": list(t.columns), "rows": list(t.rows)} for name, t in tables.items()}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"{seconds:.0f} s; written to {given.out / 'paper.md'}, {folder} and {RESULTS}")


if __name__ == "__main__":
    main()
