"""What a part is by its content: one number tells it, half precision does not hide it, declared sameness is checked."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from s2m3.agents.checkpoints.storage import identity
from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import cache_folder, fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.registry import identify
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import Definition, ModuleSpec, shipped_catalogue, with_definition
from s2m3.schemas.errors import BadDefinitionError, ModuleFailedError
from s2m3.snapshot import Site
from tests.checkpoints import whole
from tests.checkpoints.conftest import READY_S
from tests.checkpoints.models import definition
from tests.checkpoints.tiny import alter
from tests.zoo.samples import sample

CAT = sample("chelsea.jpg")


def part(folder: Path, checkpoint: str, name: str) -> ModuleSpec:
    return next(spec for spec in definition(folder, checkpoint).modules if spec.prefix == name)


def print_of(folder: Path, checkpoint: str, name: str = "vision") -> str:
    return fingerprint(open_part(part(folder, checkpoint, name), CheckpointSources((folder,))))


@pytest.fixture
def copies(tiny: Path, tmp_path: Path) -> Path:
    """A folder of this test's own, with a CLIP in several files and a classifier in one."""
    for name in ("tiny-clip", "tiny-vit"):
        shutil.copytree(tiny / name, tmp_path / name)
    return tmp_path


def rewrite(folder: Path, change: dict[str, torch.Tensor] | None = None, dtype: torch.dtype | None = None) -> None:
    """Writes a checkpoint's files anew, with some tensors changed or all in another precision."""
    for path in folder.glob("*.safetensors"):
        weights = load_file(path)
        changed = {name: (change or {}).get(name, weight) for name, weight in weights.items()}
        save_file({name: weight.to(dtype) if dtype else weight for name, weight in changed.items()}, path)


def test_equal_content_in_another_place_has_the_same_fingerprint(tiny: Path, copies: Path) -> None:
    assert print_of(copies, "tiny-clip") == print_of(tiny, "tiny-clip")
    assert print_of(copies, "tiny-clip", "text") != print_of(tiny, "tiny-clip")


@pytest.mark.parametrize("tensor", ["vit.layernorm.weight", "vit.encoder.layer.2.output.dense.bias"])
def test_one_changed_number_changes_it(copies: Path, tensor: str) -> None:
    before = print_of(copies, "tiny-vit")
    weight = load_file(copies / "tiny-vit" / "model.safetensors")[tensor]
    weight[3] += 1e-3
    rewrite(copies / "tiny-vit", {tensor: weight})
    assert print_of(copies, "tiny-vit") != before


def test_another_part_of_the_same_file_does_not_change_it(copies: Path) -> None:
    before = print_of(copies, "tiny-vit")
    rewrite(copies / "tiny-vit", {"classifier.bias": torch.ones(3)})
    assert print_of(copies, "tiny-vit") == before


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_same_numbers_stored_in_half_precision_have_the_same_fingerprint(copies: Path, dtype: torch.dtype) -> None:
    rewrite(copies / "tiny-vit", dtype=dtype)
    half = print_of(copies, "tiny-vit")
    rewrite(copies / "tiny-vit", dtype=torch.float32)
    assert print_of(copies, "tiny-vit") == half


@pytest.mark.parametrize(
    ("key", "value"), [("num_attention_heads", 2), ("layer_norm_eps", 1e-3), ("hidden_act", "relu")]
)
def test_a_configuration_that_computes_something_else_changes_it(copies: Path, key: str, value: object) -> None:
    before = print_of(copies, "tiny-vit")
    path = copies / "tiny-vit" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    assert print_of(copies, "tiny-vit") != before


def test_what_computes_nothing_does_not_change_it(copies: Path) -> None:
    before = print_of(copies, "tiny-vit")
    path = copies / "tiny-vit" / "config.json"
    config = {**json.loads(path.read_text()), "transformers_version": "4.1", "hidden_dropout_prob": 0.3}
    path.write_text(json.dumps({name: value for name, value in config.items() if name != "qkv_bias"}))
    assert print_of(copies, "tiny-vit") == before


