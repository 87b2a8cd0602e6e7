"""A node's device and both of its memories are where people look: `s2m3 status`, and dashboards by the bridge."""

import io
from types import SimpleNamespace
from typing import Any

from rich.console import Console

from s2m3.broker.node_states import NodeStates
from s2m3.commands import status
from s2m3.homeassistant.discovery import Devices
from s2m3.homeassistant.view import View
from s2m3.schemas import messages as m

PROFILE = m.NodeProfile(
    boot="1", version="1", memory_mb=72_000, runtime_mb=0, gflops=400, latency_ms=1, mbps=900,
    device="cuda:0", dtype="bfloat16", host_memory_mb=8_000, speeds={"float32": 50.0, "bfloat16": 400.0},
)  # fmt: skip
REPORTED = m.Reported(boot="1", free_mb=70_000, host_mb=1_500)


def _nodes() -> NodeStates:
    nodes = NodeStates()
    nodes.update("gpu", m.NodeState(state="ready", boot="1"))
    return nodes


def test_status_shows_the_device_its_memory_and_the_hosts() -> None:
    site: Any = SimpleNamespace(
        profiles={"gpu": PROFILE}, reported={"gpu": REPORTED}, nodes=_nodes(), planner=None, loads={}, plans={}
    )
    console = Console(width=160, file=io.StringIO())
    with console.capture() as shown_to_people:
        console.print(status._node_table(site))  # noqa: SLF001  # the table of nodes alone
    shown = shown_to_people.get()
    assert "cuda:0: 70000 / 72000" in shown
    assert "host: 6500 / 8000" in shown
    row = status._node(site, "gpu")  # noqa: SLF001  # what `status --json` says of a node
    assert [row[key] for key in ("device", "dtype", "memory_mb", "host_memory_mb", "host_mb")] == [
        "cuda:0",
        "bfloat16",
        72_000,
        8_000,
        1_500,
    ]


def test_home_assistant_shows_the_device_with_both_memories() -> None:
    view = View(profiles={"gpu": PROFILE}, reported={"gpu": REPORTED}, nodes=_nodes())
    told = view.node("gpu")
    assert (told.device, told.memory_mb, told.used_mb, told.host_mb) == ("cuda:0", 72_000, 2_000, 1_500)
    entity = Devices("home/s2m3", "homeassistant", "1").node("gpu", "1")["cmps"]["device"]
    assert (entity["p"], entity["name"], entity["val_tpl"]) == (
        "sensor",
        "Computes on",
        "{{ (value_json | default({})).device | default('None') }}",
    )
    assert "host_mb" in entity["json_attr_tpl"]
