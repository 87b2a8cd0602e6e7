"""Stable Diffusion in parts: what is refused, what is read, what is shared with CLIP, what a request may say."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers as d
import numpy as np
import pytest
import torch
import transformers as t
from PIL import Image
from safetensors.torch import load_file, save_file

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.modules.casting import HALVES
from s2m3.agents.modules.slices import sliced
from s2m3.agents.registry import classes
from s2m3.commands.sharing import served_later, shared_with
from s2m3.commands.tasks import checkpoint_definition
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.errors import BadInputError, ModuleFailedError, RequestTimeoutError, UnsupportedCheckpointError
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.specs import Definition, ModuleSpec
from s2m3.schemas.wire.generation import Options
from tests.checkpoints.inprocess import loaded, run_all, run_module
from tests.command import s2m3_here
from tests.families.dual import clip_words
from tests.families.family import definition
from tests.families.picture import PICTURE, make_stable_diffusion
from tests.families.speech import randomised

ROW = PICTURE[0]
TEXT = {"text": ["a cat on the moon"]}
VAE = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipelines")
    (folder / "paint").mkdir()
    make_stable_diffusion(folder / "paint", skip_prk_steps=True, set_alpha_to_one=False)
    return folder


def parts(folder: Path, *options: str) -> dict[str, ModuleSpec]:
    return {spec.prefix: spec for spec in definition(folder, options or ROW.options).modules}


def pixels(file: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(file))).astype(int)


def painted(folder: Path, inputs: dict[str, Any], *options: str) -> Any:
    return pixels(run_all(folder.parent, definition(folder, options or ROW.options), inputs)["picture.image"])


def says(file: str, **changes: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **changes}))

    return change


def pickled(folder: Path) -> None:
    (folder / "unet" / VAE).rename(folder / "unet" / "diffusion_pytorch_model.bin")


INDEX, UNET, WORDS = "model_index.json", "unet/config.json", "text_encoder/config.json"
REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "sdxl": (says(INDEX, _class_name="StableDiffusionXLPipeline"), "model_index.json: StableDiffusionXLPipeline is no"),
    "flux": (says(INDEX, _class_name="FluxPipeline"), "of diffusers' pipelines: StableDiffusionPipeline"),
    "tower": (says(INDEX, text_encoder=["transformers", "T5EncoderModel"]), "has T5EncoderModel as text_encoder"),
    "no-vae": (says(INDEX, vae=[None, None]), "has nothing as vae; AutoencoderKL is served"),
    "sde": (says(INDEX, scheduler=["diffusers", "DPMSolverSDEScheduler"]), "has DPMSolverSDEScheduler as scheduler"),
    "beta": (says("scheduler/scheduler_config.json", use_beta_sigmas=True), "which needs the package scipy"),
    "inpaint": (says(UNET, in_channels=9), "a denoiser of 9 channels and latents of 4"),
    "classes": (says(UNET, num_class_embeds=7), "is told more than a text (num_class_embeds=7)"),
    "quantised": (says(UNET, quantization_config={"quant_method": "gguf"}), "has a quantised unet"),
    "masked": (says(WORDS, use_attention_mask=True), "masks the padding of its texts"),
    "sizes": (says("vae/config.json", block_out_channels=None), "does not say how large its pictures are"),
    "words": (lambda folder: shutil.rmtree(folder / "tokenizer"), "holds no tokenizer"),
    "pickle": (pickled, "only diffusion_pytorch_model.bin: other formats can run code and are never read"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pipeline_that_cannot_be_served_is_refused_in_one_line(made: Path, tmp_path: Path, name: str) -> None:
    damage, why = REFUSED[name]
    shutil.copytree(made / "paint", tmp_path / "given")
    damage(tmp_path / "given")
    with pytest.raises(UnsupportedCheckpointError) as caught:
        checkpoint_definition(str(tmp_path / "given"), None)
    assert why in caught.value.detail
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("name", ["../elsewhere", "/unet", "Unet", ""])
def test_a_component_is_a_folder_inside_the_checkpoint(made: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(made / "paint", tmp_path / "given")
    says(INDEX, **{name: ["diffusers", "UNet2DConditionModel"]})(tmp_path / "given")
    with pytest.raises(BadInputError, match=r"model_index\.json names the component"):
        checkpoint_definition(str(tmp_path / "given"), None)


def test_a_safety_checker_is_not_run_and_task_add_says_so(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "paint", tmp_path / "paint")
    says(INDEX, safety_checker=["stable_diffusion", "StableDiffusionSafetyChecker"])(tmp_path / "paint")
    (tmp_path / "paint" / "safety_checker").mkdir()
    (tmp_path / "paint" / "safety_checker" / "config.json").write_text('{"model_type": "clip"}')
    done = s2m3_here("task", "add", "paint", "--model", str(tmp_path / "paint"), "--port", "1")
    assert done.stderr.splitlines()[0] == "s2m3: paint has a safety_checker, which is not run: no picture is held back"
    assert (painted(tmp_path / "paint", TEXT) == painted(made / "paint", TEXT)).all()


@pytest.mark.parametrize(("part", "folder"), [("text", "text_encoder"), ("denoiser", "unet"), ("decoder", "vae")])
def test_a_part_reads_the_weights_of_its_own_component_alone(
    made: Path, tmp_path: Path, part: str, folder: str
) -> None:
    shutil.copytree(made / "paint", tmp_path / "paint")
    for file in tmp_path.glob("paint/*/*.safetensors"):
        if file.parent.name != folder:
            file.unlink()
    spec = parts(made / "paint")[part]
    opened = open_part(spec, CheckpointSources((tmp_path,)))
    assert {info.file.parent.name for info in opened.checkpoint.tensors.values()} == {folder}
    assert not any(name.startswith("encoder.") for name in opened.names.values()) or part == "text"
    module = loaded(tmp_path, spec)
    held = sum(4 * info.count for info in opened.tensors().values())
    assert module.nbytes == pytest.approx(held, rel=0.01)  # the tower has a table of positions beside its weights


def test_weights_in_several_files_are_the_same_picture(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "paint", tmp_path / "paint")
    whole = tmp_path / "paint" / "unet" / VAE
    weights = load_file(whole)
    names = sorted(weights)
    shards = {"shard-1.safetensors": names[::2], "shard-2.safetensors": names[1::2]}
    for file, held in shards.items():
        save_file({name: weights[name] for name in held}, whole.with_name(file), {"format": "pt"})
    places = {name: file for file, held in shards.items() for name in held}
    whole.with_name(f"{VAE}.index.json").write_text(json.dumps({"weight_map": places}))
    whole.unlink()
    assert (painted(tmp_path / "paint", TEXT) == painted(made / "paint", TEXT)).all()


def test_names_that_older_releases_gave_are_read(made: Path, tmp_path: Path) -> None:
    """As in the published Stable Diffusion 1.x: the tower has a prefix, the decoder's attention other names."""
    shutil.copytree(made / "paint", tmp_path / "paint")
    words, vae = tmp_path / "paint" / "text_encoder" / "model.safetensors", tmp_path / "paint" / "vae" / VAE
    old = {f"text_model.{name.removeprefix('text_model.')}": weight for name, weight in load_file(words).items()}
    save_file(old | {"text_model.embeddings.position_ids": torch.arange(40)[None]}, words, {"format": "pt"})
    renamed = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    weights = load_file(vae)
    for new, name in renamed.items():
        weights = {key.replace(f"attentions.0.{new}.", f"attentions.0.{name}."): one for key, one in weights.items()}
    assert any("proj_attn" in key for key in weights)
    save_file(weights, vae, {"format": "pt"})
    assert (painted(tmp_path / "paint", TEXT) == painted(made / "paint", TEXT)).all()


