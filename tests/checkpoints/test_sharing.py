"""Towers that are bit-identical in several checkpoints are one module, without anybody declaring it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file

from s2m3.agents.registry import identify
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.sharing import shared_with
from s2m3.commands.tasks import checkpoint_definition
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import Definition
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.specs import Origin
from s2m3.snapshot import Site
from tests import command
from tests.checkpoints import whole
from tests.checkpoints.tiny import (
    IMAGE,
    VICUNA,
    VOCABULARY_SETTINGS,
    alter,
    make_vit_classifier,
    pictures,
    save,
    tokenizer,
)
from tests.conftest import WAIT_S
from tests.families.vision_language_checkpoints import CHECKPOINTS, WIDE_GEMMA
from tests.zoo.samples import sample

CAT = sample("chelsea.jpg")


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return {name: weight for path in folder.glob("*.safetensors") for name, weight in load_file(path).items()}


def rewrite(folder: Path, given: dict[str, torch.Tensor], dtype: torch.dtype | None = None) -> None:
    """Writes some tensors of a checkpoint anew, and all in another dtype."""
    for path in folder.glob("*.safetensors"):
        changed = {name: given.get(name, weight).to(dtype or weight.dtype) for name, weight in load_file(path).items()}
        save_file({name: weight.contiguous() for name, weight in changed.items()}, path, {"format": "pt"})


def change(folder: Path, file: str, **settings: Any) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def make_llava_on(clip: Path, folder: Path, width: int, dtype: torch.dtype, **how: Any) -> None:
    """A LLaVA of some width of its language model, around the tower of a CLIP, stored in a dtype."""
    words = t.LlamaConfig(
        hidden_size=width, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        max_position_embeddings=64, **VOCABULARY_SETTINGS,
    )  # fmt: skip
    vision = t.CLIPConfig.from_pretrained(clip).vision_config
    config = t.LlavaConfig(vision_config=vision, text_config=words, image_token_index=IMAGE)
    save(t.LlavaForConditionalGeneration(config), folder, **how)
    tokenizer(folder, longest=64)
    pictures(folder)
    (folder / "chat_template.jinja").write_text(VICUNA)
    towers = {name: name.partition("vision_tower.")[2] for name in weights_of(folder) if "vision_tower." in name}
    numbers = weights_of(clip)
    of_clip = {name: numbers["vision_model." + inside.removeprefix("vision_model.")] for name, inside in towers.items()}
    assert of_clip
    rewrite(folder, of_clip, dtype)


@pytest.fixture(scope="module")
def shelf(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CLIP of numbers that half precision holds, in float32; two LLaVAs on its tower, one sharded, in float16."""
    folder = tmp_path_factory.mktemp("shelf")
    shutil.copytree(tiny / "tiny-clip", folder / "clip")
    rewrite(folder / "clip", {name: weight.half().float() for name, weight in weights_of(folder / "clip").items()})
    make_llava_on(folder / "clip", folder / "llava-small", 32, torch.float16, max_shard_size="60KB")
    make_llava_on(folder / "clip", folder / "llava-large", 48, torch.float32)
    return folder


def definition(folder: Path, source: str | None = None) -> Definition:
    found = checkpoint_definition(str(folder), source)
    assert found is not None
    return found


def task(found: Definition) -> TaskSpec:
    return TaskSpec(model=found.model.id, definition=found)


def shared_parts(new: Path, *held: Path) -> set[str]:
    """The parts of a checkpoint that tasks of others hold."""
    tasks = {path.name: task(definition(path)) for path in held}
    _, found = shared_with(definition(new), new, tasks)
    return {one.part for one in found}


@pytest.mark.parametrize("source", [None, "clip"])
def test_llavas_tower_is_found_to_be_clips(shelf: Path, source: str | None) -> None:
    held = definition(shelf / "clip", source)
    found, shared = shared_with(definition(shelf / "llava-small"), shelf / "llava-small", {"find": task(held)})
    assert [(one.part, one.module.prefix, one.tasks) for one in shared] == [("vision", "vision", ("find",))]
    specs = {spec.id: spec for spec in found.modules}
    assert specs[found.model.steps["image"].module].same_as == held.modules[0].id
    assert held.modules[0].id in specs


def test_two_language_models_of_other_sizes_share_the_tower_whatever_its_files(shelf: Path) -> None:
    assert shared_parts(shelf / "llava-large", shelf / "llava-small") == {"vision"}
    assert shared_parts(shelf / "llava-small", shelf / "llava-large") == {"vision"}


