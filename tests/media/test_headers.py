"""What may be decoded follows from a header's figures alone."""

import numpy as np
import pillow_heif
import pytest

from s2m3.agents.media.formats import format_of
from s2m3.agents.media.headers import (
    MAX_PASSES,
    MAX_PIXELS,
    PictureFacts,
    check_picture,
    decoding_bytes,
    picture_facts,
    scale_of,
    shorter_side,
)
from s2m3.agents.media.jpeg import read_jpeg
from s2m3.schemas.errors import BadInputError
from tests.media.files import file_of, jpeg, picture

ROOM = 512_000_000
MB = 1_000_000


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "HEIF"])
def test_35_size_is_read_from_the_header_of_each_format(form: str) -> None:
    pillow_heif.register_heif_opener()
    data = file_of(picture(), form)
    name = format_of(data)
    assert name is not None
    facts = picture_facts(data, name)
    assert facts is not None
    assert (facts.width, facts.height) == ((404, 270) if form == "HEIF" else (403, 269))  # x265 wants whole pairs


@pytest.mark.parametrize("options", [{"lossless": True}, {"quality": 80}, {"quality": 80, "exif": b"Exif\0\0x"}])
def test_35_each_kind_of_webp_says_its_size(options: dict[str, object]) -> None:
    facts = picture_facts(file_of(picture(), "WEBP", **options), "WEBP")
    assert facts is not None
    assert (facts.width, facts.height) == (403, 269)


def test_35_scans_and_coefficients_of_a_jpeg_are_counted() -> None:
    plain, progressive = read_jpeg(jpeg()), read_jpeg(jpeg(progressive=True, subsampling=0))
    assert (plain.scans, plain.progressive, plain.samples, plain.ended) == (1, False, 1.5, True)
    assert (progressive.scans, progressive.progressive, progressive.samples) == (10, True, 3.0)
    assert plain.complete
    assert progressive.complete


@pytest.mark.parametrize(
    ("facts", "need", "said"),
    [
        (PictureFacts("PNG", 7_300, 7_300), 448, "at most 52 megapixels"),
        (PictureFacts("JPEG", 12_000, 10_001), 448, "at most 120 megapixels"),
        (PictureFacts("JPEG", 12_000, 9_000, kept=3.0, passes=10), 448, "at most 52 megapixels"),
        (PictureFacts("JPEG", 120_000, 600), 448, "at most 52 megapixels"),
        (PictureFacts("JPEG", 100, 100, passes=MAX_PASSES + 1, kept=3.0), 448, "scans"),
        (PictureFacts("JPEG", 7_000, 7_000, passes=20, kept=3.0), 448, "million pixels in all scans"),
        (PictureFacts("JPEG", 7_000, 7_000, passes=10, kept=6.0), 4_000, "take 490 MB to decode, 256 MB can be had"),
        (PictureFacts("JPEG", 6_000, 4_000, passes=10, kept=3.0, decodings=3), 448, "million pixels in all scans"),
        (PictureFacts("JPEG", 6_000, 4_000, decodings=3), 4_000, "can be had"),
        (PictureFacts("WEBP", 5_000, 5_000), 448, "can be had"),
    ],
)
def test_35_too_much_is_refused(facts: PictureFacts, need: int, said: str) -> None:
    with pytest.raises(BadInputError, match=said):
        check_picture(facts, need, ROOM // 2)


@pytest.mark.parametrize(
    "facts",
    [
        PictureFacts("JPEG", 8_160, 6_144),
        PictureFacts("JPEG", 12_000, 9_000),
        PictureFacts("JPEG", 8_160, 6_144, passes=10, kept=3.0),
        PictureFacts("PNG", 7_200, 7_000),
        PictureFacts("WEBP", 4_000, 3_000),
    ],
)
def test_what_cameras_send_is_let_through(facts: PictureFacts) -> None:
    check_picture(facts, 448, ROOM)


def test_35_the_memory_that_is_reckoned_grows_with_pixels_scans_and_need() -> None:
    chance = np.random.default_rng(0)
    for _ in range(500):
        width, height, need = (int(n) for n in chance.integers(1, 9_000, 3))
        plain = PictureFacts("JPEG", width, height)
        progressive = PictureFacts("JPEG", width, height, passes=10, kept=3.0)
        assert decoding_bytes(plain, need) <= decoding_bytes(progressive, need)
        assert decoding_bytes(plain, need) <= decoding_bytes(PictureFacts("PNG", width, height), need)
        assert decoding_bytes(plain, need) <= decoding_bytes(plain, 2 * need)
        assert min(width, height) // scale_of(width, height, need) >= min(need, width, height)
        if width * height <= MAX_PIXELS:
            assert decoding_bytes(progressive, need) <= 7 * width * height + MB


@pytest.mark.parametrize("count", [0, 1, 7, 24, 29])
def test_a_header_that_is_cut_off_is_refused(count: int) -> None:
    for form in ("PNG", "WEBP", "GIF", "BMP"):
        with pytest.raises(BadInputError):
            picture_facts(file_of(picture(), form)[: min(count, 8)], form)


def test_a_file_of_fill_bytes_is_read_through_once() -> None:
    assert read_jpeg(b"\xff\xd8" + b"\xff" * 5_000_000).scans == 0
    with pytest.raises(BadInputError, match="segments"):
        read_jpeg(b"\xff\xd8" + b"\xff\xe0\0\x02" * 1_000_000)


def test_the_shorter_side_of_a_picture_whose_longer_side_is_given() -> None:
    assert shorter_side(4_000, 3_000, 448) == 336
    assert shorter_side(3_000, 4_000, 448) == 336
    assert shorter_side(50_000, 1_000, 448) == 9  # 8.96
    assert shorter_side(7, 7, 448) == 448
    assert (shorter_side(9_000, 1, 448), shorter_side(0, 0, 448)) == (1, 1)