def test_a_weight_that_is_missing_is_named(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "paint", tmp_path / "paint")
    file = tmp_path / "paint" / "unet" / VAE
    save_file({name: one for name, one in load_file(file).items() if name != "conv_in.bias"}, file, {"format": "pt"})
    with pytest.raises(ModuleFailedError, match=r"missing: conv_in\.bias"):
        loaded(tmp_path, parts(tmp_path / "paint")["denoiser"])


def held_in(folder: Path, dtype: Dtype) -> Definition:
    found = definition(folder, ROW.options)
    modules = [spec.model_copy(update={"dtype": dtype}) for spec in found.modules]
    for spec, plain in zip(modules, found.modules, strict=True):
        share = 0.51 if dtype in HALVES else 0.98
        assert loaded(folder.parent, spec).nbytes <= share * loaded(folder.parent, plain).nbytes
    return Definition(model=found.model, modules=modules)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_in_half_precision_a_picture_is_that_of_the_pipeline_in_half_precision(made: Path, dtype: Dtype) -> None:
    found = pixels(run_all(made, held_in(made / "paint", dtype), TEXT)["picture.image"])
    whole = d.StableDiffusionPipeline.from_pretrained(made / "paint", dtype=HALVES[dtype], safety_checker=None)
    whole.set_progress_bar_config(disable=True)
    noise = torch.Generator("cpu").manual_seed(0)
    picture = whole(*TEXT["text"], num_inference_steps=4, guidance_scale=5.0, generator=noise).images[0]
    assert np.abs(found - np.asarray(picture)).max() <= 1


