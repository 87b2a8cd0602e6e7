"""Detectors' boxes are in pixels of the picture that was sent, and what cannot be asked is refused in words."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from PIL import Image
from transformers.models.auto import modeling_auto as auto
from transformers.models.auto.image_processing_auto import IMAGE_PROCESSOR_MAPPING_NAMES

from s2m3.agents.checkpoints.pictures import reading
from s2m3.agents.checkpoints.pictures.object_detector import ObjectDetector
from s2m3.agents.media.pictures import decode_with_size
from s2m3.agents.registry import classes
from s2m3.agents.serving.module import Module
from s2m3.schemas.checkpoints.processors import NO_PILLOW
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.values import check_kind
from tests.checkpoints.inprocess import loaded, run_module
from tests.families.detection import DETECTION
from tests.families.family import definition
from tests.media.files import file_of
from tests.zoo.samples import sample
from tests.zoo.test_against_whole import assert_same

FAMILIES = {family.name: family for family in DETECTION}
OUTPUTS = ("boxes", "label", "score")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detectors")
    for name in ("yolos", "owlvit", "grounding-dino"):
        (folder / name).mkdir()
        FAMILIES[name].make(folder / name)
    return folder


def detector(folder: Path, **config: Any) -> Module:
    (spec,) = definition(folder).modules
    return loaded(folder.parent, spec.model_copy(update={"config": config}))


def whole(folder: Path, image: bytes, **texts: Any) -> dict[str, Any]:
    with torch.inference_mode():
        return FAMILIES[folder.name].whole(folder, {"image": image, **texts})


def cat() -> Image.Image:
    return Image.open(io.BytesIO(sample("chelsea.jpg"))).convert("RGB")


def _grey_16() -> bytes:
    return file_of(Image.fromarray(np.asarray(cat().convert("L")).astype(np.uint16) * 200), "PNG")


def _turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_of(cat(), "PNG", exif=exif)


PICTURES = {
    "wide": file_of(cat().resize((400, 90)), "PNG"),
    "tall": file_of(cat().resize((90, 400)), "PNG"),
    "cmyk": file_of(cat().convert("CMYK"), "JPEG", quality=95),
    "grey-16": _grey_16(),
    "palette": file_of(cat().quantize(64), "PNG"),
}


@pytest.mark.parametrize("picture", PICTURES)
def test_boxes_are_in_pixels_of_the_picture_whatever_its_shape_and_mode(made: Path, picture: str) -> None:
    answer = run_module(detector(made / "yolos"), {"image": PICTURES[picture]}, *OUTPUTS)
    assert check_kind("boxes", "boxes", answer["boxes"])
    assert_same(answer, whole(made / "yolos", PICTURES[picture]))


@pytest.mark.parametrize("orientation", range(2, 9))
def test_boxes_are_those_of_the_picture_as_people_see_it(made: Path, orientation: int) -> None:
    turned = _turned(orientation)
    upright, size = decode_with_size(turned, 2_048)
    assert size == upright.size == (cat().size[::-1] if orientation >= 5 else cat().size)
    answer = run_module(detector(made / "yolos"), {"image": turned}, *OUTPUTS)
    assert_same(answer, whole(made / "yolos", file_of(upright, "PNG")))


@pytest.mark.parametrize(("form", "orientation"), [("JPEG", 1), ("JPEG", 6), ("PNG", 6)])
def test_boxes_of_a_picture_that_is_decoded_at_a_half_are_in_its_own_pixels(form: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    large = file_of(cat().resize((900, 600)), form, exif=exif)
    small, size = decode_with_size(large, 200)
    assert size == ((900, 600) if orientation == 1 else (600, 900))
    assert max(small.size) < 900


def test_a_detector_scales_boxes_from_the_half_that_it_looked_at(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = file_of(cat().resize((900, 600)), "PNG")
    small, size = decode_with_size(large, 300)
    expected = whole(made / "yolos", file_of(small, "PNG"))
    for box in expected["boxes"]:
        box["box"] = [corner * size[0] / small.width for corner in box["box"]]
    monkeypatch.setattr(reading, "_FULL", 300)
    assert_same(run_module(detector(made / "yolos"), {"image": large}, *OUTPUTS), expected)
    assert small.width == 450


def test_the_threshold_is_a_setting_of_the_module(made: Path) -> None:
    scores = {}
    for threshold in (0.0, 0.5, 0.9, 1.0):
        answer = run_module(detector(made / "yolos", threshold=threshold), {"image": PICTURES["wide"]}, *OUTPUTS)
        scores[threshold] = [box["score"] for box in answer["boxes"]]
        assert scores[threshold] == sorted(scores[threshold], reverse=True)
        assert all(score > threshold for score in scores[threshold])
    assert len(scores[0.0]) > len(scores[0.9])
    assert answer == {"boxes": [], "label": "", "score": 0.0}


@pytest.mark.parametrize("threshold", [-0.1, 1.5, "high", True])
def test_a_threshold_that_is_no_probability_is_refused(made: Path, threshold: object) -> None:
    with pytest.raises(ModuleFailedError, match="threshold"):
        detector(made / "yolos", threshold=threshold)


def test_pictures_do_not_share_a_padded_batch(made: Path) -> None:
    module = detector(made / "yolos")
    assert isinstance(module, ObjectDetector)
    assert module.max_batch == 1


@pytest.mark.parametrize("name", ["yolos", "owlvit", "grounding-dino"])
@pytest.mark.parametrize("size", [(1, 1), (1, 2000), (2000, 1), (3, 900)])
def test_a_picture_that_is_a_line_is_an_answer_or_refused_in_words(
    made: Path, name: str, size: tuple[int, int]
) -> None:
    inputs = {"image": file_of(Image.new("RGB", size, "red"), "PNG"), "text": ["a cat"]}
    try:
        answer = run_module(detector(made / name), inputs, *OUTPUTS)
    except BadInputError as error:
        assert "picture" in error.detail  # noqa: PT017  # either is right
    else:
        assert check_kind("boxes", "boxes", answer["boxes"]) == answer["boxes"]


def test_three_hundred_labels_are_asked_as_transformers_does(made: Path) -> None:
    labels = [f"{first}{second} cat" for first in "abcdefghijklmno" for second in "abcdefghijklmnopqrst"]
    assert len(set(labels)) == 300
    answer = run_module(detector(made / "owlvit"), {"image": PICTURES["wide"], "text": labels}, *OUTPUTS)
    assert_same(answer, whole(made / "owlvit", PICTURES["wide"], text=labels))


@pytest.mark.parametrize(
    ("name", "labels", "why"),
    [
        ("owlvit", [], "an empty list"),
        ("owlvit", ["a cat", " "], "a label without a character"),
        ("owlvit", ["a cat", "a cat that sits on the red mat"], "a label takes 25 tokens; at most 16"),
        ("grounding-dino", [], "an empty list"),
        ("grounding-dino", ["a cat", "a dog. a cup"], "the label 'a dog. a cup' has a full stop"),
        ("grounding-dino", [f"cat dog {'red ' * n}" for n in range(20)], "the labels take together"),
    ],
)
def test_labels_that_cannot_be_asked_are_refused_in_words(made: Path, name: str, labels: list[str], why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        run_module(detector(made / name), {"image": PICTURES["wide"], "text": labels}, *OUTPUTS)


def test_one_text_with_full_stops_is_grounding_dinos_prompt_as_its_card_writes_it(made: Path) -> None:
    module = detector(made / "grounding-dino")
    listed = run_module(module, {"image": PICTURES["wide"], "text": ["a cat", "a red cup"]}, *OUTPUTS)
    prompt = run_module(module, {"image": PICTURES["wide"], "text": ["a cat. a red cup."]}, *OUTPUTS)
    assert prompt == listed


def test_an_agent_without_scipy_offers_no_owlv2_and_says_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classes, "find_spec", lambda name: None if name == "scipy" else object())
    missing = {name: kind.missing_package() for name, kind in classes.SHIPPED.items()}
    why = {name: text for name, text in missing.items() if text is not None}
    assert why == {"owlv2-object-detector": "the package scipy (pip install 's2m3[owlv2]')"}


def test_the_list_of_processors_without_pillow_is_transformers_own() -> None:
    tables = (
        auto.MODEL_FOR_OBJECT_DETECTION_MAPPING_NAMES,
        auto.MODEL_FOR_ZERO_SHOT_OBJECT_DETECTION_MAPPING_NAMES,
        auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        auto.MODEL_FOR_DEPTH_ESTIMATION_MAPPING_NAMES,
        auto.MODEL_FOR_SEMANTIC_SEGMENTATION_MAPPING_NAMES,
    )
    kinds = [IMAGE_PROCESSOR_MAPPING_NAMES.get(model) or {} for table in tables for model in table]
    alone = {kind["torchvision"] for kind in kinds if "torchvision" in kind and "pil" not in kind}
    assert alone - {None} <= NO_PILLOW
    assert not [name for name in NO_PILLOW if hasattr(t, f"{name}Pil")]
