"""The demo's cluster of real processes: a broker, a planner, three agents of which none can hold everything."""

from collections.abc import Iterator

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.demo import DEMO_NODES, TASKS
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.conftest import WAIT_S

READY_S = 240.0


@pytest.fixture(scope="package")
def zoo_cluster(kind: BrokerKind) -> Iterator[Cluster]:
    """The six tasks, ready, on three nodes."""
    with Cluster(DEMO_NODES, kind=kind, threads=1, bridge=True) as cluster:
        with Site(cluster.settings) as site:
            for task in TASKS:
                add_task(site, task, m.TaskSpec(model=task, deadline_s=WAIT_S))
            ready = site.wait(lambda s: all(s.ready(task) for task in TASKS), READY_S)
            assert ready, {name: cluster.log(name)[-1500:] for name in cluster.processes}
        yield cluster


@pytest.fixture(scope="package")
def zoo_client(zoo_cluster: Cluster) -> Iterator[Client]:
    with Client(settings=zoo_cluster.settings) as client:
        yield client
