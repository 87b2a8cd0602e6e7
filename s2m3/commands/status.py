"""The command `status`: shows the site from its topics, for people and as JSON."""

import json
from typing import Any

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from s2m3.agents.registry.classes import SHIPPED
from s2m3.commands import options
from s2m3.commands.fetched import fetched_text, refused_texts
from s2m3.commands.terminal import Listing, console
from s2m3.ranks import answering, missed_texts, ranks_of
from s2m3.schemas import bridge as b
from s2m3.schemas.parts import PartProgress
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site

__all__ = ["binding_table", "problems", "site_document", "status", "tables"]

_NOTHING = "no planner or agent was here yet, or this login may not read it (a broker may keep that to itself)"


@options.with_settings(BrokerSettings)
def status(settings: BrokerSettings, *, as_json: options.Json = False) -> None:
    """Show nodes, modules and tasks: who holds what, and why something is not ready. `s2m3 status`."""
    with Site(settings, roll_call="status") as site, site.still():
        if site.planner is None and not _nodes(site) and not site.tasks:
            typer.echo(f"nothing is told under {site.root}/: {_NOTHING}", err=True)
        if as_json:
            typer.echo(json.dumps(site_document(site), ensure_ascii=False))
        else:
            console().print(Group(tables(site), *problems(site)))


def site_document(site: Site) -> dict[str, Any]:
    """Returns the site as JSON, for scripts."""
    return {
        "planner": site.planner.model_dump() if site.planner else None,
        "nodes": {node: _node(site, node) for node in _nodes(site)},
        "tasks": {
            task: {
                "model": spec.model,
                "ready": site.answers(task),
                "answers": answering(site, task),
                "rank": site.rank(task),
                "ranks": ranks_of(site, task),
                "front": site.gateway(task),
                "steps": {
                    step: {"module": s.module, "nodes": [r.node for r in s.replicas]}
                    for step, s in (site.routes[task].steps.items() if task in site.routes else ())
                },
                "error": _error(site, task),
            }
            for task, spec in sorted(site.tasks.items())
        },
        "bridge": site.bridge.model_dump() if site.bridge else None,
        "bindings": {
            name: site.bindings[name].model_dump(exclude_none=True, include={"source", "task", "publish"})
            | (site.reports[name].model_dump(exclude_none=True) if name in site.reports else {"state": "not running"})
            for name in sorted(site.bindings)
        },
    }


def _nodes(site: Site) -> list[str]:
    return sorted(site.profiles.keys() | site.nodes.present | site.nodes.lost)


def _node(site: Site, node: str) -> dict[str, Any]:
    profile, reported = site.profiles.get(node), site.reported.get(node)
    lost = site.nodes.state(node) in (None, "lost")
    asleep = site.planner.asleep.get(node) if site.planner and lost else None
    return {
        "state": "sleeping" if asleep else site.nodes.state(node) or "lost",
        "held": site.planner.held.get(node) if site.planner else None,
        "asleep": asleep,
        "device": profile.device if profile else None,
        "memory_mb": round(profile.memory_mb) if profile else None,
        "free_mb": round(reported.free_mb) if reported and not lost else None,
        "host_memory_mb": round(profile.host_memory_mb) if profile and profile.host_memory_mb else None,
        "host_mb": round(reported.host_mb) if reported and reported.host_mb and not lost else None,
        "gflops": round(profile.gflops) if profile else None,
        "dtype": profile.dtype if profile else None,
        "speeds": profile.speeds if profile else {},
        "version": profile.version if profile else None,
        "protocol": site.nodes.protocol(node),
        "latency_ms": round(profile.latency_ms, 2) if profile else None,
        "classes": profile.classes if profile else [],
        "modules": {
            module: report.model_dump(exclude_none=True)
            for module, report in sorted(reported.modules.items() if reported and not lost else ())
        },
        "queues": site.loads[node].queues if node in site.loads and not lost else {},
    }


def _error(site: Site, task: str) -> dict[str, Any] | None:
    doc = site.routes.get(task)
    return doc.error.model_dump(exclude_none=True) if doc and doc.error else None


def tables(site: Site) -> RenderableType:
    """Returns planner, nodes, tasks and bindings; `problems` are apart."""
    state = site.planner.state if site.planner else "not there"
    parts: list[RenderableType] = [Text(f"planner: {state}", style="" if state == "online" else "bold red")]
    bindings = [binding_table(site)] if site.bindings else []
    return Group(*parts, _node_table(site), _task_table(site), *bindings, *_own_classes(site))


def _own_classes(site: Site) -> list[Text]:
    """Returns a line for each node with module classes of other packages (docs/models.md)."""
    found = {node: sorted(set(_node(site, node)["classes"]) - SHIPPED.keys()) for node in _nodes(site)}
    return [Text(f"{node} has module classes of its own: {', '.join(names)}") for node, names in found.items() if names]


def _node_table(site: Site) -> Listing:
    table = Listing("node", "state", "free / budget MB", "modules (MB, ms per item, runtime)", title="nodes")
    for node in _nodes(site):
        row = _node(site, node)
        held = [_module_line(name, report) for name, report in row["modules"].items()]
        memory = f"{row['free_mb']} / {row['memory_mb']}" if row["free_mb"] is not None else "-"
        if row["device"] not in (None, "cpu"):
            host = f"{row['host_memory_mb'] - row['host_mb']} / {row['host_memory_mb']}" if row["host_mb"] else "-"
            memory = f"{row['device']}: {memory}\nhost: {host}"
        style = {"ready": "green", "draining": "yellow", "sleeping": "blue"}.get(row["state"], "bold red")
        table.add_row(node, Text(row["state"], style=style), memory, "\n".join(held) or "-")
    return table


