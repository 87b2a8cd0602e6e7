"""What a module gives for an item does not depend on the items that run with it, nor on what ran before."""

import numpy as np
import pytest

from s2m3.agents.registry import load
from s2m3.agents.zoo.minilm import SentenceEncoder
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.wire.values import Tensor, Value
from tests.zoo.inprocess import loaded, run_module
from tests.zoo.samples import sample

PICTURES = ["chelsea.jpg", "coffee.jpg", "rocket.jpg", "camera.jpg", "red-triangle.png"]


@pytest.fixture
def encoder() -> SentenceEncoder:
    module = load(shipped_catalogue().modules["minilm"])
    assert isinstance(module, SentenceEncoder)
    return module


def embed(encoder: SentenceEncoder, *items: list[str]) -> list[Tensor]:
    results = encoder.run([encoder.prepare({"text": item}) for item in items], frozenset({"embedding"}))
    return [result["embedding"] for result in results]


def test_features_do_not_depend_on_batch_mates() -> None:
    vision, wanted = loaded("efficientnet-lite0"), frozenset({"features"})
    alone = [run_module("efficientnet-lite0", {"image": sample(name)}, "features")["features"] for name in PICTURES]
    together = vision.run([vision.prepare({"image": sample(name)}) for name in PICTURES[:4]], wanted)
    for one, other in zip(alone, together, strict=False):
        np.testing.assert_allclose(one, other["features"], atol=1e-5, rtol=0)


def test_an_items_pictures_stay_its_own_in_a_batch_of_items_of_several() -> None:
    vision = loaded("efficientnet-lite0")
    items = [PICTURES[:2], PICTURES[2:3], PICTURES[1:5]]
    prepared = [vision.prepare({"image": [sample(name) for name in names]}) for names in items]
    results = vision.run(prepared, frozenset({"features"}))
    for names, result in zip(items, results, strict=True):
        assert len(result["features"]) == len(names)
        for name, row in zip(names, result["features"], strict=True):
            alone = run_module("efficientnet-lite0", {"image": sample(name)}, "features")["features"]
            np.testing.assert_allclose(row, alone[0], atol=1e-5, rtol=0)


def test_an_embedding_does_not_depend_on_batch_mates(encoder: SentenceEncoder) -> None:
    texts = ["a cat", "a dog", "a red bicycle", "the lamp in the kitchen is on", "two words", "a cat on a mat"]
    fresh = load(shipped_catalogue().modules["minilm"])
    assert isinstance(fresh, SentenceEncoder)
    (together,) = embed(fresh, texts)
    for text, row in zip(texts, together, strict=True):
        (alone,) = embed(encoder, [text])
        np.testing.assert_allclose(alone[0], row, atol=1e-6, rtol=0)


def test_a_repeated_text_is_computed_once(encoder: SentenceEncoder) -> None:
    (first,) = embed(encoder, ["a cat", "a dog"])
    assert encoder.hits == 0
    again, other = embed(encoder, ["a dog", "a cat"], ["a cat", "a horse"])
    assert encoder.hits == 2
    np.testing.assert_array_equal(again, first[::-1])
    np.testing.assert_array_equal(other[0], first[0])


def test_a_text_twice_in_one_item_is_answered_twice(encoder: SentenceEncoder) -> None:
    (rows,) = embed(encoder, ["a cat", "a dog", "a cat"])
    np.testing.assert_array_equal(rows[0], rows[2])
    assert rows.shape == (3, 384)


def test_a_caller_that_writes_into_its_answer_does_not_change_the_next(encoder: SentenceEncoder) -> None:
    (first,) = embed(encoder, ["a cat"])
    kept = first.copy()
    first[:] = 0
    (again,) = embed(encoder, ["a cat"])
    np.testing.assert_array_equal(again, kept)


def test_more_texts_than_are_remembered_are_all_answered(
    encoder: SentenceEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder, "_forward", lambda group: np.ones((len(group), 384), np.float32))
    for start in range(0, 6000, 1000):
        (rows,) = embed(encoder, [f"number {n}" for n in range(start, start + 1000)])
        assert rows.shape == (1000, 384)


def test_transcripts_do_not_depend_on_batch_mates() -> None:
    decoder = loaded("whisper-tiny-en-decoder")
    names = {
        "hello-world.flac": "Hello world.",
        "quick-brown-fox.flac": "The quick brown fox jumps over the lazy dog.",
        "cat-looking.flac": "A cat looking at you.",
    }
    hidden = [run_module("whisper-tiny-en-encoder", {"audio": sample(name)}, "hidden") for name in names]
    results = decoder.run([decoder.prepare(item) for item in hidden], frozenset({"text"}))
    assert [result["text"] for result in results] == list(names.values())


@pytest.mark.parametrize(
    ("module_id", "inputs"),
    [
        ("efficientnet-lite0", {"image": sample("red-triangle.png")}),
        ("minilm", {"text": "a cat"}),
        ("whisper-tiny-en-encoder", {"audio": sample("hello-world.flac")}),
        ("noop-left", {"data": 1}),
    ],
)
def test_outputs_that_nobody_wants_are_not_given(module_id: str, inputs: dict[str, Value]) -> None:
    assert run_module(module_id, inputs) == {}
