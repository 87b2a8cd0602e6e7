"""One site of both kinds of nodes: one takes over from the other, and the answers of the six tasks are equal."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from s2m3.agents.exports import exports_cache
from s2m3.agents.runtimes.network import NUMPY, ONNX, TORCH
from s2m3.agents.zoo.export import export_zoo
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.demo import TASKS, Case, shipped_cases
from s2m3.schemas import messages as m
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.wire.values import Value
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.runtimes.hiding import WITHOUT_ONNX, WITHOUT_TORCH, hide
from tests.zoo.inprocess import run_model

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
#: Node -> budget of memory, in which all modules of the six tasks have room: 354 MB with the decoder's cache.
NODES = {"tower": 1400.0, "light": 700.0}
_RUNTIME = {"tower": TORCH, "light": ONNX}
_MODULES = {one for task in TASKS for one in shipped_catalogue().models[task].module_ids}
_READY_S = 10 * WAIT_S


@pytest.fixture
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A node in whose processes ONNX Runtime cannot be imported, and one where torch cannot."""
    folder = tmp_path_factory.mktemp("mixed")
    exports = exports_cache(folder / "exports")
    export_zoo(exports, lambda *_: None)
    cluster = Cluster(NODES, threads=1)
    cluster.environment["PYTHONPATH"] = hide(folder, {"tower": WITHOUT_ONNX, "light": WITHOUT_TORCH})
    cluster.environment["S2M3_EXPORTS"] = str(exports.folder)
    with cluster:
        yield cluster


def _is_there(site: Site, node: str) -> bool:
    profile = site.profiles.get(node)
    return node in site.nodes.ready and profile is not None and profile.boot == site.nodes.boot(node)


def _all_is_ready(site: Site) -> bool:
    return all(_is_there(site, node) for node in NODES) and all(site.ready(task) for task in TASKS)


def _holds_all(site: Site, node: str) -> bool:
    reported = site.reported.get(node)
    held = reported.modules if reported is not None and reported.boot == site.nodes.boot(node) else {}
    return all(name in held and held[name].state == "ready" for name in _MODULES)


def _is_lost(site: Site, node: str) -> bool:
    return node in site.nodes.lost


def _inputs(case: Case) -> dict[str, Any]:
    """Returns a case's inputs as modules take them: the bytes of files, a list of pictures."""
    return {
        name: _read([given] if name == "image" and isinstance(given, Path) else given)
        for name, given in case.inputs.items()
    }


def _read(given: Any) -> Any:
    if isinstance(given, list):
        return [_read(one) for one in given]
    return given.read_bytes() if isinstance(given, Path) else given


def _near(value: Value) -> Any:
    """Returns what equals a value within 1e-5 in its numbers, and exactly in its texts."""
    match value:
        case dict():
            return {name: _near(inner) for name, inner in value.items()}
        case list():
            return [_near(inner) for inner in value]
        case float():
            return pytest.approx(value, abs=1e-5)
    return value


def test_a_node_without_torch_takes_over_from_one_with_it_and_the_other_way_round(mixed: Cluster) -> None:
    cases = {case.task: case for case in reversed(shipped_cases()) if case.task in TASKS}
    wanted = {task: run_model(task, _inputs(case)) for task, case in cases.items()}
    assert cases.keys() == set(TASKS)
    with Site(mixed.settings) as site, Client(settings=mixed.settings) as client:
        for task in TASKS:
            add_task(site, task, m.TaskSpec(model=task, deadline_s=60))
        for gone, other in (("tower", "light"), ("light", "tower")):
            assert site.wait(_all_is_ready, _READY_S), mixed.log(other)[-3000:]
            mixed.kill(gone)
            assert site.wait(partial(_is_lost, node=gone), WAIT_S)
            # which second copies were warm depends on how fast the planner takes each node to be
            assert site.wait(partial(_holds_all, node=other), _READY_S), mixed.log(other)[-3000:]
            held = {report.runtime for report in site.reported[other].modules.values()}
            assert _RUNTIME[other] in held <= {_RUNTIME[other], NUMPY}
            for task, case in cases.items():
                answer = client.ask(task, deadline_s=60, **case.inputs)
                assert set(answer.route.values()) == {other}
                assert answer.outputs == {name: _near(value) for name, value in wanted[task].items()}, task
            mixed.start_agent(gone)