def test_in_int8_a_picture_is_about_the_same(made: Path) -> None:
    found = pixels(run_all(made, held_in(made / "paint", "int8"), TEXT)["picture.image"])
    assert 0 < np.abs(found - painted(made / "paint", TEXT)).mean() < 10


# What a request says.


def test_a_second_text_is_the_negative_prompt_and_counts_only_with_guidance(made: Path) -> None:
    negative = {"text": [*TEXT["text"], "a very quiet lake"]}
    empty = {"text": [*TEXT["text"], ""]}
    plain = painted(made / "paint", TEXT)
    assert (painted(made / "paint", empty) == plain).all()
    assert (painted(made / "paint", negative) != plain).any()
    without = painted(made / "paint", TEXT, "steps=4", "guidance=1.0")
    assert (painted(made / "paint", negative, "steps=4", "guidance=1.0") == without).all()


def test_a_third_text_is_bad_input(made: Path) -> None:
    with pytest.raises(BadInputError, match="3 texts; a picture has a prompt, and perhaps a negative prompt"):
        run_module(loaded(made, parts(made / "paint")["text"]), {"text": ["a", "b", "c"]}, "hidden")


@pytest.mark.parametrize(
    ("shape", "why"), [((2, 40, 31), "takes a float32 tensor of 2 x n x 32"), ((1, 40, 32), "not float32 of 1 x 40")]
)
def test_hidden_states_of_another_shape_are_bad_input(made: Path, shape: tuple[int, ...], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        loaded(made, parts(made / "paint")["denoiser"]).prepare({"hidden": np.zeros(shape, np.float32)})


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("steps=0",), r"config\.steps: Input should be greater than or equal to 1"),
        (("steps=1000", "guidance=-1"), r"config\.guidance"),
        (("size=8",), r"config\.size: Extra inputs are not permitted"),
    ],
)
def test_options_that_the_denoiser_does_not_have_are_refused(made: Path, options: tuple[str, ...], why: str) -> None:
    with pytest.raises(ModuleFailedError, match=why):
        loaded(made, parts(made / "paint", *options)["denoiser"])


def test_more_steps_than_the_scheduler_was_trained_with_are_refused(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "paint", tmp_path / "paint")
    says("model_index.json", scheduler=["diffusers", "DDIMScheduler"])(tmp_path / "paint")
    says("scheduler/scheduler_config.json", _class_name="DDIMScheduler", num_train_timesteps=10)(tmp_path / "paint")
    with pytest.raises(ModuleFailedError, match=r"config\.steps: 11: "):
        loaded(tmp_path, parts(tmp_path / "paint", "steps=11")["denoiser"])


def test_between_two_steps_the_deadline_is_looked_at_and_the_next_picture_is_whole(made: Path) -> None:
    words, denoiser, _ = (loaded(made, spec) for spec in parts(made / "paint").values())
    hidden = run_module(words, TEXT, "hidden")
    before = run_module(denoiser, hidden, "latents")["latents"]
    looked = 0

    def look() -> None:
        nonlocal looked
        looked += 1
        if looked == 2:
            raise RequestTimeoutError("late")

    with pytest.raises(RequestTimeoutError), sliced(look):
        run_module(denoiser, hidden, "latents")
    assert looked == 2
    assert (run_module(denoiser, hidden, "latents")["latents"] == before).all()


