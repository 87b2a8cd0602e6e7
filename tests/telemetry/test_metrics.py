"""Metrics: what real processes serve, that names as Prometheus has them, and documents that name them all."""

import json
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from s2m3.broker import metrics
from s2m3.broker.servers.launch import free_port
from s2m3.client import Client
from s2m3.commands.tasks import add_task
from s2m3.schemas.errors import BadInputError, S2M3Error, UnknownTaskError
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.sessions import node_client_id
from s2m3.schemas.settings import BrokerSettings
from s2m3.snapshot import Site
from tests.broker.test_link import reached
from tests.conftest import WAIT_S

FOLDER = Path(__file__).parents[2]
OURS: dict[str, MetricWrapperBase] = {
    family: found
    for found in (getattr(metrics, name) for name in metrics.__all__ if name.isupper())
    for family in (next(iter(found.describe())).name,)
}


def scraped(port: int) -> dict[str, float]:
    """What a process serves: `name{label=value,…}` -> value."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=WAIT_S) as response:
        text = response.read().decode()
    samples = (sample for family in text_string_to_metric_families(text) for sample in family.samples)
    return {f"{s.name}{{{','.join(f'{k}={v}' for k, v in sorted(s.labels.items()))}}}": s.value for s in samples}


@pytest.fixture
def served(settings: BrokerSettings) -> Iterator[tuple[BrokerSettings, int, int]]:
    """A planner and an agent that serve metrics, with the task `noop` ready; and their ports."""
    planner_port, agent_port = free_port(), free_port()
    where = ["--port", str(settings.port), "--root", settings.root]
    commands = (
        ["planner", "--metrics-port", str(planner_port)],
        ["agent", "--node", "a", "--memory-mb", "200", "--metrics-port", str(agent_port)],
    )
    running = [subprocess.Popen([sys.executable, "-m", "s2m3", *command, *where]) for command in commands]
    try:
        with Site(settings) as site:
            add_task(site, "noop", TaskSpec(model="noop"))
            assert site.wait(lambda s: s.ready("noop"), WAIT_S)
            yield settings, planner_port, agent_port
    finally:
        for process in running:
            process.send_signal(signal.SIGINT)
            process.wait(WAIT_S)


def test_agent_and_planner_serve_what_happened(served: tuple[BrokerSettings, int, int]) -> None:
    settings, planner_port, agent_port = served
    with Client(settings=settings) as client:
        for i in range(5):
            client.ask("noop", left=i, right=i)
    # An answer may come before what it was is counted, and a plan before what it is of.
    counted = {"s2m3_module_run_seconds_count{module=noop-head}": 5, "s2m3_module_batch_items_sum{module=noop-left}": 5}
    assert reached(lambda: counted.items() <= scraped(agent_port).items()), scraped(agent_port)
    assert reached(lambda: {"s2m3_tasks{state=ready}": 1}.items() <= scraped(planner_port).items())
    agent, planner = scraped(agent_port), scraped(planner_port)
    assert agent["s2m3_module_queue_items{module=noop-head}"] == 0
    assert agent["s2m3_memory_budget_bytes{}"] == agent["s2m3_host_memory_budget_bytes{}"] == 200e6
    assert agent["s2m3_device_info{device=cpu,dtype=float32}"] == 1
    assert 0 < agent["s2m3_memory_free_bytes{}"] < 200e6
    assert agent[f"s2m3_broker_connected{{client={node_client_id(settings, 'a')}}}"] == 1
    assert agent["process_resident_memory_bytes{}"] > 1e6
    assert planner["s2m3_nodes{state=ready}"] == 1
    assert planner["s2m3_plan_changes_total{node=a}"] >= 1
    assert planner["s2m3_plan_seconds_count{}"] >= 1


def test_a_client_counts_its_requests_by_task_and_code_and_a_task_nobody_knows_is_no_label(
    served: tuple[BrokerSettings, int, int],
) -> None:
    settings, _, _ = served

    def count(task: str, code: str) -> float:
        return REGISTRY.get_sample_value("s2m3_requests_total", {"task": task, "code": code}) or 0.0

    under_way = REGISTRY.get_sample_value("s2m3_requests_under_way")
    before = {key: count(*key) for key in (("noop", "ok"), ("noop", "bad_input"), ("", "unknown_task"))}
    with Client(settings=settings) as client:
        client.ask("noop", left=1, right=2)
        with pytest.raises(BadInputError):
            client.ask("noop", left=1)
        with pytest.raises(UnknownTaskError):
            client.ask("no-such-task", left=1)
    assert {key: count(*key) - was for key, was in before.items()} == dict.fromkeys(before, 1.0)
    assert REGISTRY.get_sample_value("s2m3_requests_under_way") == under_way


def test_what_a_closed_client_left_open_is_no_longer_under_way(settings: BrokerSettings) -> None:
    before = REGISTRY.get_sample_value("s2m3_requests_under_way")
    with Client(settings=settings) as client:
        replies = [client.submit("nobody-serves-this", deadline_s=60.0) for _ in range(3)]
    assert all(isinstance(reply.exception(WAIT_S), S2M3Error) for reply in replies)
    assert REGISTRY.get_sample_value("s2m3_requests_under_way") == before


def test_a_port_that_is_taken_is_said() -> None:
    port = metrics.serve("127.0.0.1", 0)
    with pytest.raises(BadInputError, match=str(port)):
        metrics.serve("127.0.0.1", port)


@pytest.mark.parametrize("name", sorted(OURS))
def test_names_follow_prometheus_conventions(name: str) -> None:
    """prometheus.io, naming: one application prefix, base units, and `_total` for what only grows."""
    family = next(iter(OURS[name].describe()))
    assert name.startswith("s2m3_")
    assert not re.search(r"_(ms|mb|kb|milliseconds)(_|$)", name)
    assert (family.type == "histogram") <= name.endswith(("_seconds", "_items", "_bytes"))


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_metric_is_documented_with_its_labels(name: str) -> None:
    family = next(iter(OURS[name].describe()))
    exposed = f"{name}_total" if family.type == "counter" else name
    labels = ", ".join(f"`{label}`" for label in OURS[name]._labelnames) or "-"  # noqa: SLF001  # it has no other word for them
    text = (FOLDER / "docs" / "metrics.md").read_text()
    assert re.search(rf"^\| `{exposed}` \| {family.type} \| {labels} \|", text, flags=re.MULTILINE), exposed


def test_the_grafana_dashboard_asks_only_for_metrics_that_there_are() -> None:
    board = json.loads((FOLDER / "deploy" / "grafana" / "s2m3.json").read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    asked = set(re.findall(r"\bs2m3_\w+", " ".join(queries)))
    known = {f"{name}{end}" for name in OURS for end in ("", "_total", "_bucket", "_sum", "_count")}
    assert asked
    assert asked <= known
