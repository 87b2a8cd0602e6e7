"""What a classifier's score means follows the checkpoint's configuration, as transformers' own pipelines read it."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as t
from PIL import Image

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.agents.modules.ranking import sigmoid
from s2m3.schemas.errors import ModuleFailedError
from tests.checkpoints.inprocess import loaded, run_all, run_module
from tests.checkpoints.models import definition
from tests.checkpoints.tiny import PAD, SIZE, pictures, save, tokenizer
from tests.zoo.samples import sample

CAT = sample("chelsea.jpg")
TEXT = "a photo of the cat"
PROBLEMS = [None, "regression", "multi_label_classification", "single_label_classification"]
#: transformers itself refuses one label of several exclusive ones.
CASES = [(problem, count) for problem in PROBLEMS for count in (1, 2, 5) if (problem, count) != (PROBLEMS[3], 1)]
KINDS = ["text", "image"]
STEP = "classes.ranking"


def text_classifier(folder: Path, **labels: Any) -> None:
    config = t.DistilBertConfig(
        dim=16, n_layers=1, n_heads=2, hidden_dim=24, vocab_size=SIZE, pad_token_id=PAD, **labels
    )
    save(t.DistilBertForSequenceClassification(config), folder)
    tokenizer(folder)


def image_classifier(folder: Path, **labels: Any) -> None:
    config = t.ViTConfig(
        hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8,
        **labels,
    )  # fmt: skip
    save(t.ViTForImageClassification(config), folder)
    pictures(folder, "ViTImageProcessorPil")


def made(folder: Path, kind: str, **labels: Any) -> Path:
    {"text": text_classifier, "image": image_classifier}[kind](folder / "tiny", **labels)
    return folder


def served(folder: Path, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = run_all(folder, definition(folder, "tiny"), {kind: given(kind)})[STEP]
    return found


def given(kind: str) -> Any:
    return TEXT if kind == "text" else CAT


def by_transformers(folder: Path, kind: str) -> list[dict[str, Any]]:
    """What the whole checkpoint says by transformers' own pipeline."""
    if kind == "text":
        words = t.AutoTokenizer.from_pretrained(folder / "tiny")
        words.model_input_names = ["input_ids", "attention_mask"]  # a DistilBERT takes no others
        network = t.AutoModelForSequenceClassification.from_pretrained(folder / "tiny")
        found: Any = t.pipeline("text-classification", model=network, tokenizer=words)(TEXT, top_k=5)
        return list(found)
    processor = t.ViTImageProcessorPil.from_pretrained(folder / "tiny")
    network = t.AutoModelForImageClassification.from_pretrained(folder / "tiny")
    picture = Image.open(io.BytesIO(CAT))
    found = t.pipeline("image-classification", model=network, image_processor=processor)(picture, top_k=5)
    return list(found)


def check_equal(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> None:
    assert [row["label"] for row in ours] == [row["label"] for row in theirs]
    np.testing.assert_allclose([row["score"] for row in ours], [row["score"] for row in theirs], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("problem", "count"), CASES)
@pytest.mark.parametrize("kind", KINDS)
def test_scores_are_those_of_transformers_pipeline(tmp_path: Path, kind: str, problem: str | None, count: int) -> None:
    made(tmp_path, kind, num_labels=count, problem_type=problem)
    check_equal(served(tmp_path, kind), by_transformers(tmp_path, kind))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("function", ["sigmoid", "none"])
def test_a_function_to_apply_of_the_configuration_counts_as_little_as_in_transformers(
    tmp_path: Path, kind: str, function: str
) -> None:
    """The pipelines read `function_to_apply` only of a configuration without labels; such a network has no scores."""
    made(tmp_path, kind, num_labels=2, function_to_apply=function)
    assert json.loads((tmp_path / "tiny" / "config.json").read_text())["function_to_apply"] == function
    check_equal(served(tmp_path, kind), by_transformers(tmp_path, kind))


@pytest.mark.parametrize("kind", KINDS)
def test_the_scores_are_part_of_what_a_classifier_is(tmp_path: Path, kind: str) -> None:
    made(tmp_path, kind, num_labels=5)
    path = tmp_path / "tiny" / "config.json"
    config = json.loads(path.read_text())
    found = set()
    for problem in PROBLEMS:
        path.write_text(json.dumps({**config, "problem_type": problem}))
        spec = definition(tmp_path, "tiny").modules[-1]
        found.add(fingerprint(open_part(spec, CheckpointSources((tmp_path,)))))
    assert len(found) == 3  # None and one of several exclusive labels are the same


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_problem_type_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    made(tmp_path, kind, num_labels=2)
    path = tmp_path / "tiny" / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "problem_type": "ranking"}))
    with pytest.raises(ModuleFailedError, match="problem_type"):
        loaded(tmp_path, definition(tmp_path, "tiny").modules[-1])


def test_all_items_of_a_batch_are_scored_by_label(tmp_path: Path) -> None:
    made(tmp_path, "image", num_labels=5, problem_type="multi_label_classification")
    head = loaded(tmp_path, definition(tmp_path, "tiny").modules[-1])
    rows = np.random.default_rng(3).normal(size=(2, 1, 16)).astype(np.float32)
    together = head.run([head.prepare({"features": row}) for row in rows], frozenset({"ranking"}))
    alone = [run_module(head, {"features": row}, "ranking") for row in rows]
    for one, other in zip(together, alone, strict=True):
        check_equal(one["ranking"], other["ranking"])


def test_a_sigmoid_of_large_numbers_is_zero_and_one_without_a_warning() -> None:
    with np.errstate(all="raise", under="ignore"):
        found = sigmoid(np.array([-500, -1, 0, 1, 500], np.float32))
    np.testing.assert_allclose(found, [0, 0.26894143, 0.5, 0.7310586, 1], atol=1e-7)
