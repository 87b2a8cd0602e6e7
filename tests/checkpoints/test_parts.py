"""Parts by themselves: a wrong weight is noticed, only what is asked for is computed, batches change nothing."""

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.registry import load
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from tests.checkpoints import whole
from tests.checkpoints.inprocess import loaded, run_all, run_module
from tests.checkpoints.models import definition
from tests.checkpoints.tiny import WORDS, alter
from tests.zoo.samples import sample

CAT, ROCKET, SOUND = sample("chelsea.jpg"), sample("rocket.jpg"), sample("play-music.flac")
TEXTS = ["a photo of the cat", "a dog"]


def part(folder: Path, checkpoint: str, name: str) -> ModuleSpec:
    return next(spec for spec in definition(folder, checkpoint).modules if spec.prefix == name)


#: A tensor of each part, and an output that it must change.
ALTERED = [
    ("tiny-clip", "visual_projection.weight", "match.ranking"),
    ("tiny-clip", "text_model.encoder.layers.0.mlp.fc1.bias", "match.ranking"),
    ("tiny-clip", "logit_scale", "match.ranking"),
    ("tiny-clip-resnet", "visual.attnpool.k_proj.weight", "match.ranking"),
    ("tiny-clip-resnet", "visual.layer2.1.bn3.running_mean", "match.ranking"),
    ("tiny-clip-resnet", "transformer.resblocks.1.mlp.c_fc.weight", "match.ranking"),
    ("tiny-siglip", "vision_model.head.probe", "match.ranking"),
    ("tiny-siglip", "text_model.head.weight", "match.ranking"),
    ("tiny-siglip", "logit_bias", "match.ranking"),
    ("tiny-clap", "audio_projection.linear1.weight", "match.ranking"),
    ("tiny-clap", "text_model.pooler.dense.weight", "match.ranking"),
    ("tiny-vit-gpt2", "encoder.layernorm.weight", "image.hidden"),
    ("tiny-vit-gpt2", "decoder.transformer.wte.weight", "words.text"),
    ("tiny-vit-gpt2", "enc_to_dec_proj.weight", "words.text"),
    ("tiny-blip", "vision_model.post_layernorm.bias", "image.hidden"),
    ("tiny-blip", "text_decoder.bert.embeddings.word_embeddings.weight", "words.text"),
    ("tiny-blip-vqa", "text_encoder.embeddings.LayerNorm.weight", "question.hidden"),
    ("tiny-blip-vqa", "text_decoder.cls.predictions.bias", "words.text"),
    ("tiny-llava", "vision_tower.encoder.layers.1.mlp.fc2.bias", "image.tokens"),
    ("tiny-llava", "multi_modal_projector.linear_2.weight", "words.text"),
    ("tiny-llava", "language_model.model.embed_tokens.weight", "words.text"),
    ("tiny-whisper", "model.encoder.conv1.weight", "sound.hidden"),
    ("tiny-whisper", "model.decoder.layers.1.fc2.weight", "words.text"),
    ("tiny-vit", "vit.encoder.layer.1.output.dense.weight", "classes.ranking"),
    ("tiny-vit", "classifier.weight", "classes.ranking"),
    ("tiny-resnet", "classifier.1.bias", "classes.ranking"),
]
#: One input of each kind.
INPUTS: dict[str, Any] = {"image": CAT, "audio": SOUND, "texts": TEXTS, "text": "what is this"}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray):
        return bool(np.abs(one - other).max() < 1e-5)
    if isinstance(one, list):
        scores = [{row["label"]: row["score"] for row in ranking} for ranking in (one, other)]
        return all(abs(scores[0][label] - scores[1][label]) < 1e-5 for label in scores[0])
    return bool(one == other)


def outputs_of(folder: Path, checkpoint: str) -> dict[str, Any]:
    found = definition(folder, checkpoint)
    return run_all(folder, found, {name: INPUTS[kind] for name, kind in found.model.inputs.items()})


outputs_before = cache(outputs_of)


@pytest.mark.parametrize(("checkpoint", "tensor", "output"), ALTERED, ids=[f"{a[0]}-{a[1]}" for a in ALTERED])
def test_one_altered_tensor_changes_what_comes_out(
    tiny: Path, tmp_path: Path, checkpoint: str, tensor: str, output: str
) -> None:
    shutil.copytree(tiny / checkpoint, tmp_path / checkpoint)
    alter(tmp_path / checkpoint, tensor)
    assert not _same(outputs_before(tiny, checkpoint)[output], outputs_of(tmp_path, checkpoint)[output])


