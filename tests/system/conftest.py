"""Clusters of real processes with modules that have no weights: a broker, a planner, three agents."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.conftest import WAIT_S


@contextmanager
def three_nodes(kind: BrokerKind) -> Iterator[Cluster]:
    """Three light nodes, for modules without weights; the task `noop`, ready."""
    with Cluster({"a": 150.0, "b": 150.0, "c": 150.0}, kind=kind, threads=1) as cluster:
        with Site(cluster.settings) as site:
            add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=30))
            assert site.wait(_all_are_there, WAIT_S), cluster.log("planner")
        yield cluster


@pytest.fixture
def noop_cluster(kind: BrokerKind) -> Iterator[Cluster]:
    """One per test: its processes may die."""
    with three_nodes(kind) as cluster:
        yield cluster


def _all_are_there(site: Site) -> bool:
    """The slowest node too: whoever kills it must have seen it, and nothing may move when it comes."""
    nodes = {"a", "b", "c"}
    return site.ready("noop") and site.nodes.ready == nodes and set(site.plans) == nodes


@pytest.fixture
def noop_client(noop_cluster: Cluster) -> Iterator[Client]:
    with Client(settings=noop_cluster.settings) as client:
        yield client


@pytest.fixture
def noop_site(noop_cluster: Cluster) -> Iterator[Site]:
    with Site(noop_cluster.settings) as site:
        yield site
