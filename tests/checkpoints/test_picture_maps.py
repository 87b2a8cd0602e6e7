"""Maps of pictures: as large as the picture, or smaller where they would take too much; of many classes in 16 bits."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers as t
from PIL import Image

from s2m3.agents.checkpoints.pictures import picture_maps
from tests.checkpoints.inprocess import loaded, run_module
from tests.families.detection import save
from tests.families.family import definition
from tests.families.picture_maps import PICTURE_MAPS
from tests.media.files import file_of
from tests.zoo.samples import sample

ROWS = {row.name: row for row in PICTURE_MAPS}


def answer(folder: Path, picture: bytes, *outputs: str) -> dict[str, Any]:
    (spec,) = definition(folder).modules
    return run_module(loaded(folder.parent, spec), {"image": picture}, *outputs)


def made(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    ROWS[name].make(folder / name)
    return folder / name


def size_of(png: bytes) -> tuple[int, int]:
    return Image.open(io.BytesIO(png)).size


def test_a_map_is_as_large_as_the_upright_picture(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = file_of(Image.open(io.BytesIO(sample("chelsea.jpg"))), "PNG", exif=exif)
    found = answer(made(tmp_path, "segformer"), turned, "segments", "map")
    assert size_of(found["map"]) == size_of(sample("chelsea.jpg"))[::-1]
    assert sum(segment["share"] for segment in found["segments"]) == pytest.approx(1)


@pytest.mark.parametrize(("name", "output"), [("segformer", "map"), ("depth-anything", "depth")])
def test_a_map_that_would_take_too_much_is_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, output: str
) -> None:
    monkeypatch.setattr(picture_maps, "_MOST_BYTES", 100_000)
    width, height = size_of(answer(made(tmp_path, name), sample("chelsea.jpg"), output)[output])
    whole = size_of(sample("chelsea.jpg"))
    assert width * height * 4 * (3 if name == "segformer" else 4) <= 100_000
    assert width / height == pytest.approx(whole[0] / whole[1], rel=0.02)


def test_more_than_256_classes_are_numbers_of_16_bits(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    names = {number: f"class {number}" for number in range(300)}
    config = t.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 16, 24, 32],
        num_attention_heads=[1, 2, 2, 4],
        decoder_hidden_size=16,
        id2label=names,
        label2id={name: number for number, name in names.items()},
    )
    save(t.SegformerForSemanticSegmentation(config), tmp_path / "many")
    t.SegformerImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(tmp_path / "many")
    found = answer(tmp_path / "many", sample("chelsea.jpg"), "segments", "map")
    pixels = np.asarray(Image.open(io.BytesIO(found["map"])))
    assert set(np.unique(pixels)) == {segment["class"] for segment in found["segments"]}
    assert max(np.unique(pixels)) > 255
    assert all(segment["label"] == f"class {segment['class']}" for segment in found["segments"])


def test_a_depth_without_any_difference_is_black(tmp_path: Path) -> None:
    folder = made(tmp_path, "depth-anything")
    network = t.DepthAnythingForDepthEstimation.from_pretrained(folder)
    for weight in network.parameters():
        weight.data.zero_()
    network.save_pretrained(folder)
    found = answer(folder, sample("chelsea.jpg"), "depth", "least", "most")
    assert found["least"] == found["most"]
    assert not np.asarray(Image.open(io.BytesIO(found["depth"]))).any()
