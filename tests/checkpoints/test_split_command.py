"""`s2m3 split`: what a checkpoint is made of by its headers, what of it is shared, and what is wrong with it."""

import json
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers as tf
from safetensors.torch import load_file, save_file

from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.headers import read_checkpoint
from s2m3.schemas.checkpoints.parts import model_of
from s2m3.schemas.sizes import sizes_of
from tests import command
from tests.checkpoints.tiny import MAKERS, alter

#: Runs the command in its process and says on stderr what memory that took, in MB.
MEASURED = """
import re, sys
from pathlib import Path
from s2m3.cli import main
try:
    main()
finally:
    # not ru_maxrss: that begins with what the parent had when it forked
    print(int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) // 1000, file=sys.stderr)
"""


def s2m3(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return command.s2m3("split", *words, env=environment) if environment else command.s2m3_here("split", *words)


def said(*words: str, **environment: str) -> dict[str, Any]:
    done = s2m3(*words, "--json", **environment)
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def shared(document: dict[str, Any], model: int, part: str) -> list[str]:
    found: list[str] = next(p["shared_with"] for p in document["models"][model]["parts"] if p["name"] == part)
    return found


# What a checkpoint is made of.


@pytest.mark.parametrize("name", sorted(MAKERS.keys() - {"tiny-resnet", "tiny-fusion"}))
def test_sizes_from_the_configuration_are_those_of_the_headers(tiny: Path, name: str) -> None:
    checkpoint = read_checkpoint(tiny / name)
    family = architecture_of(checkpoint.config)
    sizes = sizes_of(family, checkpoint.config)
    for part in model_of(checkpoint, name).parts:
        size = sizes[part.name]
        assert size is not None
        # Batch normalisation's running mean and variance are tensors, and no parameters.
        inside = family.parts[part.name].names(checkpoint.tensors)
        running = sum(checkpoint.tensors[on_disk].count for on_disk in inside if ".running_" in on_disk)
        assert part.parameters == size.count.parameters + running, part.name


def test_the_parts_are_said_with_their_sizes_and_what_passes_between_them(tiny: Path) -> None:
    document = said(str(tiny / "tiny-clip"))
    vision, text, head = document["models"][0]["parts"]
    assert [part["name"] for part in (vision, text, head)] == ["vision", "text", "head"]
    whole = sum(
        tensor.numel() for path in (tiny / "tiny-clip").glob("*.safetensors") for tensor in load_file(path).values()
    )
    assert vision["parameters"] + text["parameters"] + head["parameters"] == whole
    assert vision["on_disk_bytes"] == vision["bytes"]["float32"] == 2 * vision["bytes"]["bfloat16"]
    assert text["bytes"]["int8"] == 4 * text["parameters"] - 3 * text["linear_parameters"]
    assert vision["passes"]["embedding"] == {"shape": [16], "bytes": 64}
    assert vision["passes"]["tokens"] == {"shape": [16, 32], "bytes": 2048}
    peak = document["models"][0]["peak"]
    assert peak["whole_bytes"] == 4 * whole
    assert peak["saved"] == pytest.approx(1 - peak["largest_part_bytes"] / peak["whole_bytes"], abs=1e-4)
    assert "total" not in document


def test_a_network_without_a_formula_is_said_by_its_headers(tiny: Path) -> None:
    vision, head = said(str(tiny / "tiny-resnet"))["models"][0]["parts"]
    assert vision["gflops"] is None
    assert vision["parameters"] > head["parameters"] > 0


def test_a_head_alone_is_said_too(tiny: Path) -> None:
    (head,) = said(str(tiny / "tiny-fusion"))["models"][0]["parts"]
    assert head["parameters"] == 32 * 24 + 24 + 24 * 3 + 3


def sparse_7b(folder: Path) -> Path:
    """LLaVA-1.5-7B as three shards of float16: real headers, and holes for data."""
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    config = tf.LlavaConfig(
        vision_config=tf.CLIPVisionConfig(**vision, image_size=336, patch_size=14),
        text_config=tf.LlamaConfig(vocab_size=32064),
    )
    with torch.device("meta"):
        shapes = {name: list(t.shape) for name, t in tf.LlavaForConditionalGeneration(config).named_parameters()}
    folder.mkdir()
    config.architectures = ["LlavaForConditionalGeneration"]
    (folder / "config.json").write_text(config.to_json_string(use_diff=False))
    names, weight_map = sorted(shapes), {}
    for shard in range(3):
        file = f"model-{shard}.safetensors"
        header, end = {}, 0
        for name in names[shard::3]:
            count = torch.Size(shapes[name]).numel()
            header[name] = {"dtype": "F16", "shape": shapes[name], "data_offsets": [end, end + 2 * count]}
            end += 2 * count
            weight_map[name] = file
        text = json.dumps(header).encode()
        with (folder / file).open("wb") as out:
            out.write(struct.pack("<Q", len(text)) + text)
            out.truncate(8 + len(text) + end)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    return folder


def test_a_7b_checkpoint_is_read_by_its_headers_alone(tmp_path: Path) -> None:
    folder = sparse_7b(tmp_path / "llava")
    measured = [sys.executable, "-c", MEASURED, "split", str(folder), "--json"]
    done = subprocess.run(measured, capture_output=True, text=True, timeout=120, check=True)
    vision, decoder = json.loads(done.stdout)["models"][0]["parts"]
    assert vision["parameters"] / 1e6 == pytest.approx(303.5, abs=0.1)
    assert decoder["parameters"] / 1e6 == pytest.approx(6738.4 + 0.5 + 21.0, abs=0.1)
    assert decoder["on_disk_bytes"] == 2 * decoder["parameters"]
    assert decoder["gflops"] > 8000
    assert int(done.stderr.splitlines()[-1]) < 500


# What is shared.


def test_two_kinds_of_saving_stand_apart() -> None:
    document = said("clip-vit-b16", "clip-vqa", "clip-classification", "--dtype", "bfloat16")
    parts = {part["identity"]: part["bytes"]["bfloat16"] for model in document["models"] for part in model["parts"]}
    assert document["total"]["shared_bytes"] == sum(parts.values())
    separate = sum(model["peak"]["whole_bytes"] for model in document["models"])
    assert document["total"]["separate_bytes"] == separate
    assert document["total"]["saved"] == pytest.approx(1 - sum(parts.values()) / separate, abs=1e-4)
    assert shared(document, 0, "vision") == ["model clip-classification", "model clip-vqa"]


def test_llavas_tower_is_clips_and_the_tuned_one_is_not() -> None:
    document = said("llava-7b", "llava-phi-3-mini")
    assert shared(document, 0, "vision") == ["model clip-vit-l14-336", "model llava-13b"]
    assert shared(document, 1, "vision") == []


def test_equal_weights_are_found_by_their_content_alone(tiny: Path, tmp_path: Path) -> None:
    twin = shutil.copytree(tiny / "tiny-clip", tmp_path / "twin")
    assert shared(said(str(tiny / "tiny-clip"), str(twin), "--no-content"), 0, "vision") == []
    document = said(str(tiny / "tiny-clip"), str(twin))
    assert shared(document, 0, "vision") == [str(twin)]
    assert document["total"]["saved"] == 0.5
    alter(twin, "vision_model.post_layernorm.weight")
    document = said(str(tiny / "tiny-clip"), str(twin))
    assert shared(document, 0, "vision") == []
    assert shared(document, 0, "text") == [str(twin)]


def test_a_tower_without_its_projection_in_half_precision_is_the_same_by_content(tiny: Path, tmp_path: Path) -> None:
    llava = shutil.copytree(tiny / "tiny-llava", tmp_path / "llava")
    clip: dict[str, torch.Tensor] = {}
    halves = shutil.copytree(tiny / "tiny-clip", tmp_path / "clip")
    for path in halves.glob("*.safetensors"):
        rounded = {name: tensor.half().float() for name, tensor in load_file(path).items()}
        clip |= rounded
        save_file(rounded, path)
    for path in llava.glob("*.safetensors"):
        weights = load_file(path)
        for name in weights:
            if "vision_tower" in name:
                weights[name] = clip[
                    "vision_model." + name.rpartition("vision_model.")[2].rpartition("tower.")[2]
                ].half()
        save_file(weights, path)
    assert shared(said(str(llava), str(halves)), 0, "vision") == [str(halves)]


def test_a_hub_id_is_read_from_the_local_cache_and_is_the_module_that_is_known(tiny: Path, tmp_path: Path) -> None:
    revision = "57c216476eefef5ab752ec549e440a49ae4ae5f3"
    repository = tmp_path / "models--openai--clip-vit-base-patch16"
    shutil.copytree(tiny / "tiny-clip", repository / "snapshots" / revision)
    document = said("openai/clip-vit-base-patch16", HF_HUB_CACHE=str(tmp_path))
    assert document["models"][0]["parts"][0]["identity"] == "clip-vit-b16-vision"
    assert "model clip-vqa" in shared(document, 0, "vision")


# How far other dtypes are.


def test_check_says_how_far_each_part_is_from_float32_in_other_dtypes(tiny: Path) -> None:
    document = said(str(tiny / "tiny-vit-gpt2"), "--check")
    distances = document["models"][0]["distances"]
    assert distances.keys() == {"vision", "decoder"}
    for dtype in ("bfloat16", "float16", "int8"):
        hidden = distances["vision"][dtype]["hidden"]
        assert 0.99 < hidden["cosine"] < 1
        assert hidden["max_abs"] > 0
        assert distances["decoder"][dtype]["text"]["cosine"] is None
    assert distances["vision"]["float16"]["hidden"]["cosine"] > distances["vision"]["bfloat16"]["hidden"]["cosine"]


# What is wrong.


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["no-such"], "no-such is neither a folder nor a model that is known"),
        (["someone/nothing"], "someone/nothing cannot be had from the hub or its cache"),
        (["clip-vit-b16", "--check"], "clip-vit-b16 has no weights here to check"),
        (["clip-vit-b16", "--dtype", "int3"], "the dtype is one of float32, bfloat16, float16, int8, not 'int3'"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(words: list[str], text: str, tmp_path: Path) -> None:
    done = s2m3(*words, HF_HUB_CACHE=str(tmp_path))
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert text in done.stderr


def broken(folder: Path, how: str) -> None:
    shard = min(folder.glob("*.safetensors"))
    index = folder / "model.safetensors.index.json"
    if how == "a pickle only":
        for path in [index, *folder.glob("*.safetensors")]:
            path.unlink()
        (folder / "pytorch_model.bin").write_bytes(b"\x80\x02}.")
    elif how == "a truncated shard":
        os.truncate(shard, shard.stat().st_size - 10)
    elif how == "a wrong index":
        document = json.loads(index.read_text())
        document["weight_map"]["no.such.tensor"] = shard.name
        index.write_text(json.dumps(document))
    elif how == "a missing shard":
        shard.unlink()
    else:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "architectures": ["MambaModel"]}))


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("a pickle only", "pytorch_model.bin: other formats can run code"),
        ("a truncated shard", "is damaged: it has"),
        ("a wrong index", "no.such.tensor"),
        ("a missing shard", "which is not there"),
        ("an unknown architecture", "'MambaModel' is not known"),
    ],
)
def test_a_broken_checkpoint_is_refused_in_one_line_that_says_why(
    tiny: Path, tmp_path: Path, how: str, text: str
) -> None:
    folder = shutil.copytree(tiny / "tiny-clip", tmp_path / "broken")
    broken(folder, how)
    done = s2m3(str(folder))
    assert done.returncode == 2
    assert text in done.stderr
    assert len(done.stderr.splitlines()) == 1
