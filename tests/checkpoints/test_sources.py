"""Where an agent finds checkpoints: its folders, a path, the hub's cache; what it says of that, what it may fetch."""

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub import constants

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.registry import can_load, identify, load
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.schemas.settings import AgentSettings
from tests.checkpoints.models import definition
from tests.command import s2m3_here
from tests.planner_service.site import make_facts

COMMIT = "0123456789abcdef0123456789abcdef01234567"
HUB_ID = "acme/tiny-clip"


def part(folder: Path, name: str, source: str, revision: str = "") -> ModuleSpec:
    spec = next(spec for spec in definition(folder, "tiny-clip").modules if spec.prefix == name)
    return spec.model_copy(update={"source": source, "revision": revision})


@pytest.fixture
def cache(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache as huggingface_hub lays it out, with one repository in it."""
    repository = tmp_path / "models--acme--tiny-clip"
    shutil.copytree(tiny / "tiny-clip", repository / "snapshots" / COMMIT)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    return repository


@pytest.mark.usefixtures("cache")
def test_folders_with_a_configuration_are_sources_by_name(tiny: Path) -> None:
    offered = CheckpointSources((tiny,)).offered()
    assert {"tiny-clip", "tiny-whisper", "tiny-clip-resnet", HUB_ID} <= set(offered)
    assert "hub" not in offered
    assert "hub" in CheckpointSources(download=True).offered()


def test_a_path_is_found_where_it_is(tiny: Path) -> None:
    sources = CheckpointSources()
    assert sources.holds(str(tiny / "tiny-clip"))
    assert not sources.holds(str(tiny / "nothing"))
    assert not sources.holds(str(tiny))
    assert not sources.holds("tiny-clip")


@pytest.mark.parametrize("source", ["../tiny-clip", "", ".", "~"])
def test_a_name_does_not_lead_out_of_the_folders(tiny: Path, source: str) -> None:
    assert not CheckpointSources((tiny / "tiny-clip",)).holds(source)


@pytest.mark.usefixtures("cache")
@pytest.mark.parametrize("revision", ["", "main", COMMIT])
def test_a_hub_id_is_loaded_from_the_cache(tiny: Path, revision: str) -> None:
    spec = part(tiny, "text", HUB_ID, revision)
    assert can_load(spec)
    assert load(spec).nbytes > 0
    assert identify(spec) == identify(part(tiny, "text", "tiny-clip"), CheckpointSources((tiny,)))


@pytest.mark.usefixtures("cache")
def test_a_revision_that_is_not_in_the_cache_is_a_failed_module(tiny: Path) -> None:
    with pytest.raises(ModuleFailedError, match="acme/tiny-clip at v2 cannot be had from the hub or its cache"):
        load(part(tiny, "text", HUB_ID, "v2"))


def test_a_cache_that_lacks_a_shard_is_a_failed_module_that_names_it(tiny: Path, cache: Path) -> None:
    for path in (cache / "snapshots" / COMMIT).glob("model-0000[3-7]*"):
        path.unlink()
    with pytest.raises(ModuleFailedError, match="which is not there"):
        load(part(tiny, "text", HUB_ID))


@pytest.mark.usefixtures("cache")
def test_a_hub_id_that_nobody_has_is_not_loaded_unless_it_may_be_fetched(tiny: Path) -> None:
    spec = part(tiny, "text", "acme/other")
    assert not can_load(spec)
    assert can_load(spec, CheckpointSources(download=True))
    with pytest.raises(ModuleFailedError, match="the checkpoint acme/other, which is not installed"):
        load(spec)


def test_only_small_files_and_the_shards_of_the_part_are_fetched(
    tiny: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []

    def fetch(_source: str, *, revision: str | None, allow_patterns: list[str], local_files_only: bool) -> str:
        assert (revision, local_files_only) == (COMMIT if asked else None, False)
        asked.append(allow_patterns)
        return str(cache / "snapshots" / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    load(part(tiny, "head", HUB_ID), CheckpointSources(download=True))
    first, second = asked
    assert not any("safetensors" in pattern for pattern in first if pattern != "*.json")
    shards = [pattern for pattern in second if pattern.endswith(".safetensors")]
    assert len(shards) == 1
    assert not any(pattern.endswith((".py", ".bin", "*")) for pattern in second)


def test_the_planner_places_a_hub_id_where_it_is_or_may_be_fetched(tiny: Path) -> None:
    facts = make_facts(nodes={"cached": 1000.0, "online": 1000.0, "neither": 1000.0})
    spec = part(tiny, "text", HUB_ID)
    for node, sources in {"cached": [HUB_ID], "online": ["hub"], "neither": ["other"]}.items():
        update = {"sources": sources, "classes": ["text-encoder"]}
        facts.profiles[node] = facts.profiles[node].model_copy(update=update)
    assert [node for node in facts.usable() if facts.can_load(spec, node, 0.0)] == ["cached", "online"]


def test_folders_are_set_as_in_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2M3_CHECKPOINTS", "one:two/three")
    assert AgentSettings.load().checkpoints == (Path("one"), Path("two/three"))


@pytest.mark.parametrize("setting", ["checkpoints", "exports"])
def test_27_a_folder_that_is_not_there_is_an_error_at_the_start(setting: str, tmp_path: Path) -> None:
    done = s2m3_here("agent", "--checkpoints", str(tmp_path), f"--{setting}", str(tmp_path / "gone"))
    assert done.returncode == 2
    assert f"setting {setting}: {tmp_path}/gone is not a folder" in done.stderr
