"""How the figures of bench/site.py grow from the smallest site to the largest, as a table."""

from collections.abc import Callable, Sequence
from statistics import mean
from typing import Any

from tables import Table

__all__ = ["growth"]

_Row = dict[str, Any]


def _lost(name: str) -> Callable[[_Row], float]:
    return lambda row: float(mean(lost[name] for lost in row["one_lost"]))


def _per_route(row: _Row) -> float:
    named = sum(lost["routes_named"] for lost in row["one_lost"])
    return float(1000 * sum(lost["cpu_above_rest_s"] for lost in row["one_lost"]) / max(named, 1))


def _requester(name: str, used: int) -> Callable[[_Row], float]:
    """Returns what a requester that uses so many tasks takes above one that uses none."""

    def above(row: _Row) -> float:
        by_tasks = {found["tasks"]: found[name] for found in row["requesters"]}
        return float(by_tasks[used] - by_tasks[0])

    return above


_FIGURES: dict[str, Callable[[_Row], float]] = {
    "all tasks added in one go, all ready, s": lambda row: row["all_ready_s"],
    "the planner's CPU for that, per task, ms": lambda row: 1000 * row["all_ready_cpu_s"] / row["tasks"],
    "one task added, its route, s": lambda row: row["one_task_route_s"],
    "the planner's CPU for that, above rest, s": lambda row: row["one_task_cpu_above_rest_s"],
    "one node lost, the last route, s": _lost("routes_changed_s"),
    "routes that named the node": _lost("routes_named"),
    "other routes that changed": _lost("other_routes_changed"),
    "the planner's CPU for a loss, above rest, s": _lost("cpu_above_rest_s"),
    "the same, per route that named the node, ms": _per_route,
    "a tenth of the nodes lost, the last route, s": lambda row: row["many_lost"]["routes_changed_s"],
    "the planner's CPU for that, above rest, per route, ms": lambda row: (
        1000 * row["many_lost"]["cpu_above_rest_s"] / max(row["many_lost"]["routes_named"], 1)
    ),
    "the planner at rest, % of a core": lambda row: 100 * row["idle_cpu_share"],
    "the planner's memory, the most, MB": lambda row: row["planner_peak_mb"],
    "connections of the planner lost": lambda row: row["planner_offline"],
    "a requester that uses 10 tasks, above one that uses none, MB": _requester("mb", 10),
    "the same, % of a core": lambda row: 100 * _requester("cpu_share", 10)(row),
}


def growth(rows: Sequence[_Row]) -> Table:
    """Returns each figure at each size, and that of the last size by that of the first."""
    sizes = [f"{row['nodes']} x {row['tasks']} x {row['modules']}" for row in rows]
    lines = []
    for name, figure in _FIGURES.items():
        values = [float(figure(row)) for row in rows]
        lines.append([name, *values, values[-1] / values[0] if values[0] else None])
    return Table("site", ["", *sizes, "last / first"], lines)
