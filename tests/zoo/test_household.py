"""The tasks that a household would choose, on their real weights: doorbell, face, speech."""

import io
import tomllib
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from PIL import Image

from s2m3.agents.modules.boxes import keep_best
from s2m3.agents.registry import load
from s2m3.agents.serving.module import default_tokens
from s2m3.agents.zoo.detectors import OPEN_IMAGES
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.generation import Options
from tests.media.files import wav
from tests.zoo.inprocess import loaded, run_model, run_module
from tests.zoo.samples import FOLDER, sample

DOORBELL = "ssd-mobilenet-household"
#: What TensorFlow Lite finds with the same weights (ai-edge-litert 2.3.0): score and corners, pixels of the sample.
LITERT = {
    "astronaut.jpg": ("person", 0.64, [13, 10, 231, 317]),
    "chelsea.jpg": ("cat", 0.86, [2, 0, 383, 265]),
    "camera.jpg": ("person", 0.46, [3, 29, 189, 318]),
}
CASES = tomllib.loads((FOLDER / "household.toml").read_text(encoding="utf-8"))["case"]


def picture(pixels: Any, form: str = "jpeg") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.asarray(pixels, np.uint8)).save(file, form)
    return file.getvalue()


def night(noise: float) -> bytes:
    dice = np.random.default_rng(0)
    return picture(np.clip(dice.normal(10, noise, (480, 640, 3)), 0, 255))


NOTHING = {
    "black": picture(np.zeros((480, 640, 3))),
    "grey": picture(np.full((480, 640, 3), 127)),
    "dark": night(4),
    "night": night(30),
    "gravel": sample("gravel.jpg"),
    "rocket": sample("rocket.jpg"),
    "one pixel": picture(np.zeros((1, 1, 3)), "png"),
}


@pytest.mark.parametrize(("name", "found"), LITERT.items(), ids=LITERT)
def test_the_doorbell_finds_what_tensorflow_lite_finds(name: str, found: tuple[str, float, list[int]]) -> None:
    answer = run_model("doorbell", {"image": sample(name)})
    assert answer["label"] == found[0]
    assert answer["score"] == pytest.approx(found[1], abs=0.01)
    (box,) = answer["boxes"]
    assert box["box"] == pytest.approx(found[2], abs=1.01)


@pytest.mark.parametrize("model", ["doorbell", "face"])
@pytest.mark.parametrize("what", NOTHING)
def test_nothing_is_seen_where_nothing_is(model: str, what: str) -> None:
    assert run_model(model, {"image": NOTHING[what]}) == {"boxes": [], "label": "", "score": 0.0}


def test_a_face_is_found_where_it_is_in_a_wide_picture() -> None:
    head = Image.open(io.BytesIO(sample("astronaut.jpg"))).crop((70, 20, 230, 180))
    wide = Image.new("RGB", (240, 160))
    wide.paste(head, (80, 0))
    (alone,) = run_model("face", {"image": picture(head)})["boxes"]
    (shifted,) = run_model("face", {"image": picture(wide)})["boxes"]
    left, top, right, bottom = alone["box"]
    assert shifted["box"] == pytest.approx([left + 80, top, right + 80, bottom], abs=12)


def test_of_boxes_that_overlap_the_best_stays() -> None:
    corners = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 4]], np.float32)
    scores = np.array([0.6, 0.9, 0.5, 0.3], np.float32)
    assert keep_best(corners, scores, 0.4, 0.5, 10) == [1, 2]
    assert keep_best(corners, scores, 0.2, 0.5, 10) == [1, 2, 3]
    assert keep_best(corners, scores, 0.2, 0.5, 1) == [1]


def test_a_label_that_the_detector_does_not_know_is_refused() -> None:
    spec = shipped_catalogue().modules[DOORBELL]
    config: Mapping[str, Any] = spec.config | {"labels": ["person", "parcel"]}
    with pytest.raises(ModuleFailedError, match="'parcel' is none of: bicycle"):
        load(spec.model_copy(update={"config": config}))


def test_what_is_no_picture_is_refused_alone() -> None:
    with pytest.raises(BadInputError, match="not a picture"):
        loaded(DOORBELL).prepare({"image": b"a parcel"})


def test_every_score_of_the_detector_has_a_label() -> None:
    assert len(OPEN_IMAGES) == 24
    assert len(set(OPEN_IMAGES)) == 24


def heard(audio: bytes) -> dict[str, Any]:
    decoder: Any = loaded("speech-decoder")
    prepared = decoder.prepare(run_module("speech-encoder", {"audio": audio}, "hidden"))
    row, most = decoder.begin(prepared, Options()), default_tokens(decoder, prepared)
    while not row.ended and len(row.tokens) < most:
        decoder.advance([row])
    decoder.drop([row])
    return {**row.outputs, "text": decoder.text(row.tokens)}


@pytest.mark.parametrize(
    "case", [one for one in CASES if one["task"] == "speech"], ids=lambda case: str(case["inputs"])
)
def test_speech_is_written_down_in_its_language(case: Mapping[str, Any]) -> None:
    assert heard(sample(case["inputs"]["audio"])) == case["expect"]


def test_where_nobody_speaks_nothing_is_written_down() -> None:
    hum = (0.3 * np.sin(np.arange(32_000) * 0.03)).astype(np.float32)
    assert heard(wav(hum)) == {"language": "", "text": ""}


@pytest.mark.parametrize(
    "case", [one for one in CASES if one["task"] != "speech"], ids=lambda case: str(case["inputs"])
)
def test_a_picture_of_the_samples_is_answered(case: Mapping[str, Any]) -> None:
    answer = run_model(case["task"], {"image": sample(case["inputs"]["image"])})
    assert {name: answer[name] for name in case["expect"]} == case["expect"]
