"""What `s2m3 demo` does: six tasks on real inputs over three nodes, every answer checked, a node killed and replaced."""

import json
import time
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from broker.launch import BrokerKind
from s2m3.client import Answer, Client
from s2m3.cluster import Cluster
from s2m3.snapshot import Site
from s2m3.tasks import add_task
from schemas import messages as m
from schemas.definitions import shipped_catalogue
from schemas.errors import NotReadyError, S2M3Error

__all__ = ["DEMO_NODES", "TASKS", "Case", "run", "shipped_cases"]

#: Budgets of the whole agent process, in MB: a runtime with torch takes about 400, so no node can hold all modules.
DEMO_NODES = {"pi": 560.0, "laptop": 720.0, "desktop": 660.0}
TASKS = ("retrieval", "classification", "vqa", "transcription", "spoken-retrieval", "spoken-intent")
_READY_S = 90.0
_ASK_S = 30.0


@dataclass(frozen=True)
class Case:
    """One input of a task, and what must come out."""

    task: str
    inputs: Mapping[str, Any]
    expect: Mapping[str, Any]
    shown: str

    def wrong(self, answer: Answer) -> str | None:
        """Returns what is not as expected; None when all is."""
        for name, wanted in self.expect.items():
            if answer.outputs.get(name) != wanted:
                return f"{name} is {answer.outputs.get(name)!r}, not {wanted!r}"
        return None


def shipped_cases() -> list[Case]:
    """Returns the demo's cases: samples/expected.toml."""
    folder = Path(str(files("s2m3").joinpath("samples")))
    table = tomllib.loads((folder / "expected.toml").read_text(encoding="utf-8"))
    return [
        Case(row["task"], _read(folder, row["inputs"]), row["expect"], ", ".join(_flat(row["inputs"]))[:60])
        for row in table["case"]
    ]


def _read(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    def value(name: str, given: Any) -> Any:
        if isinstance(given, list):
            return [value(name, item) for item in given]
        return folder / given if name in ("image", "audio") else given

    return {name: value(name, given) for name, given in inputs.items()}


def _flat(inputs: Mapping[str, Any]) -> Iterator[str]:
    for given in inputs.values():
        yield from given if isinstance(given, list) else [str(given)]


@dataclass(frozen=True)
class _Row:
    case: Case
    answer: Answer | None
    problem: str | None


def run(kind: BrokerKind, *, as_json: bool, verbose: bool) -> bool:
    """Runs the demo and prints what happened.

    Returns:
        Whether every answer was right, before and after the kill.
    """
    console = Console(stderr=as_json)
    cases = shipped_cases()
    began = time.monotonic()
    with Cluster(DEMO_NODES, kind=kind, threads=1, verbose=verbose) as cluster:
        with Site(cluster.settings) as site, Client(settings=cluster.settings) as client:
            for task in TASKS:
                add_task(site, task, m.TaskSpec(model=task, deadline_s=_ASK_S))
            _wait_ready(site, cluster)
            console.print(
                f"{kind} broker, planner and {len(DEMO_NODES)} agents; six tasks ready after "
                f"{time.monotonic() - began:.1f} s"
            )
            rows = [_ask(client, case) for case in cases]
            memory = _memory(site)
            console.print(_table(rows, "asked"))
            console.print(_memory_line(memory))
            victim = _victim(site)
            moved = sorted(site.reported[victim].modules)
            console.print(f"\nkill -9 of the agent on {victim}, which holds {', '.join(moved)}")
            killed = time.monotonic()
            cluster.kill(victim)
            first = _ask(client, _case_through(cases, site, moved))
            first_s = time.monotonic() - killed
            _wait_ready(site, cluster)
            ready_s = time.monotonic() - killed
            console.print(
                f"first answer that needed one of them: {first_s:.1f} s after the kill"
                f" ({first.problem or 'right'}); all tasks ready again: {ready_s:.1f} s"
            )
            again = [_ask(client, case) for case in cases]
            console.print(_table(again, f"asked again, without {victim}"))
    rows = [*rows, first, *again]
    good = all(row.problem is None for row in rows)
    seconds = time.monotonic() - began
    console.print(f"{sum(row.problem is None for row in rows)} of {len(rows)} answers right, in {seconds:.0f} s")
    if as_json:
        summary = {"right": good, "seconds": seconds, "first_answer_after_kill_s": first_s, "replaced_s": ready_s}
        print(json.dumps({**summary, "memory": memory, "rows": [_row_json(row) for row in rows]}))  # noqa: T201
    return good


def _wait_ready(site: Site, cluster: Cluster) -> None:
    deadline = time.monotonic() + _READY_S
    while not site.wait(lambda s: all(s.ready(task) for task in TASKS), 0.5):
        cluster.check()
        if time.monotonic() > deadline:
            missing = [task for task in TASKS if not site.ready(task)]
            why = {task: doc.error.detail for task, doc in site.routes.items() if doc.error}
            raise NotReadyError(f"after {_READY_S:g} s not ready: {', '.join(missing)} {why or ''}")


def _ask(client: Client, case: Case) -> _Row:
    try:
        answer = client.ask(case.task, deadline_s=_ASK_S, **case.inputs)
    except S2M3Error as error:
        return _Row(case, None, str(error))
    return _Row(case, answer, case.wrong(answer))


def _victim(site: Site) -> str:
    """The node with the most bytes of modules: the hardest to do without."""
    return max(site.reported, key=lambda node: sum(r.bytes for r in site.reported[node].modules.values()))


def _case_through(cases: list[Case], site: Site, modules: list[str]) -> Case:
    """A case whose task uses one of the modules."""
    models = shipped_catalogue().models
    return next(c for c in cases if set(models[site.tasks[c.task].model].module_ids) & set(modules))


def _memory(site: Site) -> dict[str, float]:
    """Bytes of weights as loaded: one copy of each module, against one copy for each task that uses it."""
    loaded = {name: r.bytes for reported in site.reported.values() for name, r in reported.modules.items()}
    models = shipped_catalogue().models
    separate = sum(loaded[module] for task in TASKS for module in models[task].module_ids)
    shared = sum(r.bytes for reported in site.reported.values() for r in reported.modules.values())
    return {"shared_bytes": shared, "separate_bytes": separate, "saved_percent": 100 * (1 - shared / separate)}


def _memory_line(memory: Mapping[str, float]) -> str:
    return (
        f"weights held: {memory['shared_bytes'] / 1e6:.1f} MB shared; with its own copy for each task "
        f"{memory['separate_bytes'] / 1e6:.1f} MB; saved {memory['saved_percent']:.1f} %"
    )


def _table(rows: list[_Row], title: str) -> Table:
    table = Table("task", "input", "answer", "nodes", "ms", "", title=title, title_justify="left")
    for row in rows:
        if row.answer is None:
            table.add_row(row.case.task, row.case.shown, row.problem, "", "", "[red]wrong[/red]")
            continue
        nodes = ", ".join(f"{step}:{node}" for step, node in row.answer.route.items())
        mark = "[green]right[/green]" if row.problem is None else f"[red]{row.problem}[/red]"
        value = str(row.answer.value)
        table.add_row(row.case.task, row.case.shown, value, nodes, f"{row.answer.latency_ms:.0f}", mark)
    return table


def _row_json(row: _Row) -> dict[str, Any]:
    answer = row.answer
    return {
        "task": row.case.task,
        "input": row.case.shown,
        "answer": answer.value if answer else None,
        "nodes": dict(answer.route) if answer else {},
        "latency_ms": round(answer.latency_ms, 1) if answer else None,
        "problem": row.problem,
    }
