"""A door to a site with a task without weights, and tiny checkpoints of each use."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task, checkpoint_definition
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.checkpoints.spelling import make_speller
from tests.conftest import WAIT_S
from tests.doors.door import Door, opened
from tests.families.table import FAMILIES

NODES = {"a": 4000.0}
#: Task -> the family of its checkpoint.
_FAMILIES = {"look": "smolvlm", "meaning": "bert-mean", "hear": "whisper", "say": "vits"}


@pytest.fixture(scope="package")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    makers: dict[str, Callable[[Path], None]] = {family.name: family.make for family in FAMILIES}
    for task, family in _FAMILIES.items():
        (folder / task).mkdir()
        makers[family](folder / task)
    (folder / "chat").mkdir()
    make_speller(folder / "chat")
    return folder


@pytest.fixture(scope="package")
def site(shelf: Path) -> Iterator[Cluster]:
    with Cluster(NODES, threads=1, checkpoints=dict.fromkeys(NODES, shelf)) as cluster:
        with Site(cluster.settings) as seen:
            assert seen.wait(lambda s: s.nodes.ready == set(NODES) and len(s.profiles) == len(NODES), WAIT_S)
            add_task(seen, "words", m.TaskSpec(model="noop-text", deadline_s=300))
            for task in [*_FAMILIES, "chat"]:
                definition = checkpoint_definition(str(shelf / task), task)
                assert definition is not None
                add_task(seen, task, m.TaskSpec(model=definition.model.id, definition=definition, deadline_s=300))
            tasks = ["words", "chat", *_FAMILIES]
            assert seen.wait(lambda s: all(s.ready(task) for task in tasks), WAIT_S), cluster.log("planner")
        yield cluster


@pytest.fixture(scope="package")
def door(site: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with opened(site.settings.port, tmp_path_factory.mktemp("door")) as running:
        yield running
