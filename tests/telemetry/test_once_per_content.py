"""One camera's frames for four tasks that share a tower, on a real site: its metric says how often the tower ran."""

from collections.abc import Iterator
from typing import Any

import pytest

from s2m3.broker.servers.launch import BrokerKind, free_port
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas.messages import TaskSpec
from s2m3.snapshot import Site
from tests.broker.test_link import reached
from tests.conftest import WAIT_S
from tests.telemetry.test_metrics import scraped
from tests.zoo.samples import sample

#: Two heads behind one tower, two tasks of each.
TASKS = {"door": "classification", "porch": "classification", "yard": "vqa", "shed": "vqa"}
#: As many as come at once.
QUEUE = 512


@pytest.fixture
def tower(kind: BrokerKind) -> Iterator[tuple[Client, int]]:
    """A client of a site whose one agent holds all four tasks, and the agent's metrics' port."""
    port = free_port()
    flags = ["--node", "a", "--memory-mb", "900", "--queue", str(QUEUE), "--metrics-port", str(port)]
    with Cluster({}, kind=kind) as cluster:
        cluster._spawn("a", "agent", *flags)  # noqa: SLF001  # a cluster's agents have short queues and no metrics
        with Site(cluster.settings) as site, Client(settings=cluster.settings) as client:
            for task, model in TASKS.items():
                add_task(site, task, TaskSpec(model=model))
            assert site.wait(lambda s: all(map(s.ready, TASKS)), WAIT_S), cluster.log("a")
            yield client, port


def runs(port: int) -> float:
    return scraped(port).get("s2m3_module_batch_items_sum{module=efficientnet-lite0}", 0.0)


def frame(number: int) -> bytes:
    """Returns a picture that no other number has: bytes behind its end, which decoders pass over."""
    return sample("chelsea.jpg") + number.to_bytes(4, "big")


def inputs(task: str, number: int) -> dict[str, Any]:
    question = {"text": "what color is the shape?"} if TASKS[task] == "vqa" else {}
    return {"image": frame(number), **question}


@pytest.mark.short_on("embedded")
def test_a_frame_for_four_tasks_runs_their_tower_once_and_a_hundred_frames_at_once_a_hundred_times(
    tower: tuple[Client, int],
) -> None:
    client, port = tower
    for count, first in ((1, 0), (100, 1)):
        before = runs(port)
        each = [(task, number) for number in range(first, first + count) for task in TASKS]
        asked = [(task, client.submit(task, deadline_s=WAIT_S, **inputs(task, number))) for task, number in each]
        labels: dict[str, set[str]] = {task: set() for task in TASKS}
        for task, reply in asked:
            labels[task].add(reply.result(WAIT_S).outputs["label"])
        assert all(len(found) == 1 for found in labels.values()), labels  # it is one picture, whatever its number
        assert labels["door"] == labels["porch"]
        assert reached(lambda n=before + count: runs(port) >= n)  # type: ignore[misc]  # counted after it was answered
        assert runs(port) - before == count
