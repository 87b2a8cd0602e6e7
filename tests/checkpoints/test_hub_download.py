"""`--download` from a server that speaks the hub's HTTP API: what is fetched, what survives a cut, what is refused."""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.registry import identify
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import ModuleFailedError
from s2m3.snapshot import Site
from tests.checkpoints.conftest import READY_S
from tests.checkpoints.hub_server import Hub, serving
from tests.checkpoints.models import definition
from tests.conftest import WAIT_S
from tests.families.family import definition as family_definition
from tests.families.picture import make_stable_diffusion
from tests.families.texts import TEXTS

HUB_ID, TOKEN = "acme/tiny-clip", "hf_ThisIsASecretOfTheTest"
OLD, NEW = "1" * 40, "2" * 40
DOWNLOAD = CheckpointSources(download=True)


def part(folder: Path, name: str, revision: str = "") -> ModuleSpec:
    spec = next(spec for spec in definition(folder, "tiny-clip").modules if spec.prefix == name)
    return spec.model_copy(update={"source": HUB_ID, "revision": revision})


@pytest.fixture
def hub(tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A repository with a checkpoint, and beside it what must never be fetched; a token is in the environment."""
    files = {path.name: path.read_bytes() for path in (tiny / "tiny-clip").iterdir()}
    files |= {"pytorch_model.bin": b"a pickle", "modeling_own.py": b"raise SystemExit", "README.md": b"# CLIP"}
    with serving(Hub(HUB_ID, {OLD: files, NEW: files | {"merges.txt": b"new"}}, {"main": OLD})) as found:
        _use(found, tmp_path, monkeypatch)
        yield found


def _use(found: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes huggingface_hub ask a server, and keep what it fetches in a folder."""
    monkeypatch.setattr(constants, "ENDPOINT", found.endpoint)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants._HF_DEFAULT_ENDPOINT, found.endpoint)  # noqa: SLF001
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)


def shards_of(tiny: Path, name: str) -> set[str]:
    opened = open_part(part(tiny, name).model_copy(update={"source": "tiny-clip"}), CheckpointSources((tiny,)))
    return {info.file.name for info in opened.checkpoint.tensors.values()}


def test_only_small_files_and_the_shards_of_the_part_are_fetched(tiny: Path, hub: Hub) -> None:
    opened = open_part(part(tiny, "text"), DOWNLOAD)
    large = {name for name in hub.fetched() if name.endswith(".safetensors")}
    assert large == shards_of(tiny, "text")
    assert large < {name for name in hub.commits[OLD] if name.endswith(".safetensors")}
    assert not {"pytorch_model.bin", "modeling_own.py", "README.md"} & set(hub.fetched())
    local = part(tiny, "text").model_copy(update={"source": "tiny-clip"})
    assert identify(part(tiny, "text"), DOWNLOAD) == identify(local, CheckpointSources((tiny,)))
    assert opened.checkpoint.folder.name == OLD
    before = len(hub.fetched())
    open_part(part(tiny, "text"), DOWNLOAD)
    assert len(hub.fetched()) == before, "what is there is not fetched again"


@pytest.mark.parametrize("part_id", ["text", "denoiser", "decoder"])
def test_of_a_pipeline_the_weights_of_the_parts_own_component_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part_id: str
) -> None:
    (made := tmp_path / "paint").mkdir()
    make_stable_diffusion(made)
    spec = next(spec for spec in family_definition(made).modules if spec.prefix == part_id)
    files = {path.relative_to(made).as_posix(): path.read_bytes() for path in made.rglob("*.*")}
    with serving(Hub(HUB_ID, {OLD: files | {"unet/model.bin": b"a pickle"}}, {"main": OLD})) as hub:
        _use(hub, tmp_path, monkeypatch)
        opened = open_part(spec.model_copy(update={"source": HUB_ID}), DOWNLOAD)
    component = {"text": "text_encoder", "denoiser": "unet", "decoder": "vae"}[part_id]
    large = {name for name in hub.fetched() if name.endswith((".safetensors", ".bin"))}
    assert {Path(name).parent.name for name in large} == {component}
    assert opened.tensors().keys() == open_part(spec, CheckpointSources((tmp_path,))).tensors().keys()


def test_a_download_that_is_cut_is_taken_up_where_it_ended(
    tiny: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 256)  # whole ones are kept: of these three
    shard = min(shards_of(tiny, "text"))
    hub.cuts[shard] = 1_000
    open_part(part(tiny, "text"), DOWNLOAD)
    taken = [
        one.range for one in hub.seen if one.server == "store" and one.path.endswith(shard) and one.method == "GET"
    ]
    assert taken == ["", "bytes=768-"]
    assert identify(part(tiny, "text"), DOWNLOAD)


def test_a_commit_stays_what_it_was_though_the_branch_moves(tiny: Path, hub: Hub) -> None:
    hub.branches["main"] = NEW
    assert open_part(part(tiny, "text", OLD), DOWNLOAD).checkpoint.folder.name == OLD
    assert not any("/revision/main" in one.path or NEW in one.path for one in hub.seen)
    assert open_part(part(tiny, "text"), DOWNLOAD).checkpoint.folder.name == NEW


