"""`s2m3 task add --model FOLDER` serves a checkpoint; what is wrong with one is said, and nothing dies of it."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task, checkpoint_definition
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError
from s2m3.snapshot import Site
from tests import command
from tests.checkpoints.conftest import READY_S
from tests.conftest import WAIT_S
from tests.zoo.samples import FOLDER

CAT = FOLDER / "chelsea.jpg"


@pytest.fixture(scope="module")
def shelves(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> dict[str, Path]:
    """Each node's own folder of checkpoints: that of `a` holds a damaged copy of what that of `b` holds whole."""
    found = {node: tmp_path_factory.mktemp(f"shelf-{node}") for node in ("a", "b")}
    for shelf in found.values():
        shutil.copytree(tiny / "tiny-vit", shelf / "pets")
    weights = found["a"] / "pets" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    return found


@pytest.fixture(scope="module")
def site(shelves: dict[str, Path]) -> Iterator[Cluster]:
    with Cluster({"a": 1500.0, "b": 1500.0}, threads=1, checkpoints=shelves) as cluster:
        with Site(cluster.settings) as seen:
            assert seen.wait(lambda s: s.nodes.ready == {"a", "b"} and len(s.profiles) == 2, WAIT_S)
        yield cluster


@pytest.fixture(autouse=True)
def _alive_after(site: Cluster) -> Iterator[None]:
    yield
    site.check()
    assert all(process.poll() is None for process in site.processes.values())


def s2m3(site: Cluster, *words: str) -> subprocess.CompletedProcess[str]:
    return command.s2m3(*words, port=site.settings.port)


def test_a_local_checkpoint_is_served_by_one_command(site: Cluster, tiny: Path) -> None:
    folder = str(tiny / "tiny-clip")
    added = s2m3(site, "task", "add", "pets", "--model", folder, "--text", "a cat", "--text", "a dog")
    assert added.returncode == 0, added.stderr
    assert added.stdout.startswith("pets is ready: ")
    asked = s2m3(site, "ask", "pets", "--image", str(CAT), "--json")
    assert asked.returncode == 0, asked.stderr
    assert json.loads(asked.stdout)["answer"] in ("a cat", "a dog")


def test_a_second_task_of_the_same_checkpoint_loads_nothing_more(site: Cluster, tiny: Path) -> None:
    folder = str(tiny / "tiny-clip")
    assert s2m3(site, "task", "add", "one", "--model", folder, "--text", "a cat").returncode == 0
    with Site(site.settings) as seen:
        before = {step.module for step in seen.routes["one"].steps.values()}
        assert s2m3(site, "task", "add", "two", "--model", folder, "--text", "a dog").returncode == 0
        assert seen.wait(lambda s: s.ready("two"), WAIT_S)
        assert {step.module for step in seen.routes["two"].steps.values()} == before


def test_a_node_whose_copy_is_damaged_says_so_and_the_planner_places_elsewhere(
    site: Cluster, shelves: dict[str, Path]
) -> None:
    definition = checkpoint_definition(str(shelves["b"] / "pets"), "pets")
    assert definition is not None
    with Site(site.settings) as seen:
        add_task(seen, "damaged", m.TaskSpec(model=definition.model.id, definition=definition))
        assert seen.wait(lambda s: s.ready("damaged"), READY_S), seen.routes
        nodes = {r.node for step in seen.routes["damaged"].steps.values() for r in step.replicas}
        assert nodes == {"b"}
    answer = json.loads(s2m3(site, "ask", "damaged", "--image", str(CAT), "--json").stdout)
    assert answer["answer"] in ("cat", "dog", "bird")


def _pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _cut(folder: Path) -> None:
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])


def _index(folder: Path) -> None:
    names = ("vit.layernorm.bias", "classifier.weight")
    places = dict.fromkeys(names, "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _unknown(folder: Path) -> None:
    (folder / "config.json").write_text('{"architectures": ["VJEPA2Model"]}')


def _code(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "their-own", "auto_map": {"AutoModel": "modeling.Theirs"}}
    (folder / "config.json").write_text(json.dumps(config))


def _missing(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 4}))


def _misshapen(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 40}))