def test_two_sizes_of_gemma_3_share_their_tower(tmp_path: Path) -> None:
    small, large = CHECKPOINTS["gemma3"], WIDE_GEMMA
    for name, checkpoint in (("small", small), ("large", large)):
        (tmp_path / name).mkdir()
        checkpoint.write(tmp_path / name)
    towers = [
        {n: w for n, w in weights_of(tmp_path / name).items() if "vision_tower" in n} for name in ("small", "large")
    ]
    assert all(torch.equal(weight, towers[1][name]) for name, weight in towers[0].items())
    assert shared_parts(tmp_path / "large", tmp_path / "small") == {"vision"}


@pytest.mark.parametrize("holder", ["clip", "llava-small"])
def test_positions_that_an_older_release_saved_make_no_other_tower(shelf: Path, tmp_path: Path, holder: str) -> None:
    for name in ("clip", "llava-small"):
        shutil.copytree(shelf / name, tmp_path / name)
    tensors = read_checkpoint(tmp_path / holder).tensors
    name = next(name for name in tensors if name.endswith("embeddings.patch_embedding.weight") and "vision" in name)
    positions = name.replace("patch_embedding.weight", "position_ids")
    file = tensors[name].file
    save_file(load_file(file) | {positions: torch.arange(17)[None]}, file, {"format": "pt"})
    index = tmp_path / holder / "model.safetensors.index.json"
    if index.is_file():
        places = json.loads(index.read_text())["weight_map"]
        index.write_text(json.dumps({"weight_map": places | {positions: file.name}}))
    assert shared_parts(tmp_path / "llava-small", tmp_path / "clip") == {"vision"}
    tower, own, _ = shared_with(
        definition(tmp_path / "llava-small"), tmp_path / "llava-small", {"find": task(definition(tmp_path / "clip"))}
    )[0].modules
    also = [Origin(source=own.source, revision=own.revision, prefix=own.prefix)]
    assert identify(tower.model_copy(update={"also": also})), "agents agree"


def test_what_holds_less_does_not_serve_what_holds_more(shelf: Path) -> None:
    assert shared_parts(shelf / "clip", shelf / "llava-small") == set()


@pytest.mark.parametrize(
    ("file", "settings"),
    [
        ("preprocessor_config.json", {"image_mean": [0.5, 0.5, 0.5]}),
        ("preprocessor_config.json", {"resample": 2}),
        ("preprocessor_config.json", {"do_center_crop": False}),
        ("config.json", {"vision_feature_layer": -1}),
        ("config.json", {"vision_feature_select_strategy": "full"}),
    ],
)
def test_a_tower_that_sees_or_gives_something_else_is_another(
    shelf: Path, tmp_path: Path, file: str, settings: dict[str, Any]
) -> None:
    shutil.copytree(shelf / "llava-small", tmp_path / "other")
    change(tmp_path / "other", file, **settings)
    assert shared_parts(tmp_path / "other", shelf / "clip") == set()
    assert "vision" not in shared_parts(tmp_path / "other", shelf / "llava-large")


def test_one_changed_number_makes_another_tower(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "llava-small", tmp_path / "other")
    name = next(name for name in weights_of(tmp_path / "other") if name.endswith("layers.0.mlp.fc1.bias"))
    alter(tmp_path / "other", name)
    assert shared_parts(tmp_path / "other", shelf / "clip") == set()


def test_a_tower_that_lacks_a_bias_is_not_the_one_that_has_it(shelf: Path, tmp_path: Path) -> None:
    shutil.copytree(shelf / "llava-large", tmp_path / "other")
    path = tmp_path / "other" / "model.safetensors"
    weights = {name: weight for name, weight in load_file(path).items() if not name.endswith("layers.0.mlp.fc1.bias")}
    save_file(weights, path, {"format": "pt"})
    assert shared_parts(tmp_path / "other", shelf / "clip") == set()


def test_a_distilled_whisper_shares_its_teachers_encoder(tiny: Path, tmp_path: Path) -> None:
    teacher, pupil = tmp_path / "teacher", tmp_path / "pupil"
    shutil.copytree(tiny / "tiny-whisper", teacher)
    numbers = {name: weight.half().float() for name, weight in weights_of(teacher).items()}
    rewrite(teacher, numbers)
    shutil.copytree(teacher, pupil)
    config = t.WhisperConfig.from_pretrained(pupil)
    config.decoder_layers = 1
    network = t.WhisperForConditionalGeneration(config)
    save(network, pupil, seed=11)
    rewrite(pupil, {name: weight for name, weight in numbers.items() if "encoder." in name}, torch.bfloat16)
    assert shared_parts(pupil, teacher) == set(), "bfloat16 does not hold these numbers"
    save(network, pupil, seed=11)
    rewrite(pupil, {name: weight for name, weight in numbers.items() if "encoder." in name}, torch.float16)
    assert shared_parts(pupil, teacher) == {"audio"}


