"""One folder, several uses: what it says, what somebody asks for, and that each answers as transformers does."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t

from s2m3.agents.checkpoints.storage.folders import CheckpointSources
from s2m3.agents.checkpoints.storage.identity import fingerprint
from s2m3.agents.checkpoints.storage.part import open_part
from s2m3.commands.options import named_texts
from s2m3.commands.tasks import checkpoint_definition, with_options
from s2m3.schemas.checkpoints.architectures import architecture_of
from s2m3.schemas.checkpoints.headers import read_config
from s2m3.schemas.definitions import Definition
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from tests.checkpoints.inprocess import loaded, run_all, run_module
from tests.families.texts import TEXTS

_ROWS = {family.name: family for family in TEXTS}
_LABELS = ["moon", "a quiet lake", "cats"]
_TEXT = "a cat sits on the moon"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("texts")
    for name in ("nli", "cross-encoder", "qwen3-embedding", "text-classifier"):
        (folder / name).mkdir()
        _ROWS[name].make(folder / name)
    return folder


def used(folder: Path, use: str | None = None, **config: Any) -> Definition:
    found = checkpoint_definition(str(folder), folder.name, use=use)
    assert found is not None
    modules = [spec.model_copy(update={"config": config}) for spec in found.modules]
    return found.model_copy(update={"modules": modules})


def rewritten(source: Path, folder: Path, **changes: Any) -> Path:
    copy = folder / "changed"
    shutil.copytree(source, copy)
    config = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return copy


@pytest.mark.parametrize(
    ("name", "use"), [("nli", "pair"), ("cross-encoder", "ranking"), ("qwen3-embedding", "embedding")]
)
def test_a_folder_says_what_it_is_used_for(made: Path, name: str, use: str) -> None:
    assert architecture_of(read_config(made / name)).use == use


@pytest.mark.parametrize(
    "said",
    [
        {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"},
        {"sentence_transformers": {"activation_fn": "torch.nn.modules.linear.Identity", "version": "5.1.0"}},
    ],
)
def test_a_reranker_of_any_release_ranks_by_its_own_activation(
    made: Path, tmp_path: Path, said: dict[str, Any]
) -> None:
    folder = rewritten(made / "cross-encoder", tmp_path, **{"sbert_ce_default_activation_function": None, **said})
    asked = _ROWS["cross-encoder"].asks[0]
    found = run_all(tmp_path, used(folder), asked)["rank.ranking"]
    with torch.inference_mode():
        sigmoids = _ROWS["cross-encoder"].whole(made / "cross-encoder", asked)["ranking"]
    logits = [float(np.log(row["score"] / (1 - row["score"]))) for row in sigmoids]
    assert [row["label"] for row in found] == [row["label"] for row in sigmoids]
    np.testing.assert_allclose([row["score"] for row in found], logits, atol=1e-5)


def test_a_reranker_that_does_not_say_so_ranks_where_it_is_asked_to(made: Path, tmp_path: Path) -> None:
    folder = rewritten(made / "cross-encoder", tmp_path, sbert_ce_default_activation_function=None)
    assert used(folder).model.inputs == {"text": "text"}
    asked = _ROWS["cross-encoder"].asks[1]
    with torch.inference_mode():
        wanted = _ROWS["cross-encoder"].whole(made / "cross-encoder", asked)["ranking"]
    found = run_all(tmp_path, used(folder, "ranking"), asked)["rank.ranking"]
    assert [row["label"] for row in found] == [row["label"] for row in wanted]
    np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in wanted], atol=1e-5)


@pytest.mark.parametrize("config", [{}, {"multi_label": True}, {"hypothesis_template": "the words are of {}"}])
def test_zero_shot_labels_are_those_of_transformers_pipeline(made: Path, config: dict[str, Any]) -> None:
    found = run_all(made, used(made / "nli", "zero-shot", **config), {"text": _TEXT, "labels": _LABELS})
    wanted = t.pipeline("zero-shot-classification", model=str(made / "nli"))(_TEXT, _LABELS, **config)
    assert [row["label"] for row in found["classes.ranking"]] == wanted["labels"]
    np.testing.assert_allclose([row["score"] for row in found["classes.ranking"]], wanted["scores"], atol=1e-5)


def test_one_label_alone_is_entailed_or_not(made: Path) -> None:
    found = run_all(made, used(made / "nli", "zero-shot"), {"text": _TEXT, "labels": ["moon"]})
    wanted = t.pipeline("zero-shot-classification", model=str(made / "nli"))(_TEXT, ["moon"])
    assert found["classes.score"] == pytest.approx(wanted["scores"][0], abs=1e-5)


def test_similarity_is_the_cosine_of_prompted_query_and_documents(made: Path) -> None:
    family = _ROWS["qwen3-embedding"]
    found = run_all(made, used(made / family.name, "similarity"), {"query": _TEXT, "text": _LABELS})["rank.ranking"]
    with torch.inference_mode():
        rows = family.whole(made / family.name, {"text": [f"find: {_TEXT}", *_LABELS]})["embedding"]
    wanted = dict(zip(_LABELS, (rows[1:] @ rows[0]).tolist(), strict=True))
    assert {row["label"]: row["score"] for row in found} == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("config", [{"prompt_name": "query"}, {"prompt": "find: "}])
def test_a_prompt_stands_before_every_text(made: Path, config: dict[str, Any]) -> None:
    family = _ROWS["qwen3-embedding"]
    found = run_all(made, used(made / family.name, **config), {"text": _LABELS})["words.embedding"]
    with torch.inference_mode():
        wanted = family.whole(made / family.name, {"text": [f"find: {label}" for label in _LABELS]})["embedding"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_a_prompt_that_the_folder_does_not_have_is_refused(made: Path) -> None:
    (spec,) = used(made / "qwen3-embedding", prompt_name="clustering").modules
    with pytest.raises(ModuleFailedError, match="'clustering' is none of query, document"):
        loaded(made, spec)


def test_a_text_does_not_depend_on_those_beside_it(made: Path) -> None:
    (spec,) = used(made / "cross-encoder").modules
    ranker = loaded(made, spec)
    texts = [f"{'very ' * (number % 9)}quiet {number}" for number in range(300)]
    together = run_module(ranker, {"query": "lake", "text": texts}, "ranking")["ranking"]
    alone = run_module(loaded(made, spec), {"query": "lake", "text": [texts[17]]}, "ranking")["ranking"]
    assert {row["label"]: row["score"] for row in together}[texts[17]] == pytest.approx(alone[0]["score"], abs=1e-5)
    assert len(together) == len(texts)
    with pytest.raises(BadInputError, match="one or more texts"):
        ranker.prepare({"query": "lake", "text": []})


@pytest.mark.parametrize("path", ["..", "../other", "/etc", "a/b"])
def test_a_step_outside_of_the_folder_is_bad_input(made: Path, tmp_path: Path, path: str) -> None:
    copy = tmp_path / "changed"
    shutil.copytree(made / "qwen3-embedding", copy)
    steps = json.loads((copy / "modules.json").read_text())
    (copy / "modules.json").write_text(json.dumps([steps[0], {**steps[1], "path": path}]))
    with pytest.raises(BadInputError, match=r"modules\.json names the path"):
        read_config(copy)


def test_options_of_one_part_make_another_module(made: Path) -> None:
    plain = checkpoint_definition(str(made / "nli"), "nli", use="zero-shot")
    found = with_options(plain, ["hypothesis_template=the words = {}", "multi_label=true"])
    assert plain is not None
    assert found is not None
    assert found.modules[0].config == {"hypothesis_template": "the words = {}", "multi_label": True}
    assert found.modules[0].id != plain.modules[0].id
    assert run_all(made, found, {"text": _TEXT, "labels": _LABELS})["classes.ranking"]
    with pytest.raises(BadInputError, match="NAME=VALUE"):
        with_options(plain, ["multi_label"])
    with pytest.raises(BadInputError, match="a checkpoint of one part"):
        with_options(None, ["multi_label=true"])


def test_a_use_that_a_checkpoint_does_not_have_is_bad_input(made: Path) -> None:
    with pytest.raises(BadInputError, match=r"no use 'caption'; it has: .*zero-shot"):
        used(made / "nli", "caption")


def test_classifiers_with_other_label_names_are_two_modules(made: Path, tmp_path: Path) -> None:
    folder = rewritten(made / "text-classifier", tmp_path, id2label={"0": "a", "1": "b", "2": "c", "3": "d"})
    (own,), (other,) = (used(path).modules for path in (made / "text-classifier", folder))
    prints = [fingerprint(open_part(spec, CheckpointSources((made, tmp_path)))) for spec in (own, other)]
    assert prints[0] != prints[1]


def test_texts_for_other_inputs_are_given_by_name() -> None:
    assert named_texts(["query=who=what", "labels=a", "labels=b"], "--input") == {
        "query": "who=what",
        "labels": ["a", "b"],
    }
    with pytest.raises(BadInputError, match="NAME=TEXT"):
        named_texts(["who"], "--input")