def test_the_weights_are_of_the_same_commit_as_the_configuration(tiny: Path, hub: Hub) -> None:
    class Moving(CheckpointSources):
        def folder(self, spec: ModuleSpec, files: object = ()) -> Path:
            found = super().folder(spec, files)  # type: ignore[arg-type]
            hub.branches["main"] = NEW  # someone pushes between the two
            return found

    opened = open_part(part(tiny, "text"), Moving(download=True))
    assert {info.file.parent.name for info in opened.checkpoint.tensors.values()} == {OLD}


def test_a_token_goes_to_the_hub_alone_and_into_no_log(
    tiny: Path, hub: Hub, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    hub.cuts[min(shards_of(tiny, "text"))] = 100
    open_part(part(tiny, "text"), DOWNLOAD)
    assert {one.authorization for one in hub.seen if one.server == "hub"} == {f"Bearer {TOKEN}"}
    assert {one.authorization for one in hub.seen if one.server == "store"} == {""}
    hub.status = 401
    with pytest.raises(ModuleFailedError, match="cannot be had from the hub or its cache") as caught:
        open_part(part(tiny, "text", NEW), DOWNLOAD)
    said = [caplog.text, *capfd.readouterr(), caught.value.detail]
    assert not any(TOKEN in text for text in said)


@pytest.mark.parametrize(
    "file", ["../../evil.safetensors", "/etc/passwd", "*", "[m]odel.safetensors", "pytorch_model.bin"]
)
def test_an_index_that_names_something_else_than_a_weight_file_is_refused(tiny: Path, hub: Hub, file: str) -> None:
    index = json.loads(hub.commits[OLD]["model.safetensors.index.json"])
    places = {name: file if "text" in name else place for name, place in index["weight_map"].items()}
    hub.commits[OLD]["model.safetensors.index.json"] = json.dumps({"weight_map": places}).encode()
    with pytest.raises(ModuleFailedError, match="names the weight file"):
        open_part(part(tiny, "text"), DOWNLOAD)
    assert not any(name.endswith((".safetensors", ".bin")) for name in hub.fetched())


def test_a_repository_whose_files_lead_out_of_it_writes_nothing_there(tiny: Path, hub: Hub, tmp_path: Path) -> None:
    hub.commits[OLD]["../../../../evil.json"] = b"{}"
    with pytest.raises(ModuleFailedError):
        open_part(part(tiny, "text"), DOWNLOAD)
    assert not [path for path in tmp_path.rglob("evil.json") if "snapshots" not in path.parts]


def test_a_hub_that_refuses_is_a_failed_module_and_what_is_cached_is_served(tiny: Path, hub: Hub) -> None:
    open_part(part(tiny, "text"), DOWNLOAD)
    hub.status = 403
    assert open_part(part(tiny, "text", OLD), DOWNLOAD).checkpoint.folder.name == OLD
    with pytest.raises(ModuleFailedError, match="cannot be had from the hub or its cache"):
        open_part(part(tiny, "vision", NEW), DOWNLOAD)


def test_an_agent_with_download_serves_what_only_the_hub_has(tiny: Path, hub: Hub) -> None:
    spec = part(tiny, "text", OLD)
    with Cluster({}, planner=False, threads=1) as cluster:
        cluster.environment |= {name: os.environ[name] for name in ("HF_ENDPOINT", "HF_HUB_CACHE", "HF_TOKEN")}
        flags = ["--node", "a", "--memory-mb", "1500", "--threads", "1", "--download", "--verbose"]
        cluster._spawn("a", "agent", *flags)  # noqa: SLF001  # a cluster's agents do not download
        with Site(cluster.settings) as seen:
            assert seen.wait(lambda s: "a" in s.profiles, WAIT_S), cluster.log("a")
            seen.publish(topics.PLAN, m.Plan(epoch=1, revision=1, modules=[spec]).encode(), node="a")
            ready = seen.wait(lambda s: _state(s, spec.id) in ("ready", "failed"), READY_S)
            assert ready, cluster.log("a")
            assert _state(seen, spec.id) == "ready", cluster.log("a")
        assert TOKEN not in cluster.log("a")
    assert {name for name in hub.fetched() if name.endswith(".safetensors")} == shards_of(tiny, "text")


def _state(site: Site, module: str) -> str | None:
    report = site.reported["a"].modules.get(module) if "a" in site.reported else None
    return report.state if report is not None else None


def test_a_sentence_encoder_comes_with_its_pooling_and_its_linear_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tmp_path / "embedding-gemma"
    made.mkdir()
    next(family for family in TEXTS if family.name == made.name).make(made)
    files = {str(path.relative_to(made)): path.read_bytes() for path in made.rglob("*") if path.is_file()}
    with serving(Hub(HUB_ID, {OLD: files}, {"main": OLD})) as found:
        _use(found, tmp_path, monkeypatch)
        (spec,) = definition(tmp_path, made.name).modules
        remote = spec.model_copy(update={"source": HUB_ID})
        assert identify(remote, DOWNLOAD) == identify(spec, CheckpointSources((tmp_path,)))
    assert {"1_Pooling/config.json", "2_Dense/model.safetensors", "3_Dense/config.json"} <= set(found.fetched())