def test_classifiers_with_other_heads_share_a_frozen_backbone(tmp_path: Path) -> None:
    pets, moods = tmp_path / "pets", tmp_path / "moods"
    make_vit_classifier(pets)
    config = t.ViTConfig.from_pretrained(pets)
    config.id2label, config.label2id = {0: "glad", 1: "sad"}, {"glad": 0, "sad": 1}
    save(t.ViTForImageClassification(config), moods, seed=5)
    pictures(moods, "ViTImageProcessorPil")
    rewrite(moods, {name: weight for name, weight in weights_of(pets).items() if name.startswith("vit.")})
    assert shared_parts(moods, pets) == {"vision"}


def test_texts_are_read_alike_only_by_the_same_tokenizer(tiny: Path, tmp_path: Path) -> None:
    for name in ("one", "other"):
        shutil.copytree(tiny / "tiny-distilbert", tmp_path / name)
    assert shared_parts(tmp_path / "one", tmp_path / "other") == {"head"}
    change(tmp_path / "one", "tokenizer_config.json", model_max_length=9)
    assert shared_parts(tmp_path / "one", tmp_path / "other") == set()


# A real site: one agent holds one tower for three tasks.


@pytest.fixture(scope="module")
def site(shelf: Path) -> Iterator[Cluster]:
    with Cluster({"a": 2500.0}, threads=1, checkpoints={"a": shelf}) as cluster:
        with Site(cluster.settings) as seen:
            assert seen.wait(lambda s: s.nodes.ready == {"a"} and len(s.profiles) == 1, WAIT_S)
        yield cluster


def add(site: Cluster, name: str, folder: Path) -> str:
    words = ["task", "add", name, "--model", str(folder), "--source", folder.name]
    done = command.s2m3(*words, port=site.settings.port)
    assert done.returncode == 0, done.stderr + site.log("a")
    return done.stdout


def test_5_one_tower_serves_three_checkpoints_and_each_answers_as_the_whole(site: Cluster, shelf: Path) -> None:
    assert "held already" not in add(site, "find", shelf / "clip")
    with Site(site.settings) as seen:
        before = {name: report.bytes for name, report in seen.reported["a"].modules.items()}
    assert "vision is held already for find on a: saves" in add(site, "tell", shelf / "llava-small")
    assert "vision is held already for find, tell on a: saves" in add(site, "say", shelf / "llava-large")
    with Site(site.settings) as seen:
        (tower,) = {seen.routes[task].steps["image"].module for task in ("find", "tell", "say")}
        after = {name: report.bytes for name, report in seen.reported["a"].modules.items()}
    assert before[tower] == after[tower]
    assert after.keys() - before.keys() == {name for name in after if "decoder" in name}
    assert len(after) == len(before) + 2
    with Client(settings=site.settings) as client, torch.inference_mode():
        for task_name, folder in (("tell", "llava-small"), ("say", "llava-large")):
            answer = client.ask(task_name, image=CAT, text="what is this", options={"max_tokens": whole.LONGEST}).value
            assert answer == whole.llava(shelf / folder, CAT, "what is this")["text"]


def test_the_tower_stays_when_the_task_that_brought_it_goes(site: Cluster, shelf: Path) -> None:
    add(site, "find", shelf / "clip")
    add(site, "tell", shelf / "llava-small")
    with Site(site.settings) as seen:
        tower = seen.routes["tell"].steps["image"].module
        removed = command.s2m3("task", "rm", "find", port=site.settings.port)
        assert removed.returncode == 0, removed.stderr
        assert seen.wait(lambda s: "find" not in s.routes and s.ready("tell"), WAIT_S), site.log("a")
        assert seen.routes["tell"].steps["image"].module == tower
        with Client(settings=site.settings) as client, torch.inference_mode():
            answer = client.ask("tell", image=CAT, text="what is this", options={"max_tokens": whole.LONGEST}).value
        assert answer == whole.llava(shelf / "llava-small", CAT, "what is this")["text"]
    assert "vision is held already for" in add(site, "find", shelf / "clip")
