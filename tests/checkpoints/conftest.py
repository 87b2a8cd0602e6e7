"""Tiny checkpoints, made once; and a broker with two agent processes over which every one of them is split."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import Definition
from s2m3.snapshot import Site
from tests.checkpoints.models import all_definitions
from tests.checkpoints.tiny import make_all

READY_S = 240.0
NODES = {"a": 1500.0, "b": 1500.0}


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny checkpoints."""
    return make_all(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Fingerprints are kept in a cache of the tests' own; agents inherit where it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def held_by(definition: Definition) -> dict[str, str]:
    """Module -> node: one after the other, so that every model is on both."""
    return {spec.id: sorted(NODES)[number % 2] for number, spec in enumerate(definition.modules)}


def route(definition: Definition, held: Mapping[str, str]) -> m.RouteDoc:
    model = definition.model
    steps = {
        name: m.RouteStep(
            module=step.module,
            inputs=step.inputs,
            outputs=list(model.wanted_outputs(name)),
            replicas=[m.Replica(node=held[step.module], ms=1.0)],
        )
        for name, step in model.steps.items()
    }
    return m.RouteDoc(
        epoch=1, revision=1, model=model.id, inputs=model.inputs, answer=model.answer, deadline_s=60, steps=steps
    )


@pytest.fixture(scope="package")
def split(tiny: Path) -> Iterator[Cluster]:
    """All of them, split over two agents; no planner, so that the test says what is where."""
    definitions = all_definitions(tiny)
    held = {module: node for definition in definitions.values() for module, node in held_by(definition).items()}
    specs = {spec.id: spec for definition in definitions.values() for spec in definition.modules}
    with Cluster(NODES, planner=False, threads=1, checkpoints=dict.fromkeys(NODES, tiny)) as cluster:
        with Site(cluster.settings) as site:
            for node in NODES:
                modules = [specs[module] for module, where in held.items() if where == node]
                site.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=modules).encode(), node=node)
            for task, definition in definitions.items():
                site.publish(topics.ROUTE, route(definition, held).encode(), task=task)
            assert site.wait(lambda s: _ready(s) == specs.keys(), READY_S), {n: cluster.log(n)[-2000:] for n in NODES}
        yield cluster


def _ready(site: Site) -> set[str]:
    reports = (report for reported in site.reported.values() for report in reported.modules.items())
    return {module for module, report in reports if report.state == "ready"}


@pytest.fixture(scope="package")
def client(split: Cluster) -> Iterator[Client]:
    with Client(settings=split.settings) as asking:
        yield asking
