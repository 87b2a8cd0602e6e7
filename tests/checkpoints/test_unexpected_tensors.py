"""Tensors that a network has no place for are told and ignored; what is missing or of another shape is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from safetensors.torch import load_file, save_file
from structlog.testing import capture_logs

from s2m3.agents.modules.state_dicts import fill
from s2m3.schemas.errors import ModuleFailedError
from tests.checkpoints import whole
from tests.checkpoints.inprocess import loaded, run_all
from tests.checkpoints.models import definition
from tests.checkpoints.tiny import (
    BOS,
    EOS,
    PAD,
    SIZE,
    make_blip_vqa,
    make_open_clip_resnet,
    make_vit_classifier,
    make_vit_gpt2,
    save,
    tokenizer,
)
from tests.zoo.samples import sample

CAT = sample("chelsea.jpg")
QUESTION = "what is this"
EVENT = "unexpected_weights"
INPUTS: dict[str, Any] = {"image": CAT, "text": QUESTION, "texts": ["a cat", "a dog"]}


def make_roberta(folder: Path) -> None:
    config = t.RobertaConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=SIZE,
        max_position_embeddings=40, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=EOS, num_labels=3,
    )  # fmt: skip
    save(t.RobertaForSequenceClassification(config), folder)
    tokenizer(folder)


#: Checkpoint -> what writes it, and tensors that published ones of its kind carry beside their network's.
CARRIED: dict[str, tuple[Callable[[Path], None], list[str]]] = {
    "roberta": (make_roberta, ["roberta.pooler.dense.weight", "roberta.pooler.dense.bias"]),
    "gpt2": (make_vit_gpt2, [f"decoder.transformer.h.{layer}.attn.masked_bias" for layer in (0, 1)]),
    "blip": (make_blip_vqa, ["text_encoder.embeddings.token_type_ids_of_old"]),
    "open-clip": (make_open_clip_resnet, ["transformer.attn_mask"]),
}


def rewrite(folder: Path, add: dict[str, torch.Tensor], leave_out: frozenset[str] = frozenset()) -> None:
    """Adds tensors to a checkpoint's only file, and leaves some out."""
    (path,) = folder.glob("*.safetensors")
    kept = {name: weight for name, weight in load_file(path).items() if name not in leave_out}
    save_file(kept | add, path, metadata={"format": "pt"})


def outputs_of(folder: Path) -> dict[str, Any]:
    found = definition(folder, "tiny")
    return run_all(folder, found, {name: INPUTS[kind] for name, kind in found.model.inputs.items()})


@pytest.mark.parametrize("name", CARRIED)
def test_unexpected_tensors_are_told_in_one_line_and_change_nothing(tmp_path: Path, name: str) -> None:
    make, carried = CARRIED[name]
    make(tmp_path / "tiny")
    before = outputs_of(tmp_path)
    rewrite(tmp_path / "tiny", {key: torch.ones(3) for key in carried})
    with capture_logs() as logs:
        after = outputs_of(tmp_path)
    (told,) = [line for line in logs if line["event"] == EVENT]
    assert told["log_level"] == "warning"
    assert told["count"] == len(carried)
    assert all(any(key.endswith(end) for end in told["names"].split(", ")) for key in carried)
    assert after.keys() == before.keys()
    for output, value in before.items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[output], value)
        else:
            assert after[output] == value


def test_gpt2s_causal_masks_are_ignored_as_in_transformers(tmp_path: Path) -> None:
    make_vit_gpt2(tmp_path / "tiny")
    before = [spec.memory_mb for spec in definition(tmp_path, "tiny").modules]
    masks = {f"decoder.transformer.h.{layer}.attn.bias": torch.ones(1, 1, 256, 256) for layer in (0, 1)}
    rewrite(tmp_path / "tiny", masks)
    assert [spec.memory_mb for spec in definition(tmp_path, "tiny").modules] == before
    assert outputs_of(tmp_path)["words.text"] == whole.encoder_decoder(tmp_path / "tiny", CAT)["text"]


def test_layers_that_the_configuration_does_not_want_are_told_and_ignored_as_in_transformers(tmp_path: Path) -> None:
    make_vit_classifier(tmp_path / "tiny")
    path = tmp_path / "tiny" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "num_hidden_layers": 2}))
    with capture_logs() as logs:
        found = outputs_of(tmp_path)["classes.ranking"]
    (told,) = [line for line in logs if line["event"] == EVENT]
    assert all(".2." in name for name in told["names"].split(", ")[:-1])  # the last name may be cut off
    expected = whole.image_classifier(tmp_path / "tiny", CAT)["ranking"]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in expected], atol=1e-5, rtol=0)


def test_a_log_line_of_many_unexpected_tensors_is_bounded(tmp_path: Path) -> None:
    make_vit_classifier(tmp_path / "tiny")
    rewrite(tmp_path / "tiny", {f"vit.of_another_network.{number}.{'x' * 99}": torch.ones(1) for number in range(500)})
    with capture_logs() as logs:
        outputs_of(tmp_path)
    (told,) = [line for line in logs if line["event"] == EVENT]
    assert told["count"] == 500
    assert len(told["names"]) <= 1_000


def test_a_renamed_tensor_is_missing_and_refused_with_both_names(tmp_path: Path) -> None:
    make_vit_classifier(tmp_path / "tiny")
    (path,) = (tmp_path / "tiny").glob("*.safetensors")
    norm = load_file(path)["vit.layernorm.weight"]
    rewrite(tmp_path / "tiny", {"vit.ln.weight": norm}, leave_out=frozenset({"vit.layernorm.weight"}))
    with pytest.raises(ModuleFailedError, match=r"missing: vit\.layernorm\.weight; unexpected: vit\.ln\.weight"):
        loaded(tmp_path, definition(tmp_path, "tiny").modules[0])


def test_a_part_of_another_network_is_refused(tmp_path: Path) -> None:
    """Every tensor is unexpected, and every weight is missing."""
    make_vit_classifier(tmp_path / "tiny")
    make_roberta(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "model.safetensors", tmp_path / "tiny" / "model.safetensors")
    with pytest.raises(ModuleFailedError, match="missing: "):
        loaded(tmp_path, definition(tmp_path, "tiny").modules[0])


def test_a_tensor_of_another_shape_is_refused(tmp_path: Path) -> None:
    make_vit_classifier(tmp_path / "tiny")
    rewrite(tmp_path / "tiny", {"vit.layernorm.weight": torch.ones(31)})
    with pytest.raises(ModuleFailedError, match=r"vit\.layernorm\.weight"):
        loaded(tmp_path, definition(tmp_path, "tiny").modules[0])


def test_a_network_of_our_own_is_filled_beside_unexpected_tensors() -> None:
    network = torch.nn.Linear(3, 2)
    with capture_logs() as logs:
        fill(network, {"weight": torch.ones(2, 3), "bias": torch.ones(2), "other": torch.ones(1)}, "x")
    assert [(line["event"], line["names"]) for line in logs] == [(EVENT, "other")]
    assert network(torch.ones(1, 3)).tolist() == [[4.0, 4.0]]
