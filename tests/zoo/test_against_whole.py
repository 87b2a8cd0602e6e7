"""Each module alone, and each task over its modules, gives what the whole models give."""

import io
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from s2m3.agents.registry import can_load, load
from s2m3.agents.runtimes.torch import TorchNetwork
from s2m3.agents.zoo.efficientnet import VisionEncoder
from s2m3.schemas.definitions import shipped_catalogue
from tests.zoo import whole
from tests.zoo.inprocess import loaded, run_model, run_module
from tests.zoo.samples import cases, sample

CASES = cases()
IDS = [f"{task}-{next(iter(expect.values()))}" for task, _, expect in CASES]


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def assert_same(split: Any, together: Any) -> None:
    """Equal texts and numbers of things; scores within 1e-5, corners of boxes within a hundredth of a pixel."""
    match together:
        case dict():
            assert split.keys() == together.keys()
            if "box" in together:
                assert split["box"] == pytest.approx(together["box"], abs=0.01)
            for name in together.keys() - {"box"}:
                assert_same(split[name], together[name])
        case list():
            assert len(split) == len(together)
            for one, other in zip(split, together, strict=True):
                assert_same(one, other)
        case bytes() if together.startswith(b"RIFF"):
            assert_same_sound(split, together)
        case bytes() if together.startswith(b"\x89PNG"):
            assert_same_picture(split, together)
        case np.ndarray():
            np.testing.assert_allclose(split, together, atol=1e-5, rtol=0)
        case float():
            assert type(split) is float
            assert split == pytest.approx(together, abs=1e-5)
        case _:
            assert type(split) is type(together)
            assert split == together


def assert_same_picture(split: bytes, together: bytes) -> None:
    """Equal pictures, but for the last bit of their samples."""
    one, other = (np.asarray(Image.open(io.BytesIO(data))).astype(int) for data in (split, together))
    assert one.shape == other.shape
    assert np.abs(one - other).max() <= 1


def assert_same_sound(split: bytes, together: bytes) -> None:
    """Equal WAV files, but for the last bit of their samples of 16 bits."""
    (one, rate), (other, expected) = (soundfile.read(io.BytesIO(data), dtype="int16") for data in (split, together))
    assert rate == expected
    assert one.shape == other.shape
    assert np.abs(one.astype(int) - other.astype(int)).max() <= 1


@pytest.mark.parametrize(("task", "inputs", "expect"), CASES, ids=IDS)
def test_a_task_over_modules_answers_as_expected_and_as_the_whole_model(
    task: str, inputs: dict[str, Any], expect: dict[str, Any]
) -> None:
    answer = run_model(task, inputs)
    assert {name: answer[name] for name in expect} == expect
    assert_same(answer, whole.answer(task, inputs))


def test_every_task_has_at_least_two_cases() -> None:
    tasks = [task for task, _, _ in CASES]
    catalogue = shipped_catalogue()
    models = {name for name in catalogue.models if all(can_load(spec) for spec in catalogue.modules_of(name))}
    models -= {"noop", "noop-text", "doorbell", "face", "speech"}  # the last three: test_household.py
    assert {task for task in tasks if tasks.count(task) >= 2} == models


@pytest.mark.parametrize("name", ["chelsea.jpg", "rocket.jpg", "camera.jpg", "blue-circle.png"])
def test_the_vision_encoder_alone_gives_the_whole_networks_features(name: str) -> None:
    alone = run_module("efficientnet-lite0", {"image": sample(name)}, "features")["features"]
    assert alone.shape == (1, 1280)
    assert alone.dtype == np.float32
    np.testing.assert_allclose(alone, whole.features(sample(name)).numpy(), atol=2e-5, rtol=0)


def test_the_classifier_alone_gives_the_whole_networks_logits() -> None:
    given = whole.features(sample("coffee.jpg")).numpy()
    alone = run_module("imagenet-linear", {"features": given}, "logits")["logits"]
    np.testing.assert_allclose(alone, whole.logits(sample("coffee.jpg")).numpy(), atol=1e-5, rtol=0)


def test_the_text_encoder_alone_gives_the_padded_whole_models_embeddings() -> None:
    texts = ["a cat", "a cup of coffee on a wooden table, seen from above", "", "Ünïcode 漢字", "word " * 400]
    alone = run_module("minilm", {"text": texts}, "embedding", "text")
    assert alone["text"] == texts
    np.testing.assert_allclose(alone["embedding"], whole.embeddings(texts).numpy(), atol=1e-6, rtol=0)
    np.testing.assert_allclose(np.linalg.norm(alone["embedding"], axis=1), 1, atol=1e-6)


def test_the_audio_encoder_alone_gives_the_whole_models_hidden_states() -> None:
    alone = run_module("whisper-tiny-en-encoder", {"audio": sample("cat-looking.flac")}, "hidden")["hidden"]
    assert alone.shape == (1, 1500, 384)
    np.testing.assert_allclose(alone, whole.hidden(sample("cat-looking.flac")).numpy(), atol=1e-5, rtol=1e-5)


def test_the_decoder_alone_says_what_whole_model_generation_says() -> None:
    for name in ("play-music.flac", "quick-brown-fox.flac"):
        given = whole.hidden(sample(name)).numpy()
        said = run_module("whisper-tiny-en-decoder", {"hidden": given}, "text")["text"]
        assert said == whole.transcript(sample(name))


def test_the_decoder_stops_at_its_bound() -> None:
    spec = shipped_catalogue().modules["whisper-tiny-en-decoder"]
    short = load(spec.model_copy(update={"config": {"max_new_tokens": 3}}))
    hidden = run_module("whisper-tiny-en-encoder", {"audio": sample("quick-brown-fox.flac")}, "hidden")
    assert short.run([short.prepare(hidden)], frozenset({"text"})) == [{"text": "The quick brown"}]


def test_split_models_run_without_a_warning(capfd: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run_model("spoken-retrieval", {"audio": sample("cat-looking.flac"), "image": [sample("chelsea.jpg")]})
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("weight", ["_conv_stem.weight", "_blocks.7._depthwise_conv.bias", "_conv_head.weight"])
def test_a_wrong_weight_in_the_vision_encoder_fails_the_comparison(weight: str) -> None:
    encoder = load(shipped_catalogue().modules["efficientnet-lite0"])
    assert isinstance(encoder, VisionEncoder)
    assert isinstance(encoder.network, TorchNetwork)
    parameter = encoder.network.module.get_parameter(f"network.{weight}")
    parameter[0] += 0.5
    item = encoder.prepare({"image": sample("chelsea.jpg")})
    (result,) = encoder.run([item], frozenset({"features"}))
    assert np.abs(result["features"] - whole.features(sample("chelsea.jpg")).numpy()).max() > 1e-3


def test_modules_say_how_many_bytes_their_tensors_take() -> None:
    for module_id, megabytes in {
        "efficientnet-lite0": 13.4,
        "imagenet-linear": 5.1,
        "minilm": 90.3,
        "whisper-tiny-en-encoder": 32.8 + 1.24,  # the voice activity detector
        "whisper-tiny-en-decoder": 118.2,
        "conse": 1.536,
        "easy-vqa": 2.58,
    }.items():
        assert loaded(module_id).nbytes == pytest.approx(megabytes * 1e6, rel=0.02)
