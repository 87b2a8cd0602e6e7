"""The demo: nine tasks on real inputs over three nodes, every answer checked, before and after a node is killed."""

import json
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from s2m3.broker.servers.launch import BrokerKind, find_mosquitto
from s2m3.client import Answer, Client
from s2m3.cluster import Cluster, require_installed, require_light
from s2m3.commands.tasks import add_task
from s2m3.schemas import extras
from s2m3.schemas import messages as m
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import NotReadyError, S2M3Error
from s2m3.snapshot import Site

__all__ = [
    "DEMO_NODES",
    "HOUSEHOLD",
    "HOUSE_NODES",
    "TASKS",
    "Case",
    "default_broker",
    "run",
    "sample",
    "shipped_cases",
]

#: Memory budgets of agents for the six tasks, MB: torch's runtime takes 410 to 450, their modules 264; any two nodes
#: can hold them all.
DEMO_NODES = {"pi": 665.0, "laptop": 680.0, "desktop": 672.0}
#: The same with the tasks of a household, whose modules take 312 more.
HOUSE_NODES = {"pi": 850.0, "laptop": 880.0, "desktop": 865.0}
#: The six tasks that share modules, and those that a household would choose.
TASKS = ("retrieval", "classification", "vqa", "transcription", "spoken-retrieval", "spoken-intent")
HOUSEHOLD = ("doorbell", "face", "speech")
_ALL = TASKS + HOUSEHOLD
#: Budgets of two agents without torch for the six tasks: either one can hold all their modules.
LIGHT_NODES = {"pi": 640.0, "hub": 640.0}
_READY_S = 180.0
_ASK_S = 30.0
_WIDTH = 150


@dataclass(frozen=True)
class Case:
    """One input of a task, and the expected outputs."""

    task: str
    inputs: Mapping[str, Any]
    expect: Mapping[str, Any]
    shown: str

    def wrong(self, answer: Answer) -> str | None:
        """Returns the difference from the expected outputs; None if there is none."""
        for name, wanted in self.expect.items():
            if answer.outputs.get(name) != wanted:
                return f"{name} is {answer.outputs.get(name)!r}, not {wanted!r}"
        return None


def sample(name: str) -> Path:
    """Returns the path of a shipped image or audio file."""
    return Path(str(files("s2m3").joinpath("samples", name)))


def shipped_cases() -> list[Case]:
    """Returns the demo's cases, from samples/expected.toml and samples/household.toml."""
    folder = sample("expected.toml").parent
    tables = [
        tomllib.loads((folder / f"{name}.toml").read_text(encoding="utf-8")) for name in ("expected", "household")
    ]
    return [
        Case(row["task"], _read(folder, row["inputs"]), row["expect"], _shown(row["inputs"]))
        for table in tables
        for row in table["case"]
    ]


def _read(folder: Path, inputs: Mapping[str, Any]) -> dict[str, Any]:
    def value(name: str, given: Any) -> Any:
        if isinstance(given, list):
            return [value(name, item) for item in given]
        return folder / given if name in ("image", "audio") else given

    return {name: value(name, given) for name, given in inputs.items()}


def _shown(inputs: Mapping[str, Any]) -> str:
    return " + ".join(
        f"{len(given)} {name}s" if isinstance(given, list) else str(given) for name, given in inputs.items()
    )


@dataclass(frozen=True)
class _Row:
    case: Case
    answer: Answer | None
    problem: str | None


@dataclass
class _Results:
    """The results so far."""

    console: Console
    cases: list[Case]
    tasks: Sequence[str]
    rows: list[_Row] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)
    first_s: float = 0.0
    replaced_s: float = 0.0

    @property
    def good(self) -> bool:
        return all(row.problem is None for row in self.rows)


def default_broker() -> BrokerKind:
    """Returns the kind of the demo's broker: the embedded one, or Mosquitto if only that is installed."""
    return "mosquitto" if extras.missing("broker") and find_mosquitto() is not None else "embedded"


def run(kind: BrokerKind, *, as_json: bool, verbose: bool, light: bool = False) -> bool:
    """Runs the demo and prints its results.

    Args:
        kind: The broker.
        as_json: Whether to print a JSON summary on stdout, and everything else on stderr.
        verbose: Whether agents and planner log everything.
        light: Whether two agents without torch show the six tasks, with a bridge beside them.

    Returns:
        Whether every answer was right, before and after the kill.

    Raises:
        NotInstalledError: A required package is not installed; nothing was started.
    """
    if light:
        require_light("the demo", kind)
    else:
        require_installed("the demo", ["agent"], kind)
    tasks, nodes = (TASKS, LIGHT_NODES) if light else (_ALL, HOUSE_NODES)
    cases = [case for case in shipped_cases() if case.task in tasks]
    state = _Results(Console(stderr=as_json, width=None if as_json else _width()), cases, tasks)
    began = time.monotonic()
    with (
        Cluster(
            nodes, kind=kind, threads=1, verbose=verbose, bridge=light, runtime="onnx" if light else None
        ) as cluster,
        Site(cluster.settings) as site,
        Client(settings=cluster.settings) as client,
    ):
        for task in tasks:
            add_task(site, task, m.TaskSpec(model=task, deadline_s=_ASK_S))
        _wait_ready(site, cluster, tasks)
        ready_s = time.monotonic() - began
        state.console.print(
            f"{kind} broker, planner, {len(nodes)} agents; {len(tasks)} tasks ready after {ready_s:.1f} s"
        )
        _ask_all(state, client, "asked")
        state.memory = _memory(site, tasks)
        state.console.print(_memory_line(state.memory))
        _kill_one(state, cluster, site, client)
    seconds = time.monotonic() - began
    right = sum(row.problem is None for row in state.rows)
    state.console.print(f"{right} of {len(state.rows)} answers right, in {seconds:.0f} s")
    if as_json:
        print(json.dumps(_summary(state, seconds)))  # noqa: T201  # the command's answer
    return state.good