DAMAGES: dict[Callable[[Path], None], str] = {
    _pickle: "only pytorch_model.bin: other formats can run code",
    _cut: "model.safetensors is damaged",
    _index: "which is not there",
    _unknown: "'VJEPA2Model' is not known; known: ",
}


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_checkpoint_is_refused_where_the_task_is_added(
    tiny: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    folder = tmp_path / "bad"
    shutil.copytree(tiny / "tiny-vit", folder)
    damage(folder)
    with pytest.raises(BadInputError, match=re.escape(DAMAGES[damage])):
        checkpoint_definition(str(folder), None)


def test_a_refused_checkpoint_is_one_line_and_exit_2(site: Cluster, tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tiny-vit", tmp_path / "bad")
    _pickle(tmp_path / "bad")
    done = s2m3(site, "task", "add", "bad", "--model", str(tmp_path / "bad"))
    assert done.returncode == 2
    assert done.stderr.startswith("s2m3: unsupported_checkpoint: ")
    assert len(done.stderr.splitlines()) == 1


LATER: dict[Callable[[Path], None], str] = {
    **DAMAGES,
    _code: "which is never run",
    _missing: "missing: vit.",
    _misshapen: "of another shape: vit.",
}


def test_checkpoints_that_are_damaged_later_are_failed_modules_that_say_why_all_at_once(
    site: Cluster, tiny: Path, tmp_path: Path
) -> None:
    tasks: dict[str, str] = {}
    with Site(site.settings) as seen:
        for damage, why in LATER.items():
            folder = tmp_path / f"late{damage.__name__.replace('_', '-')}"
            shutil.copytree(tiny / "tiny-vit", folder)
            definition = checkpoint_definition(str(folder), None)
            assert definition is not None
            damage(folder)
            add_task(seen, folder.name, m.TaskSpec(model=definition.model.id, definition=definition))
            tasks[folder.name] = why
        failed: set[str] = set()

        def all_have_failed(s: Site) -> bool:
            """Whether each has said why; while a module is tried again, its route says nothing."""
            said = {task: doc.error.detail for task, doc in s.routes.items() if doc.error is not None}
            failed.update(
                task for task, why in tasks.items() if "module_failed: " in said.get(task, "") and why in said[task]
            )
            return failed == tasks.keys()

        assert seen.wait(all_have_failed, READY_S), seen.routes
        for task in tasks:
            seen.publish(topics.TASK, b"", task=task)


def test_a_checkpoint_that_fits_nowhere_is_no_capacity(site: Cluster, tiny: Path) -> None:
    definition = checkpoint_definition(str(tiny / "tiny-blip"), None)
    assert definition is not None
    large = [spec.model_copy(update={"memory_mb": 5000.0}) for spec in definition.modules]
    spec = m.TaskSpec(model=definition.model.id, definition=definition.model_copy(update={"modules": large}))
    with Site(site.settings) as seen:
        add_task(seen, "large", spec)

        def why(s: Site) -> str:  # at first: no node has said yet that it holds the source
            doc = s.routes.get("large")
            return f"{doc.error.code}: {doc.error.detail}" if doc and doc.error else ""

        # a part that writes text needs its cache besides
        assert seen.wait(lambda s: "needs 5000" in why(s), WAIT_S), why(seen)
        assert why(seen).startswith("no_capacity: ")


def test_a_name_that_was_another_model_waits_for_its_own_route(site: Cluster, tiny: Path) -> None:
    refused = s2m3(site, "task", "add", "again", "--model", "no-such-model")
    assert refused.returncode == 2
    added = s2m3(site, "task", "add", "again", "--model", str(tiny / "tiny-vit"))
    assert added.returncode == 0, added.stderr
    assert "classes on" in added.stdout
    changed = s2m3(site, "task", "add", "again", "--model", str(tiny / "tiny-clip"), "--text", "a cat")
    assert "match on" in changed.stdout


def test_a_hub_id_is_told_from_a_folder() -> None:
    with pytest.raises(BadInputError, match="is no folder here; what is on the hub is served by a definition"):
        checkpoint_definition("openai/clip-vit-base-patch16", None)


def test_a_folder_that_is_not_there_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is not a folder"):
        checkpoint_definition(str(tmp_path / "nowhere"), None)


def test_a_name_without_a_slash_is_a_model_of_a_file() -> None:
    assert checkpoint_definition("retrieval", None) is None


def test_a_definition_that_cannot_run_is_refused_by_its_route(site: Cluster, tiny: Path) -> None:
    definition = checkpoint_definition(str(tiny / "tiny-siglip"), None)
    assert definition is not None
    spec = m.TaskSpec(model=definition.model.id, definition=definition.model_copy(update={"modules": []}))
    with Site(site.settings) as seen:
        add_task(seen, "wrong", spec)
        assert seen.wait(lambda s: "wrong" in s.routes and s.routes["wrong"].error is not None, WAIT_S)
        error = seen.routes["wrong"].error
        assert error is not None
        assert error.code == "bad_input"
        assert "unknown module" in error.detail