def test_the_seed_decides(made: Path) -> None:
    words, denoiser, _ = (loaded(made, spec) for spec in parts(made / "paint").values())
    hidden = run_module(words, TEXT, "hidden")
    prepare: Any = denoiser.prepare_with  # type: ignore[attr-defined]  # it is a Drawing
    one, again, other = (prepare(hidden, Options(seed=seed)) for seed in (7, 7, 8))
    first, second, third = (denoiser.run([item], frozenset({"latents"}))[0]["latents"] for item in (one, again, other))
    assert (first == second).all()
    assert (first != third).any()


def test_an_agent_without_diffusers_offers_no_part_of_it_and_says_what_brings_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(classes, "find_spec", lambda name: None if name == "diffusers" else object())
    missing = {name: kind.missing_package() for name, kind in classes.SHIPPED.items()}
    why = "the package diffusers (pip install 's2m3[diffusion]')"
    assert {name: text for name, text in missing.items() if text} == {"image-denoiser": why, "latent-decoder": why}


# What is shared.


def make_clip_of(pipeline: Path, folder: Path) -> None:
    """A CLIP whose text tower is that of a pipeline, stored in another way: with a projection, and half precision."""
    folder.mkdir()
    clip_words(folder, 40)
    vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    words = t.CLIPTextConfig.from_pretrained(pipeline / "text_encoder")
    sizes = {**vision, "image_size": 32, "patch_size": 8}
    clip = t.CLIPModel(t.CLIPConfig(text_config=words.to_dict(), vision_config=sizes, projection_dim=16))
    randomised(clip, folder)
    clip.text_model.load_state_dict(t.CLIPTextModel.from_pretrained(pipeline / "text_encoder").state_dict())
    clip.save_pretrained(folder)
    t.CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)


@pytest.fixture(scope="module")
def clip(made: Path) -> Path:
    make_clip_of(made / "paint", made / "clip")
    return made / "clip"


def shared(new: Path, held: Path) -> tuple[Definition, set[str]]:
    one, other = checkpoint_definition(str(new), None), checkpoint_definition(str(held), None)
    assert one is not None
    assert other is not None
    found, parts_ = shared_with(one, new, {"held": TaskSpec(model=other.model.id, definition=other)})
    return found, {part.part for part in parts_}


def test_the_text_tower_of_clip_serves_the_pipeline_number_for_number(made: Path, clip: Path) -> None:
    found, names = shared(made / "paint", clip)
    assert names == {"text"}
    specs = {spec.id: spec for spec in found.modules}
    held = specs[str(specs[found.model.steps["words"].module].same_as)]
    assert held.source == str(clip.resolve())
    theirs = run_module(loaded(made, held), TEXT, "hidden", "embedding")
    ours = run_module(loaded(made, parts(made / "paint")["text"]), TEXT, "hidden")
    assert (theirs["hidden"] == ours["hidden"]).all()
    assert theirs["embedding"].shape == (1, 16)


def test_a_pipelines_tower_has_no_projection_and_does_not_serve_clip(made: Path, clip: Path) -> None:
    assert shared(clip, made / "paint")[1] == set()


def test_clip_added_after_the_pipeline_says_that_its_tower_serves_it_if_it_is_added_again(
    made: Path, clip: Path
) -> None:
    held = {name: checkpoint_definition(str(made / "paint"), None) for name in ("paint", "draw")}
    tasks = {name: TaskSpec(model=found.model.id, definition=found) for name, found in held.items() if found}
    new = checkpoint_definition(str(clip), None)
    assert new is not None
    assert served_later(new, clip, tasks) == [("draw", "text"), ("paint", "text")]
    assert shared(made / "paint", clip)[1] == {"text"}, "and so it is shared when it is added again"


def test_two_pipelines_share_what_is_equal(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made / "paint", tmp_path / "other")
    assert shared(tmp_path / "other", made / "paint")[1] == {"text", "denoiser", "decoder"}
    says("scheduler/scheduler_config.json", prediction_type="v_prediction")(tmp_path / "other")
    assert shared(tmp_path / "other", made / "paint")[1] == {"text", "decoder"}
    says("vae/config.json", scaling_factor=0.2)(tmp_path / "other")
    assert shared(tmp_path / "other", made / "paint")[1] == {"text"}
    says("tokenizer/tokenizer_config.json", model_max_length=30)(tmp_path / "other")
    assert shared(tmp_path / "other", made / "paint")[1] == set()
