"""The families' tiny checkpoints, each made when it is first asked for, split over two agents on a real broker."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import Definition
from s2m3.snapshot import Site
from tests.families.family import Family, definition

READY_S = 240.0
NODES = {"a": 4000.0, "b": 4000.0}


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder for the tiny checkpoints; fingerprints are kept in a cache of the tests' own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory.mktemp("families")


def checkpoint(folder: Path, family: Family) -> Path:
    """Returns a family's tiny checkpoint; makes it if there is none yet."""
    if not (folder / family.name).is_dir():
        (folder / family.name).mkdir()
        family.make(folder / family.name)
    return folder / family.name


@pytest.fixture(scope="package")
def site(folder: Path) -> Iterator[Cluster]:
    """Two agents that share the modules of every family; no planner, so that the test says what is where."""
    with Cluster(NODES, planner=False, threads=1, checkpoints=dict.fromkeys(NODES, folder)) as cluster:
        yield cluster


@pytest.fixture(scope="package")
def client(site: Cluster) -> Iterator[Client]:
    with Client(settings=site.settings) as asking:
        yield asking


def serve(site: Cluster, task: str, folder: Path, options: Sequence[str] = ()) -> Definition:
    """Places the modules of one checkpoint on both nodes in turn, and waits until all are ready."""
    found = definition(folder, options)
    held = {spec.id: sorted(NODES)[number % 2] for number, spec in enumerate(found.modules)}
    with Site(site.settings) as view:
        for node in NODES:
            modules = [spec for spec in found.modules if held[spec.id] == node]
            view.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=modules).encode(), node=node)
        view.publish(topics.ROUTE, _route(found, held).encode(), task=task)
        ready = view.wait(lambda seen: held.keys() <= _in_state(seen, "ready") | _in_state(seen, "failed"), READY_S)
        assert ready, {node: site.log(node)[-2000:] for node in NODES}
        assert not _in_state(view, "failed"), {node: site.log(node)[-2000:] for node in NODES}
    return found


def _in_state(view: Site, state: str) -> set[str]:
    reports = (report for reported in view.reported.values() for report in reported.modules.items())
    return {module for module, report in reports if report.state == state}


def _route(definition: Definition, held: Mapping[str, str]) -> m.RouteDoc:
    model = definition.model
    generated = {spec.id: spec.generates for spec in definition.modules}
    steps = {
        name: m.RouteStep(
            module=step.module,
            inputs=step.inputs,
            outputs=list(model.wanted_outputs(name)),
            generates=generated[step.module],
            replicas=[m.Replica(node=held[step.module], ms=1.0)],
        )
        for name, step in model.steps.items()
    }
    return m.RouteDoc(
        epoch=1, revision=1, model=model.id, inputs=model.inputs, answer=model.answer, deadline_s=60, steps=steps
    )