def test_it_is_computed_once_and_again_when_the_file_has_changed(copies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = print_of(copies, "tiny-vit")
    assert any(cache_folder().glob("*.json"))
    with monkeypatch.context() as patch:
        patch.setattr(identity, "_digest", lambda _: pytest.fail("was read again"))
        assert print_of(copies, "tiny-vit") == known
    rewrite(copies / "tiny-vit", {"vit.layernorm.weight": torch.ones(32)})
    assert print_of(copies, "tiny-vit") != known


def test_a_cache_that_holds_nonsense_is_computed_anew(copies: Path) -> None:
    known = print_of(copies, "tiny-vit")
    for path in cache_folder().glob("*.json"):
        path.write_text("nonsense")
    assert print_of(copies, "tiny-vit") == known


def test_a_module_that_is_not_what_its_definition_says_is_refused(tiny: Path) -> None:
    spec = part(tiny, "tiny-vit", "vision").model_copy(update={"fingerprint": "0" * 64})
    with pytest.raises(ModuleFailedError) as caught:
        identify(spec, CheckpointSources((tiny,)))
    assert "0" * 64 in caught.value.detail
    assert print_of(tiny, "tiny-vit") in caught.value.detail


# LLaVA's tower is CLIP's: stored in half precision, without the projection, under other names.


@pytest.fixture(scope="module")
def kin(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP, its numbers rounded to half precision, and a LLaVA around its tower that stores them so."""
    folder = tmp_path_factory.mktemp("kin")
    for name in ("tiny-clip", "tiny-llava"):
        shutil.copytree(tiny / name, folder / name)
    rewrite(folder / "tiny-clip", dtype=torch.float16)
    rewrite(folder / "tiny-clip", dtype=torch.float32)
    clip = {k: v for path in (folder / "tiny-clip").glob("*.safetensors") for k, v in load_file(path).items()}
    tower = {
        k.replace("vision_model.", "vision_tower.", 1): v for k, v in clip.items() if k.startswith("vision_model.")
    }
    rewrite(folder / "tiny-llava", tower, torch.float16)
    return folder


def shared(folder: Path) -> Definition:
    """LLaVA, its tower declared to be CLIP's."""
    llava, tower = definition(folder, "tiny-llava"), part(folder, "tiny-clip", "vision")
    own, words = llava.modules
    modules = [tower, own.model_copy(update={"same_as": tower.id}), words]
    return Definition(model=llava.model, modules=modules)


def test_a_declared_tower_is_one_module_with_two_outputs(kin: Path) -> None:
    catalogue, model = with_definition(shipped_catalogue(), shared(kin))
    tower = catalogue.modules[model.steps["image"].module]
    assert tower.source == "tiny-clip"
    assert {"embedding", "tokens"} <= tower.outputs.keys()
    assert [origin.source for origin in tower.also] == ["tiny-llava"]
    assert len(identify(tower, CheckpointSources((kin,)))) == 64


@pytest.mark.parametrize("checkpoint", ["tiny-clip", "tiny-llava"])
def test_a_tower_that_is_not_what_it_is_declared_to_be_is_refused_with_both_fingerprints(
    kin: Path, tmp_path: Path, checkpoint: str
) -> None:
    for name in ("tiny-clip", "tiny-llava"):
        shutil.copytree(kin / name, tmp_path / name)
    alter(
        tmp_path / checkpoint,
        {"tiny-clip": "vision_model", "tiny-llava": "vision_tower"}[checkpoint] + ".post_layernorm.bias",
    )
    catalogue, model = with_definition(shipped_catalogue(), shared(tmp_path))
    tower = catalogue.modules[model.steps["image"].module]
    sources = CheckpointSources((tmp_path,))
    with pytest.raises(ModuleFailedError) as caught:
        identify(tower, sources)
    assert fingerprint(open_part(part(tmp_path, "tiny-llava", "vision"), sources)) in caught.value.detail
    assert "tiny-clip (" in caught.value.detail


def test_a_device_that_has_only_one_of_the_checkpoints_serves_it(kin: Path, tmp_path: Path) -> None:
    catalogue, model = with_definition(shipped_catalogue(), shared(kin))
    shutil.copytree(kin / "tiny-clip", tmp_path / "tiny-clip")
    tower = catalogue.modules[model.steps["image"].module]
    assert identify(tower, CheckpointSources((tmp_path,))) == print_of(kin, "tiny-clip")


def test_a_device_that_has_only_other_parts_of_the_second_checkpoint_serves_it(kin: Path, tmp_path: Path) -> None:
    for name in ("tiny-clip", "tiny-llava"):
        shutil.copytree(kin / name, tmp_path / name)
    tensors = read_checkpoint(tmp_path / "tiny-llava").tensors
    next(tensor.file for name, tensor in tensors.items() if name.startswith("vision_tower.")).unlink()
    catalogue, model = with_definition(shipped_catalogue(), shared(kin))
    tower = catalogue.modules[model.steps["image"].module]
    assert identify(tower, CheckpointSources((tmp_path,))) == print_of(kin, "tiny-clip")


def test_sameness_with_what_cannot_do_the_same_is_a_wrong_definition(kin: Path) -> None:
    found = shared(kin)
    words = found.modules[2].model_copy(update={"same_as": found.modules[0].id})
    with pytest.raises(BadDefinitionError, match="does not take and give"):
        with_definition(shipped_catalogue(), found.model_copy(update={"modules": [*found.modules[:2], words]}))
    stray = found.modules[1].model_copy(update={"same_as": "nobody"})
    with pytest.raises(BadDefinitionError, match="'nobody' is no module"):
        with_definition(shipped_catalogue(), found.model_copy(update={"modules": [stray, found.modules[2]]}))


@pytest.fixture(scope="module")
def site(kin: Path) -> Iterator[Cluster]:
    with Cluster({"a": 1500.0, "b": 1500.0}, threads=1, checkpoints=dict.fromkeys("ab", kin)) as cluster:
        yield cluster


def test_two_tasks_are_served_by_one_tower_and_both_answer_as_the_whole_models(site: Cluster, kin: Path) -> None:
    clip = definition(kin, "tiny-clip")
    tasks = {"find": clip, "tell": shared(kin)}
    with Site(site.settings) as seen:
        for task, found in tasks.items():
            add_task(seen, task, m.TaskSpec(model=found.model.id, definition=found))
        assert seen.wait(lambda s: all(s.ready(task) for task in tasks), READY_S), seen.routes
        modules = {seen.routes[task].steps["image"].module for task in tasks}
        assert modules == {part(kin, "tiny-clip", "vision").id}
        assert seen.routes["find"].steps["image"].outputs == ["embedding"]
        assert seen.routes["tell"].steps["image"].outputs == ["tokens"]
    with Client(settings=site.settings) as client, torch.inference_mode():
        told = client.ask("tell", image=CAT, text="what is this").value
        assert told == whole.llava(kin / "tiny-llava", CAT, "what is this")["text"]
        found_text = client.ask("find", image=CAT, text=["a cat", "a dog"]).outputs["ranking"]
        expected = whole.clip(kin / "tiny-clip", CAT, ["a cat", "a dog"])["ranking"]
    assert [row["label"] for row in found_text] == [row["label"] for row in expected]