def passed_on(folder: Path) -> dict[str, Any]:
    """What the encoders of whole models give their decoders, by checkpoint and step."""
    blip, llava = whole.network(folder / "tiny-blip-vqa"), whole.network(folder / "tiny-llava")
    hidden = blip.vision_model(whole.pixels(folder / "tiny-blip-vqa", CAT))[0]
    words = whole.tokens(folder / "tiny-blip-vqa", [INPUTS["text"]])["input_ids"]
    tower = llava.model.vision_tower(whole.pixels(folder / "tiny-llava", CAT), output_hidden_states=True)
    captioner, listener = whole.network(folder / "tiny-vit-gpt2"), whole.network(folder / "tiny-whisper")
    heard = whole.sound(folder / "tiny-whisper", SOUND).input_features
    return {
        "tiny-blip-vqa image.hidden": hidden,
        "tiny-blip-vqa question.hidden": blip.text_encoder(words, encoder_hidden_states=hidden)[0],
        "tiny-llava image.tokens": tower.hidden_states[-2][:, 1:],
        "tiny-vit-gpt2 image.hidden": captioner.encoder(whole.pixels(folder / "tiny-vit-gpt2", CAT))[0],
        "tiny-whisper sound.hidden": listener.model.encoder(heard)[0],
    }


def test_what_passes_between_the_parts_is_what_passes_inside_the_whole(tiny: Path) -> None:
    with torch.inference_mode():
        inside = passed_on(tiny)
    for name, expected in inside.items():
        checkpoint, output = name.split()
        np.testing.assert_allclose(outputs_before(tiny, checkpoint)[output], expected.numpy(), atol=1e-5, rtol=0)


def test_only_what_is_asked_for_comes_out(tiny: Path) -> None:
    vision = loaded(tiny, part(tiny, "tiny-clip", "vision"))
    shapes = {name: value.shape for name, value in run_module(vision, {"image": CAT}, "embedding", "tokens").items()}
    assert shapes == {"embedding": (1, 16), "tokens": (1, 16, 32)}
    assert run_module(vision, {"image": CAT}, "hidden").keys() == {"hidden"}


def test_pictures_of_a_batch_come_out_as_alone(tiny: Path) -> None:
    vision = loaded(tiny, part(tiny, "tiny-clip", "vision"))
    items = [vision.prepare({"image": [CAT, ROCKET]}), vision.prepare({"image": ROCKET})]
    together = vision.run(items, frozenset({"embedding"}))
    assert [result["embedding"].shape for result in together] == [(2, 16), (1, 16)]
    alone = run_module(vision, {"image": ROCKET}, "embedding")["embedding"]
    np.testing.assert_allclose(together[0]["embedding"][1:], alone, atol=1e-5)
    np.testing.assert_allclose(together[1]["embedding"], alone, atol=1e-5)


def test_texts_of_a_batch_come_out_as_alone(tiny: Path) -> None:
    words = loaded(tiny, part(tiny, "tiny-clip", "text"))
    together = run_module(words, {"text": [*TEXTS, "two"]}, "embedding", "text")
    assert together["text"] == [*TEXTS, "two"]
    alone = run_module(words, {"text": "two"}, "embedding")["embedding"]
    np.testing.assert_allclose(together["embedding"][2:], alone, atol=1e-5)


@pytest.mark.parametrize("checkpoint", ["tiny-clip", "tiny-siglip"])
def test_three_hundred_labels_come_out_as_each_alone_and_none_is_bad_input(tiny: Path, checkpoint: str) -> None:
    labels = ["cat " * (1 + number % 7) + WORDS[number % len(WORDS)] for number in range(300)]
    module = loaded(tiny, part(tiny, checkpoint, "text"))
    together = run_module(module, {"text": labels}, "embedding")["embedding"]
    alone = [
        run_module(loaded(tiny, part(tiny, checkpoint, "text")), {"text": labels[n]}, "embedding") for n in (4, 299)
    ]
    np.testing.assert_allclose(together[[4, 299]], [one["embedding"][0] for one in alone], atol=1e-5)
    with pytest.raises(BadInputError, match="one or more texts"):
        module.prepare({"text": []})


@pytest.mark.parametrize("text", ["x" * 20_000, "\ud800"])
def test_a_text_that_cannot_be_read_is_bad_input(tiny: Path, text: str) -> None:
    words = loaded(tiny, part(tiny, "tiny-clip", "text"))
    with pytest.raises(BadInputError):
        words.prepare({"text": text})


def test_a_long_text_is_cut_to_what_fits(tiny: Path) -> None:
    words = loaded(tiny, part(tiny, "tiny-clip", "text"))
    assert run_module(words, {"text": "cat " * 500}, "embedding")["embedding"].shape == (1, 16)


