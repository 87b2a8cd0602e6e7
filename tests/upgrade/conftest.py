"""The release before protocol numbers, as it was: commit 4fc0481, unpacked from git."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.upgrade.site import NEW, NODES, Mixed

OLD_COMMIT = "4fc0481"


@pytest.fixture(scope="session")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree of protocol 0."""
    folder = tmp_path_factory.mktemp("protocol-0")
    packed = subprocess.run(["git", "archive", OLD_COMMIT], cwd=NEW, capture_output=True, check=False)
    if packed.returncode != 0:
        why = packed.stderr.decode(errors="replace").strip()
        pytest.fail(f"this test needs commit {OLD_COMMIT} in the history of the clone (git fetch --unshallow): {why}")
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
    return folder


@pytest.fixture
def mixed(kind: BrokerKind, tmp_path: Path, old: Path) -> Iterator[Mixed]:
    """Three nodes and a planner of the old release; the task `noop`, ready."""
    with Mixed(kind, tmp_path, old) as running:
        with Site(running.settings) as site:
            add_task(site, "noop", m.TaskSpec(model="noop", max_replicas=2, deadline_s=30))
            assert site.wait(_is_whole, WAIT_S), running.words("planner", *NODES)
        yield running
    assert [name for name, process in running.processes.items() if process.poll() is None] == []


def _is_whole(site: Site) -> bool:
    gateways = [node for node, plan in site.plans.items() if "noop" in plan.gateways]
    return site.ready("noop") and site.nodes.ready == NODES.keys() and bool(gateways)
