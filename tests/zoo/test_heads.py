"""The heads: what they put first, in which order, with which score."""

import time

import numpy as np
import pytest

from s2m3.agents.registry import load
from s2m3.agents.zoo.vqa import ANSWERS
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.wire.values import Value
from tests.zoo.inprocess import run_model, run_module

CHANCE = np.random.default_rng(0)


def vectors(*shape: int) -> Value:
    return CHANCE.normal(size=shape).astype(np.float32)


def logits_of(*classes: int) -> Value:
    """Returns logits of one picture per class, that is surely of it."""
    logits = np.zeros((len(classes), 1000), np.float32)
    logits[np.arange(len(classes)), classes] = 30
    return logits


def names_of(*classes: int) -> Value:
    table = load(shipped_catalogue().modules["conse"]).table  # type: ignore[attr-defined]
    return table[list(classes)]


def test_conse_of_a_certain_class_is_its_name() -> None:
    inputs = {"logits": logits_of(7), "embedding": names_of(3, 7, 9), "text": ["jay", "cock", "ostrich"]}
    answer = run_module("conse", inputs, "label", "score", "ranking", "text")
    assert answer["label"] == "cock"
    assert answer["score"] == pytest.approx(1, abs=1e-5)
    assert type(answer["score"]) is float
    assert answer["ranking"][0] == {"label": "cock", "score": answer["score"]}
    assert len(answer["ranking"]) == 3
    assert answer["text"] == ["jay", "cock", "ostrich"]


def test_conse_ranks_pictures_for_the_first_text_and_texts_for_the_first_picture() -> None:
    inputs = {"logits": logits_of(1, 2, 3), "embedding": names_of(2, 1), "text": ["two", "one"]}
    answer = run_module("conse", inputs, "picture", "pictures", "label")
    assert answer["picture"] == 1
    assert type(answer["picture"]) is int
    assert answer["pictures"][0]["picture"] == 1
    assert len(answer["pictures"]) == 3
    assert answer["label"] == "one"


def test_only_the_wanted_outputs_are_given() -> None:
    inputs = {"logits": logits_of(1), "embedding": names_of(1), "text": ["one"]}
    assert run_module("conse", inputs, "label") == {"label": "one"}


def test_cosine_ranks_all_candidates_whatever_their_length() -> None:
    query = vectors(1, 384)
    candidates = np.concatenate([vectors(1, 384), 7 * query, -query])
    answer = run_module(
        "cosine",
        {"query": query, "said": ["it"], "candidates": candidates, "text": ["other", "same", "opposite"]},
        "label",
        "score",
        "ranking",
        "said",
    )
    assert [entry["label"] for entry in answer["ranking"]] == ["same", "other", "opposite"]
    assert answer["score"] == pytest.approx(1, abs=1e-6)
    assert answer["ranking"][-1]["score"] == pytest.approx(-1, abs=1e-6)
    assert answer["said"] == "it"


def test_of_equal_candidates_the_first_is_answered() -> None:
    query = vectors(1, 384)
    inputs = {"query": query, "said": "it", "candidates": np.repeat(query, 2, 0), "text": ["first", "second"]}
    assert run_module("cosine", inputs, "label") == {"label": "first"}


def test_a_zero_vector_is_like_nothing_and_breaks_nothing() -> None:
    zero = np.zeros((1, 384), np.float32)
    inputs = {"query": zero, "said": "", "candidates": vectors(2, 384), "text": ["a", "b"]}
    assert run_module("cosine", inputs, "score") == {"score": 0.0}


def test_classification_gives_five_probabilities_in_order() -> None:
    answer = run_module("imagenet-linear", {"features": np.abs(vectors(1, 1280))}, "label", "score", "ranking")
    scores = [entry["score"] for entry in answer["ranking"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert 0 < sum(scores) <= 1
    assert answer["ranking"][0] == {"label": answer["label"], "score": answer["score"]}


def test_vqa_gives_five_of_its_answers_in_order() -> None:
    answer = run_module("easy-vqa", {"features": np.abs(vectors(1, 1280)), "embedding": vectors(1, 384)}, "ranking")
    scores = [entry["score"] for entry in answer["ranking"]]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert {entry["label"] for entry in answer["ranking"]} <= set(ANSWERS)


def test_the_noop_model_echoes_its_inputs() -> None:
    assert run_model("noop", {"left": b"bytes", "right": {"a": [1, None]}}) == {"echo": [b"bytes", {"a": [1, None]}]}


def test_a_noop_encoder_really_waits_per_item() -> None:
    spec = shipped_catalogue().modules["noop-left"].model_copy(update={"config": {"sleep_ms": 30}})
    encoder = load(spec)
    start = time.perf_counter()
    encoder.run([encoder.prepare({"data": n}) for n in range(3)], frozenset({"code"}))
    assert time.perf_counter() - start >= 0.09
