"""Plans as CSV and as figures: one plan, or many beside each other (`s2m3 plan --csv`, `--plot`)."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from s2m3 import figures
from s2m3.planner.solving.compare import Case

__all__ = ["draw", "write_csv"]

_COLUMNS = (
    "method",
    "task",
    "latency_s",
    "route",
    "joules",
    "joules_above_idle",
    "objective_s",
    "lower_bound_s",
    "proven_optimal",
    "memory_mb_most",
    "memory_mb_all",
    "solve_s",
    "error",
)


def write_csv(found: Sequence[Case], out: TextIO) -> None:
    """Writes one row for each case and task; a case that does not fit is one row with its error.

    The columns are the swept paths, those of `_COLUMNS`, and `memory_mb.DEVICE` for each device.
    """
    paths = list(found[0].values)
    devices = list(dict.fromkeys(device.id for case in found for device in case.instance.devices))
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*paths, *_COLUMNS, *(f"memory_mb.{device}" for device in devices)])
    for case in found:
        head = [case.values[path] for path in paths]
        plan = case.solution
        if plan is None:
            error = case.error.detail if case.error else ""
            blank = [""] * (len(_COLUMNS) - 2)
            writer.writerow([*head, case.method, *blank, error, *([""] * len(devices))])
            continue
        held = plan.memory_mb
        for task, placed in plan.tasks.items():
            route = " ".join(f"{step}:{device}" for step, device in placed.route.items())
            energy = (placed.energy.joules, placed.energy.above_idle) if placed.energy else ("", "")
            proof = (plan.objective_s, plan.lower_bound_s, plan.proven_optimal)
            memory = (max(held.values()), sum(held.values()), plan.solve_s, "")
            row = [case.method, task, placed.latency_s, route, *energy, *proof, *memory]
            writer.writerow([*head, *row, *(held.get(device, "") for device in devices)])


def draw(found: Sequence[Case], path: Path, *, many: bool) -> None:
    """Draws plans beside each other, or the only one in detail; the kind of file follows from its name.

    Raises:
        BadInputError: The file cannot be written.
    """
    if many:
        _draw_cases(found, path)
    else:
        _draw_plan(found[0], path)


def _draw_plan(case: Case, path: Path) -> None:
    """Draws one plan: latency of each task, and the memory of each device by module."""
    plan = case.solution
    if plan is None:
        return
    tasks, devices = list(plan.tasks), case.instance.devices
    tallest = 1.1 + 0.24 * len(tasks), 1.5 + 0.3 * len(devices) + 0.2 * (len(plan.placement) // 3)
    figure, (latency, memory) = figures.new_figure(tallest)
    figures.bars(latency, tasks, {"latency": [plan.tasks[t].latency_s * 1000 for t in tasks]}, unit="latency, ms")
    size = {module.id: module.memory_mb for module in case.instance.modules}
    parts = {
        module: [size[module] if device.id in plan.placement[module] else 0.0 for device in devices]
        for module in sorted(size, key=lambda module: -size[module])
    }
    free = [max(0.0, device.memory_mb - plan.memory_mb[device.id]) for device in devices]
    figures.stacked(memory, [device.id for device in devices], {**_largest(parts), "free": free}, unit="memory, MB")
    figures.save(figure, path)


def _largest(parts: dict[str, list[float]]) -> dict[str, list[float]]:
    """Returns as many parts as there are colours, the largest first; the others are one part."""
    most = len(figures.SERIES) - 2
    names = list(parts)
    if len(names) <= most + 1:
        return parts
    rest = [sum(values) for values in zip(*(parts[name] for name in names[most:]), strict=True)]
    return {name: parts[name] for name in names[:most]} | {f"{len(names) - most} smaller": rest}


def _draw_cases(found: Sequence[Case], path: Path) -> None:
    """Draws plans beside each other: by method, or over the first swept path with a line for each method and rest."""
    if not found[0].values:
        methods = [case.method for case in found]
        objective = [case.solution.objective_s if case.solution else None for case in found]
        held = [max(case.solution.memory_mb.values()) if case.solution else None for case in found]
        every = [sum(case.solution.memory_mb.values()) if case.solution else None for case in found]
        height = 1.0 + 0.28 * len(found)
        figure, (above, below) = figures.new_figure((height, height + 0.3 + 0.15 * len(found)))
        figures.bars(above, methods, {"objective": objective}, unit="objective (weighted latency), s")
        figures.bars(below, methods, {"fullest device": held, "all devices": every}, unit="memory, MB")
        figures.save(figure, path)
        return
    first, *others = found[0].values
    x = list(dict.fromkeys(case.values[first] for case in found))
    series: dict[str, list[float | None]] = {}
    for case in found:
        rest = [f"{other.rsplit('.', 1)[-1]}={case.values[other]}" for other in others]
        row = series.setdefault(" ".join([case.method, *rest]), [None] * len(x))
        row[x.index(case.values[first])] = case.solution.objective_s if case.solution else None
    figure, (panel,) = figures.new_figure((2.6 + 0.15 * (len(series) // 3),))
    figures.lines(panel, x, series, across=first, unit="objective, s")
    figures.save(figure, path)
