"""What cannot be served is refused where the task is added, with a code of its own and the reason in one line."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from s2m3.commands.tasks import checkpoint_definition
from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.checkpoints.servable import check_servable, not_followed
from s2m3.schemas.errors import UnsupportedCheckpointError
from tests.command import s2m3_here

Damage = Callable[[Path], None]


def says(**changes: Any) -> Damage:
    """Changes keys of config.json."""

    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changes}))

    return change


def lacks(*patterns: str) -> Damage:
    """Removes files."""

    def remove(folder: Path) -> None:
        found = [path for pattern in patterns for path in folder.glob(pattern)]
        assert found
        for path in found:
            path.unlink()

    return remove


def also(name: str, document: Any) -> Damage:
    """Writes a JSON file."""

    def write(folder: Path) -> None:
        (folder / name).write_text(json.dumps(document))

    return write


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def pixtral_tower(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    says(vision_config={**config["vision_config"], "model_type": "pixtral"})(folder)


def vit_of(**vision: Any) -> Damage:
    """Makes an open_clip checkpoint one of a vision transformer with some settings."""
    model = {"embed_dim": 8, "text_cfg": {"pool_type": "argmax"}, "vision_cfg": {"layers": 2, **vision}}

    def change(folder: Path) -> None:
        config = json.loads((folder / "open_clip_config.json").read_text())
        (folder / "open_clip_config.json").write_text(json.dumps({**config, "model_cfg": model}))

    return change


TOKENIZER = lacks("tokenizer*", "special_tokens_map.json*")
SOUND = also("preprocessor_config.json", {"feature_extractor_type": "Wav2Vec2FeatureExtractor"})
DETR: dict[str, Any] = {"architectures": ["DetrForObjectDetection"], "model_type": "detr"}
_POOLED = [{"type": f"sentence_transformers.models.{kind}", "path": ""} for kind in ("Transformer", "Pooling")]
LATE = also("modules.json", [*_POOLED, {"type": "sentence_transformers.models.MultiVector", "path": ""}])


def T5(folder: Path) -> None:  # noqa: N802 - a name of the table below
    also("modules.json", _POOLED)(folder)
    says(model_type="t5")(folder)


REFUSED: dict[str, tuple[str, Damage, str]] = {
    "bitsandbytes": ("tiny-vit", says(quantization_config={"load_in_4bit": True}), "is quantised (bitsandbytes)"),
    "gptq": ("tiny-llava", says(quantization_config={"quant_method": "gptq"}), "is quantised (gptq)"),
    "awq": ("tiny-llava", says(quantization_config={"quant_method": "awq"}), "is quantised (awq)"),
    "fp8": ("tiny-llava", says(quantization_config={"quant_method": "fp8"}), "is quantised (fp8)"),
    "compressed": ("tiny-clip", says(compression_config={"format": "pack-quantized"}), "is quantised (a format"),
    "own-code": ("tiny-vit", says(auto_map={"AutoModel": "own.ViTForImageClassification"}), "code of its own"),
    "own-class": ("tiny-vit", says(architectures=["Theirs"], auto_map={"AutoModel": "own.Theirs"}), "is never run"),
    "pickle": ("tiny-vit", pickled, "other formats can run code and are never read"),
    "clip-without-tokenizer": ("tiny-clip", TOKENIZER, "holds no tokenizer"),
    "llava-without-tokenizer": ("tiny-llava", TOKENIZER, "holds no tokenizer"),
    "whisper-without-tokenizer": ("tiny-whisper", TOKENIZER, "holds no tokenizer"),
    "classifier-without-tokenizer": ("tiny-distilbert", TOKENIZER, "holds no tokenizer"),
    "no-image-processor": ("tiny-vit", lacks("preprocessor_config.json"), "does not say how to read pictures"),
    "no-class": ("tiny-clip", also("preprocessor_config.json", {"size": 32}), "names its image_processor_type"),
    "no-feature-extractor": ("tiny-whisper", lacks("preprocessor_config.json"), "does not say how to read sound"),
    "mobile-clip": ("tiny-clip-resnet", vit_of(timm_model_name="vit_base_mci_224"), "a tower of timm in open_clip's"),
    "coca": ("tiny-clip-resnet", vit_of(attentional_pool=True), "a variant of open_clip's that is not read: attent"),
    "needs-torchvision": ("tiny-vit", says(architectures=["ZoeDepthForDepthEstimation"]), "the package torchvision"),
    "no-class-here": ("tiny-vit", says(architectures=["DinatForImageClassification"]), "needs the package natten"),
    "timm-backbone": ("tiny-vit", says(**DETR, backbone="resnet50", use_timm_backbone=True), "timm (resnet50)"),
    "timm-by-default": ("tiny-vit", says(**DETR), "has a backbone of the package timm"),
    "timm-wrapped": ("tiny-vit", says(**DETR, backbone_config={"model_type": "timm_backbone"}), "the package timm"),
    "named-backbone": ("tiny-vit", says(backbone="microsoft/resnet-50"), "names its backbone (microsoft/resnet-50)"),
    "torchvision-alone": (
        "tiny-vit",
        also("preprocessor_config.json", {"image_processor_type": "Sam3ImageProcessorFast"}),
        "reads pictures with Sam3ImageProcessor, which transformers has for the package torchvision alone",
    ),
    "detector-without-tokenizer": ("tiny-vit", says(architectures=["OwlViTForObjectDetection"]), "no tokenizer"),
    "pixtral-towered-llava": ("tiny-llava", pixtral_tower, "has the tower pixtral"),
    "late-interaction": ("tiny-distilbert", LATE, "is a sentence encoder of Transformer, Pooling, MultiVector"),
    "sentence-t5": ("tiny-distilbert", T5, "a sentence encoder of half an encoder-decoder (t5)"),
    "sound-classifier": ("tiny-distilbert", SOUND, "classifies sound"),
}


@pytest.fixture
def damaged(tiny: Path, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[Path, str]:
    name, damage, why = REFUSED[request.param]
    folder = tmp_path / "given"
    shutil.copytree(tiny / name, folder)
    damage(folder)
    return folder, why


@pytest.mark.parametrize("damaged", REFUSED, indirect=True)
def test_what_cannot_be_served_is_refused_in_one_line_with_a_code_of_its_own(damaged: tuple[Path, str]) -> None:
    folder, why = damaged
    with pytest.raises(UnsupportedCheckpointError) as caught:
        checkpoint_definition(str(folder), None)
    assert caught.value.code == "unsupported_checkpoint"
    assert why in caught.value.detail
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("damaged", ["gptq", "clip-without-tokenizer"], indirect=True)
def test_task_add_says_it_without_a_broker_and_exits_2(damaged: tuple[Path, str]) -> None:
    done = s2m3_here("task", "add", "pets", "--model", str(damaged[0]), "--port", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("s2m3: unsupported_checkpoint: given ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("damaged", ["gptq", "clip-without-tokenizer"], indirect=True)
def test_split_shows_its_parts_and_says_that_they_cannot_be_served(damaged: tuple[Path, str]) -> None:
    folder, why = damaged
    done = s2m3_here("split", str(folder), "--json")
    assert done.returncode == 0
    assert done.stderr.startswith(f"s2m3: {folder} cannot be served as it is: it {why}")
    assert json.loads(done.stdout)["models"][0]["parts"]


def test_every_tiny_checkpoint_is_servable(tiny: Path) -> None:
    for folder in sorted(path for path in tiny.iterdir() if path.name != "tiny-fusion"):
        checkpoint = read_checkpoint(folder)
        check_servable(checkpoint, architecture_of(checkpoint.config))


@pytest.mark.parametrize(
    ("generation", "said"),
    [
        ({"num_beams": 4, "length_penalty": 2.0}, ["num_beams=4", "length_penalty=2.0"]),
        ({"stop_strings": ["."], "guidance_scale": None, "repetition_penalty": 1.2}, ["stop_strings=['.']"]),
        ({"num_beams": 1, "min_length": 0, "max_length": 20}, []),
        ({}, []),
    ],
)
def test_settings_that_change_what_is_written_are_named(
    tiny: Path, tmp_path: Path, generation: dict[str, Any], said: list[str]
) -> None:
    folder = tmp_path / "words"
    shutil.copytree(tiny / "tiny-vit-gpt2", folder)
    (folder / "generation_config.json").write_text(json.dumps(generation))
    checkpoint = read_checkpoint(folder)
    assert not_followed(checkpoint, architecture_of(checkpoint.config)) == said


def test_a_checkpoint_that_writes_nothing_has_no_such_settings(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tiny-vit", tmp_path / "pets")
    also("generation_config.json", {"num_beams": 4})(tmp_path / "pets")
    checkpoint = read_checkpoint(tmp_path / "pets")
    assert not_followed(checkpoint, architecture_of(checkpoint.config)) == []


def test_task_add_names_them_and_goes_on(tiny: Path, tmp_path: Path) -> None:
    shutil.copytree(tiny / "tiny-vit-gpt2", tmp_path / "words")
    also("generation_config.json", {"num_beams": 4})(tmp_path / "words")
    done = s2m3_here("task", "add", "words", "--model", str(tmp_path / "words"), "--port", "1")
    told, error = done.stderr.splitlines()
    assert told == "s2m3: words says num_beams=4, which is not followed: texts may differ"
    assert "no broker" in error or "refused" in error