def _width() -> int:
    """Returns the console's width, or enough for the table if the output is a file or a pipe."""
    return max(Console().width, _WIDTH)


def _kill_one(state: _Results, cluster: Cluster, site: Site, client: Client) -> None:
    """Kills the node that holds most, sends a request that needs one of its modules, and then all requests."""
    victim = _victim(site)
    held = sorted(site.reported[victim].modules)
    state.console.print(f"\nkill -9 of the agent on {victim}, which holds {', '.join(held)}")
    killed = time.monotonic()
    cluster.kill(victim)
    first = _ask(client, _case_through(state.cases, site, held))
    state.rows.append(first)
    state.first_s = time.monotonic() - killed
    _wait_ready(site, cluster, state.tasks)
    state.replaced_s = time.monotonic() - killed
    state.console.print(
        f"an answer that needed one of them: {state.first_s:.1f} s after the kill ({first.problem or 'right'}); "
        f"all tasks ready again: {state.replaced_s:.1f} s"
    )
    _ask_all(state, client, f"asked again, without {victim}")


def _ask_all(state: _Results, client: Client, title: str) -> None:
    rows = [_ask(client, case) for case in state.cases]
    state.rows += rows
    state.console.print(_table(rows, title))


def _summary(state: _Results, seconds: float) -> dict[str, Any]:
    return {
        "right": state.good,
        "seconds": round(seconds, 1),
        "first_answer_after_kill_s": round(state.first_s, 2),
        "replaced_s": round(state.replaced_s, 2),
        "memory": state.memory,
        "rows": [_row_json(row) for row in state.rows],
    }


def _wait_ready(site: Site, cluster: Cluster, tasks: Sequence[str]) -> None:
    deadline = time.monotonic() + _READY_S
    while not site.wait(lambda s: all(s.ready(task) for task in tasks), 0.5):
        cluster.check()
        if time.monotonic() > deadline:
            missing = [task for task in tasks if not site.ready(task)]
            why = {task: doc.error.detail for task, doc in site.routes.items() if doc.error}
            raise NotReadyError(f"after {_READY_S:g} s not ready: {', '.join(missing)}{_reasons(why)}")


def _reasons(why: Mapping[str, str]) -> str:
    return "".join(f"; {task}: {detail}" for task, detail in why.items())


def _ask(client: Client, case: Case) -> _Row:
    try:
        answer = client.ask(case.task, deadline_s=_ASK_S, **case.inputs)
    except S2M3Error as error:
        return _Row(case, None, str(error))
    return _Row(case, answer, case.wrong(answer))


def _victim(site: Site) -> str:
    """Returns the node with the most bytes of modules."""
    return max(site.reported, key=lambda node: sum(r.bytes for r in site.reported[node].modules.values()))


def _case_through(cases: list[Case], site: Site, modules: list[str]) -> Case:
    """Returns a case whose task uses one of the modules."""
    models = shipped_catalogue().models
    return next(c for c in cases if set(models[site.tasks[c.task].model].module_ids) & set(modules))


def _memory(site: Site, tasks: Sequence[str]) -> dict[str, float]:
    """Returns the bytes of loaded weights, with one copy per module, and with one copy per task that uses it."""
    held = [(name, r.bytes) for reported in site.reported.values() for name, r in reported.modules.items()]
    loaded = dict(held)
    models = shipped_catalogue().models
    separate = sum(loaded[module] for task in tasks for module in models[task].module_ids)
    shared = sum(loaded.values())
    return {
        "shared_bytes": shared,
        "separate_bytes": separate,
        "saved_percent": 100 * (1 - shared / separate),
        "spare_copies_bytes": sum(size for _, size in held) - shared,
    }


def _memory_line(memory: Mapping[str, float]) -> str:
    shared, separate, spare = (memory[f"{name}_bytes"] / 1e6 for name in ("shared", "separate", "spare_copies"))
    return (
        f"weights, as loaded: {shared:.1f} MB with modules shared, {separate:.1f} MB with a copy for each task: "
        f"{memory['saved_percent']:.1f} % saved (spare memory holds {spare:.1f} MB of second copies)"
    )


def _table(rows: list[_Row], title: str) -> Table:
    table = Table("task", "input", "answer", "step:node", "ms", "", title=title, title_justify="left", box=box.SIMPLE)
    for row in rows:
        if row.answer is None:
            table.add_row(row.case.task, row.case.shown, row.problem, "", "", Text("wrong", style="red"))
            continue
        nodes = " ".join(f"{step}:{node}" for step, node in row.answer.route.items())
        mark = Text("right", style="green") if row.problem is None else Text(row.problem, style="red")
        table.add_row(row.case.task, row.case.shown, str(row.answer.value), nodes, f"{row.answer.latency_ms:.0f}", mark)
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
