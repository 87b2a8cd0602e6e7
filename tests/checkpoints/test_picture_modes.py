"""Pictures of every mode reach a checkpoint's processor as transformers' own load_image gives them."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers as t
from PIL import Image
from transformers.image_utils import load_image

from s2m3.agents.checkpoints.pictures.vision_encoder import ImageEncoder
from tests.checkpoints.inprocess import run_all
from tests.checkpoints.models import definition
from tests.checkpoints.tiny import make_vit_classifier
from tests.media.files import file_of, picture, png_chunk


def _alpha() -> Image.Image:
    """Every opacity from none to all, from left to right."""
    whole = picture()
    return Image.fromarray(np.tile(np.linspace(0, 255, whole.width).astype(np.uint8), (whole.height, 1)))


def _layered() -> Image.Image:
    image = picture().convert("RGBA")
    image.putalpha(_alpha())
    return image


def _grey_16() -> Image.Image:
    return Image.fromarray(np.asarray(picture().convert("L")).astype(np.uint16) * 257)


def _turned(form: str, orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file_of(picture(), form, exif=exif)


def _png_16(channels: int) -> bytes:
    """A PNG of 16 bits a sample, which Pillow reads and does not write: grey with alpha (2), RGB (3) or RGBA (4)."""
    kinds = {2: 4, 3: 2, 4: 6}
    layered = _layered() if channels != 2 else _layered().convert("LA")
    samples = np.asarray(layered)[..., :channels].astype(">u2") * 257 + 5
    height, width = samples.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, kinds[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in samples)
    body = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


FILES = {
    "rgba-png": file_of(_layered(), "PNG"),
    "rgba-webp": file_of(_layered(), "WEBP", lossless=True, exact=True),
    "rgba-tiff": file_of(_layered(), "TIFF"),
    "grey-alpha-png": file_of(_layered().convert("LA"), "PNG"),
    "palette-png": file_of(picture().quantize(64), "PNG"),
    "palette-one-colour-transparent-png": file_of(picture().quantize(64), "PNG", transparency=3),
    "palette-with-opacities-png": file_of(picture().quantize(64), "PNG", transparency=bytes(range(0, 256, 4))),
    "palette-transparent-gif": file_of(picture().quantize(64), "GIF", transparency=3),
    "rgb-one-colour-transparent-png": file_of(picture(), "PNG", transparency=(0, 0, 0)),
    "grey-one-level-transparent-png": file_of(picture().convert("L"), "PNG", transparency=90),
    "black-and-white-png": file_of(picture().convert("1"), "PNG"),
    "grey-png": file_of(picture().convert("L"), "PNG"),
    "grey-16-png": file_of(_grey_16(), "PNG"),
    "grey-16-tiff": file_of(_grey_16(), "TIFF"),
    "grey-alpha-16-png": _png_16(2),
    "rgb-16-png": _png_16(3),
    "rgba-16-png": _png_16(4),
    "grey-jpeg": file_of(picture().convert("L"), "JPEG"),
    "cmyk-jpeg": file_of(picture().convert("CMYK"), "JPEG"),
    "cmyk-tiff": file_of(picture().convert("CMYK"), "TIFF"),
    "turned-jpeg": _turned("JPEG", 6),
    "turned-png": _turned("PNG", 5),
    "turned-webp": _turned("WEBP", 8),
    "turned-tiff": _turned("TIFF", 6),
    "turned-avif": _turned("AVIF", 6),
    "turned-by-xmp-jpeg": file_of(picture(), "JPEG", xmp=b'<x:xmpmeta tiff:Orientation="6"/>'),
    "several-frames-gif": file_of(picture(), "GIF", save_all=True, append_images=[picture().rotate(90)]),
}


@pytest.mark.parametrize("name", FILES)
def test_the_processor_is_given_the_pixels_of_load_image(tmp_path: Path, name: str) -> None:
    path = tmp_path / "picture"
    path.write_bytes(FILES[name])
    given: list[Image.Image] = []

    def processor(images: list[Image.Image], **_how: Any) -> Any:
        given.extend(images)
        return t.ViTImageProcessorPil()(images, return_tensors="pt")

    ImageEncoder(torch.nn.Identity(), processor, {}).prepare({"image": FILES[name]})
    expected = load_image(str(path))
    assert given[0].mode == expected.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(given[0]), np.asarray(expected))


@pytest.mark.parametrize("name", ["rgba-png", "palette-with-opacities-png", "grey-16-png"])
def test_scores_of_such_pictures_are_those_of_the_pipeline(tmp_path: Path, name: str) -> None:
    make_vit_classifier(tmp_path / "tiny")
    network = t.AutoModelForImageClassification.from_pretrained(tmp_path / "tiny")
    processor = t.ViTImageProcessorPil.from_pretrained(tmp_path / "tiny")
    sent = Image.open(io.BytesIO(FILES[name]))
    expected = t.pipeline("image-classification", model=network, image_processor=processor)(sent)
    found = run_all(tmp_path, definition(tmp_path, "tiny"), {"image": FILES[name]})["classes.ranking"]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    np.testing.assert_allclose([row["score"] for row in found], [row["score"] for row in expected], atol=1e-5, rtol=0)
