"""The command `churn`: simulates devices that leave and join a site, offline, by the planner's own rules."""

import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from s2m3 import figures, logs
from s2m3.commands import options
from s2m3.commands.terminal import Listing, console
from s2m3.schemas.churn_trace import Trace, drawn_trace, load_trace
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.instance import Instance, load_instance

if TYPE_CHECKING:
    from s2m3.planner.solving.churn_record import ChurnResult

__all__ = ["churn"]

_DAY_S = 86_400.0
_HOUR_S = 3600.0


def churn(
    file: Annotated[Path, typer.Argument(help="devices, modules and tasks as JSON, as for `s2m3 plan`")],
    *,
    trace: Annotated[
        Path | None, typer.Option(help="JSON file of losses and joins; default: drawn from the rates")
    ] = None,
    lost_every: Annotated[float, typer.Option(help="mean seconds from a device's join to its loss")] = 2 * _HOUR_S,
    back_after: Annotated[float, typer.Option(help="mean seconds from a device's loss to its join")] = 600.0,
    until: Annotated[float, typer.Option(help="length of a drawn trace, seconds")] = _DAY_S,
    seed: Annotated[int, typer.Option(help="seed of a drawn trace")] = 0,
    policy: Annotated[str, typer.Option(help="policies to compare, separated by commas")] = "fixed,replan,copies",
    notice: Annotated[float, typer.Option(help="seconds from a loss or a join to the plan that follows")] = 0.3,
    load_mb_s: Annotated[float, typer.Option("--load-mb-s", help="MB a second at which a device loads")] = 100.0,
    write_trace: Annotated[Path | None, typer.Option(help="keep the drawn trace in this file")] = None,
    as_json: options.Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="print CSV, a row for each policy and task")] = False,
    plot: Annotated[Path | None, typer.Option(help="draw into this file: .svg, .png or .pdf")] = None,
    verbose: options.Verbose = False,
) -> None:
    """Simulate losses of devices: time without an answer, moves. `s2m3 churn home.json --lost-every 3600`.

    Each policy meets the same trace: `fixed` moves nothing, `replan` places again what was lost, `copies` also keeps
    second copies in spare memory.
    """
    logs.configure(verbose=verbose, quiet=True)
    if as_json and as_csv:
        raise BadInputError("either --json or --csv")
    if not (notice >= 0 and load_mb_s > 0 and math.isfinite(notice + load_mb_s)):
        raise BadInputError("--notice is at least 0, --load-mb-s above 0")
    if plot is not None:
        figures.check_suffix(plot)
    from s2m3.planner.solving.churn import POLICIES, Speeds, simulate_churn  # noqa: PLC0415  # slow to import

    wanted = [name.strip() for name in policy.split(",")]
    if unknown := [name for name in wanted if name not in POLICIES]:
        raise BadInputError(f"no policy {unknown[0]!r}; known are {', '.join(POLICIES)}")
    instance = _loaded(file)
    names = [device.id for device in instance.devices]
    if trace is not None:
        events = load_trace(trace, names)
    else:
        events = drawn_trace(names, until_s=until, lost_every_s=lost_every, back_after_s=back_after, seed=seed)
    if write_trace is not None:
        _write(events, write_trace)
    speeds = Speeds(notice_s=notice, load_mb_s=load_mb_s)
    found = [simulate_churn(instance, events, name, speeds) for name in POLICIES if name in wanted]
    if plot is not None:
        _draw(found, plot)
        typer.echo(f"drawn into {plot}", err=True)
    if as_json:
        typer.echo(json.dumps({"events": len(events.events), "policies": [result.to_json() for result in found]}))
    elif as_csv:
        _write_csv(found)
    else:
        _show(found, events)


def _loaded(file: Path) -> Instance:
    """Returns a file's instance, and says of stand-ins that they are not simulated."""
    instance = load_instance(file)
    if any(task.stand_ins for task in instance.tasks):
        typer.echo("stand-ins are left out: each task has its best model alone", err=True)
    return instance


def _write(events: Trace, path: Path) -> None:
    try:
        path.write_text(json.dumps(events.to_json(), indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"--write-trace: {error}") from error


def _rows(found: Sequence["ChurnResult"]) -> list[dict[str, Any]]:
    return [
        {"policy": result.policy, "task": task} | result.to_json()["tasks"][task]
        | {"plans": result.plans, "loads": result.loads, "unloads": result.unloads, "loaded_mb": result.loaded_mb}
        for result in found
        for task in result.tasks
    ]  # fmt: skip


def _write_csv(found: Sequence["ChurnResult"]) -> None:
    rows = _rows(found)
    names = list(rows[0]) if rows else ["policy"]
    writer = csv.DictWriter(sys.stdout, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _show(found: Sequence["ChurnResult"], events: Trace) -> None:
    lost = sum(event.kind == "lost" for event in events.events)
    numbers = ("answered", "without", "longest", "times", "latency")
    table = Listing("policy", "task", *numbers, numbers=numbers)
    for result in found:
        for name, task in result.tasks.items():
            latency = "-" if task.latency_s is None else f"{task.latency_s * 1000:.1f} ms"
            times = f"{task.without_s:.1f} s", f"{task.longest_s:.1f} s", str(task.interruptions)
            table.add_row(result.policy, name, f"{100 * task.availability:.3f} %", *times, latency)
    screen = console()
    screen.print(f"{lost} losses in {events.until_s:.0f} s")
    screen.print(table)
    for result in found:
        moved = f"{result.loads} loads ({result.loaded_mb:.0f} MB), {result.unloads} unloads"
        screen.print(f"{result.policy}: {moved}, {result.plans} plans")


def _draw(found: Sequence["ChurnResult"], path: Path) -> None:
    tasks = list(found[0].tasks)
    policies = [result.policy for result in found]
    heights = 1.1 + 0.14 * len(tasks) * (len(found) + 1), 1.0 + 0.25 * len(found)
    figure, (without, moved) = figures.new_figure(heights)
    values = {result.policy: [result.tasks[task].without_s for task in tasks] for result in found}
    figures.bars(without, tasks, values, unit=f"without an answer, s of {found[0].until_s:g}")
    figures.bars(moved, policies, {"loaded": [result.loaded_mb / 1000 for result in found]}, unit="loaded, GB")
    figures.save(figure, path)