def test_a_picture_in_the_words_of_a_question_is_bad_input(tiny: Path) -> None:
    model = loaded(tiny, part(tiny, "tiny-llava", "decoder"))
    tokens = np.zeros((1, 16, 32), np.float32)
    with pytest.raises(BadInputError, match="<image> 2 times"):
        model.prepare({"text": "what is <image>", "tokens": tokens})


def test_another_prompt_is_the_modules_own_configuration(tiny: Path) -> None:
    spec = part(tiny, "tiny-llava", "decoder")
    other = loaded(tiny, spec.model_copy(update={"config": {"prompt": "<image> what is {text}", "max_new_tokens": 3}}))
    tokens = np.ones((1, 16, 32), np.float32)
    said = run_module(other, {"text": "this", "tokens": tokens}, "text")["text"]
    assert 1 <= len(said.split()) <= 3


def test_an_unknown_option_is_refused_by_key(tiny: Path) -> None:
    spec = part(tiny, "tiny-llava", "decoder").model_copy(update={"config": {"promt": "x"}})
    with pytest.raises(ModuleFailedError, match=r"config\.promt"):
        loaded(tiny, spec)


@pytest.mark.parametrize(("field", "value"), [("prefix", "audio"), ("class_", "audio-encoder")])
def test_a_part_that_the_checkpoint_does_not_have_is_refused(tiny: Path, field: str, value: str) -> None:
    with pytest.raises(ModuleFailedError, match=r"has no part 'audio'|is of class 'image-encoder'"):
        loaded(tiny, part(tiny, "tiny-clip", "vision").model_copy(update={field: value}))


def test_a_checkpoint_that_is_not_here_is_named() -> None:
    spec = ModuleSpec.model_validate(
        {
            "id": "x", "role": "head", "class": "similarity-head", "source": "elsewhere", "prefix": "head",
            "inputs": {"text": "texts"}, "outputs": {"label": "text"}, "memory_mb": 1,
        }
    )  # fmt: skip
    with pytest.raises(ModuleFailedError, match="the checkpoint elsewhere, which is not installed"):
        load(spec, CheckpointSources())


def test_heads_are_loaded_without_torch(tiny: Path) -> None:
    specs = [part(tiny, "tiny-clip", "head"), part(tiny, "tiny-vit", "head")]
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from s2m3.agents.checkpoints.storage.folders import CheckpointSources\n"
        "from s2m3.agents.registry import identify, load\n"
        "from s2m3.schemas.definitions import ModuleSpec\n"
        f"for spec in {[spec.model_dump_json(by_alias=True) for spec in specs]!r}:\n"
        f"    given = ModuleSpec.model_validate_json(spec), CheckpointSources((Path({str(tiny)!r}),))\n"
        "    identify(*given), load(*given)\n"
        "print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_only_the_files_that_hold_the_part_are_opened(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tiny-clip", tmp_path / "tiny-clip")
    spec = part(tmp_path, "tiny-clip", "text")
    tensors = read_checkpoint(tmp_path / "tiny-clip").tensors
    needed = {tensor.file for name, tensor in tensors.items() if name.startswith(("text_model.", "text_projection."))}
    others = set((tmp_path / "tiny-clip").glob("*.safetensors")) - needed
    assert others
    for path in others:
        path.write_bytes(b"garbage")
    assert loaded(tmp_path, spec).nbytes > 0


def test_a_checkpoint_that_is_cut_off_while_it_is_served_takes_nothing_with_it(tiny: Path, tmp_path: Path) -> None:
    """Weights are not mapped: a file that changes under a mapping kills the process (SIGBUS)."""
    shutil.copytree(tiny / "tiny-vit", tmp_path / "tiny-vit")
    vision = loaded(tmp_path, part(tmp_path, "tiny-vit", "vision"))
    before = run_module(vision, {"image": CAT}, "features")["features"]
    os.truncate(tmp_path / "tiny-vit" / "model.safetensors", 100)
    np.testing.assert_array_equal(run_module(vision, {"image": CAT}, "features")["features"], before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_computed_with_in_float32(tiny: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    shutil.copytree(tiny / "tiny-vit", tmp_path / "tiny-vit")
    path = tmp_path / "tiny-vit" / "model.safetensors"
    save_file({name: weight.to(dtype) for name, weight in load_file(path).items()}, path)
    stored = run_module(loaded(tmp_path, part(tmp_path, "tiny-vit", "vision")), {"image": CAT}, "features")
    exact = run_module(loaded(tiny, part(tiny, "tiny-vit", "vision")), {"image": CAT}, "features")
    assert stored["features"].dtype == np.float32
    np.testing.assert_allclose(stored["features"], exact["features"], atol=0.1 if dtype != torch.float64 else 1e-6)
