"""Clusters with a module that hangs, crashes or eats memory when it is told to."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.conftest import WAIT_S

_MODELS, _INSTALLED = (Path(__file__).parent / name for name in ("models", "installed"))
_ROOT = Path(__file__).parents[2]


class FaultyCluster(Cluster):
    """Agents that take a batch for hung after a second; a planner that knows the faulty models."""

    def start_planner(self) -> None:
        self._spawn("planner", "planner", "--models", str(_MODELS))

    def start_agent(self, node: str) -> None:
        """With the package of the faulty classes on the path: its metadata, and the tests that its code is in."""
        path = [str(_INSTALLED), str(_ROOT), os.environ.get("PYTHONPATH", "")]
        self.environment["PYTHONPATH"] = os.pathsep.join(filter(None, path))
        flags = ["--node", node, "--memory-mb", str(self._nodes[node]), "--threads", "1", "--hang-s", "1"]
        self._spawn(node, "agent", *flags)


@pytest.fixture
def lone(kind: BrokerKind) -> Iterator[FaultyCluster]:
    """One node, the task `faulty` ready on it."""
    with FaultyCluster({"a": 150.0}, kind=kind) as cluster:
        ready(cluster, "faulty", 1)
        yield cluster


@pytest.fixture
def pair(kind: BrokerKind) -> Iterator[FaultyCluster]:
    """Two nodes, the task `faulty` ready."""
    with FaultyCluster({"a": 150.0, "b": 150.0}, kind=kind) as cluster:
        ready(cluster, "faulty", 2)
        yield cluster


def ready(cluster: Cluster, model: str, nodes: int) -> None:
    with Site(cluster.settings) as site:
        add_task(site, model, m.TaskSpec(model=model, deadline_s=10))
        came = site.wait(lambda s: s.ready(model) and len(s.nodes.ready) == nodes, WAIT_S)
        assert came, {n: cluster.log(n) for n in cluster.processes}


@pytest.fixture
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    """A Client of whichever cluster the test has."""
    name = next(name for name in ("lone", "pair") if name in request.fixturenames)
    with Client(settings=request.getfixturevalue(name).settings) as made:
        yield made