#: From so many milliseconds on, a time is shown without decimals.
_LONG_MS = 100.0


def _module_line(name: str, report: dict[str, Any]) -> str:
    if report["state"] == "loading" and report.get("fetched") is not None:
        return f"{name}: {fetched_text(PartProgress.model_validate(report['fetched']))}"
    if report["state"] != "ready":
        return f"{name}: {report['state']}"
    digits = ".3g" if (report["ms"] or 0.0) < _LONG_MS else ".0f"
    speed = f", {report['ms']:{digits}} ms" if report["ms"] else ""
    runtime = f", {report['runtime']}" if report.get("runtime") else ""
    mapped = f", mapped: {report['memory_mb']:.0f} in memory" if report.get("mapped") else ""
    return f"{name} ({report['bytes'] / 1e6:.1f}{speed}{runtime}{mapped})"


def _task_table(site: Site) -> Listing:
    table = Listing("task", "model", "state", "step: module on nodes", title="tasks")
    for task, spec in sorted(site.tasks.items()):
        lines = _step_lines(site, task)
        word = Text("ready", style="green") if site.ready(task) else Text("not ready", style="bold red")
        if site.rank(task):
            word = Text(f"on a stand-in: {answering(site, task)}", style="yellow")
        if site.ready(task) and not site.answers(task):
            word = Text("ready, no gateway", style="yellow")
        table.add_row(task, "\n".join(one.model for one in spec.ranks), word, "\n".join(lines))
    return table


def _step_lines(site: Site, task: str) -> list[str]:
    """Returns a line for each step of each of a task's models."""
    docs = site.routes[task].by_rank if task in site.routes else ()
    steps = [step for doc in docs for step in doc.steps.items()]
    return [f"{s}: {r.module} on {', '.join(x.node for x in r.replicas) or '-'}" for s, r in steps]


def binding_table(site: Site) -> Listing:
    """Returns the table of bindings with their states."""
    table = Listing("binding", "from, task, to", "state", title="bindings")
    running = site.bridge is not None and site.bridge.state == "online"
    for name, binding in sorted(site.bindings.items()):
        report = site.reports.get(name) if running else None
        way = f"{binding.source}\n{binding.task}\n{binding.publish}"
        table.add_row(name, way, _silent_why(site, binding.source, report) or _binding_state(report))
    return table


def _silent_why(site: Site, source: str, report: b.BindingReport | None) -> Text | None:
    """Returns a hint for an active binding without a message so far; None for any other.

    Mosquitto confirms a subscription that its access list denies, and delivers nothing.
    """
    if not site.is_secured or report is None or report.error is not None or report.received > 0:
        return None
    return Text(
        "nothing heard yet. If somebody publishes there, the bridge's login may not read it: "
        f"s2m3 secure add … bridge … --read '{source}'",
        style="yellow",
    )


def _binding_state(report: b.BindingReport | None) -> Text:
    if report is None:
        return Text("no bridge runs it: s2m3 bridge", style="bold red")
    if report.error is not None:
        return Text(f"{report.state}: {report.error.detail}", style="bold red")
    passed = f", {report.passed} asked nothing ({report.last_passed})" if report.passed else ""
    counts = f"{report.received} received{passed}, {report.dropped} dropped, {report.answered} answered"
    failed = f", {report.failed} failed ({report.last_error.detail})" if report.last_error else ""
    return Text(f"{counts}, {report.published} published{failed}", style="yellow" if failed else "green")


def problems(site: Site) -> list[Text]:
    """Returns a line for each thing that is not as it should be, and why."""
    errors = {task: error for task in sorted(site.tasks) if (error := _error(site, task)) is not None}
    lines = [] if site.link.connected else [Text("no connection to the broker; this is what was known", style="red")]
    lines += [Text(f"{task}: {error['code']}: {error['detail']}", style="red") for task, error in errors.items()]
    lines += [Text(f"{task}: {why}", style="yellow") for task in sorted(site.tasks) if (why := unanswered(site, task))]
    lines += [Text(text, style="yellow") for task in sorted(site.tasks) for text in missed_texts(site, task)]
    lines += [Text(text, style="red") for text in refused_texts(site)]
    for node in _nodes(site):
        lines += [
            Text(f"{node}: {why}", style="yellow") for key in ("held", "asleep") if (why := _node(site, node)[key])
        ]
        for name, report in _node(site, node)["modules"].items():
            if report["state"] == "failed" and "reason" in report:
                lines.append(
                    Text(f"{name} on {node}: {report['reason']['code']}: {report['reason']['detail']}", style="red")
                )
    return lines


def unanswered(site: Site, task: str) -> str | None:
    """Returns why plain requests of a ready task wait; None if they do not."""
    if not site.ready(task) or site.answers(task):
        return None
    full = [
        f"{node} ({profile.most_gateways})"
        for node, profile in sorted(site.profiles.items())
        if profile.most_gateways is not None
        and node in site.plans
        and len(site.plans[node].gateways) >= profile.most_gateways
    ]
    why = f"; as many as their open files allow have {', '.join(full)}: raise LimitNOFILE or add a node" if full else ""
    return f"plain requests wait, no node is its gateway{why}"
