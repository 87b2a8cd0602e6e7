"""Pictures as cameras and phones send them, and what is refused before it is decoded."""

import io
import subprocess
import sys

import numpy as np
import pillow_heif
import pytest
from PIL import Image

from s2m3.agents import memory
from s2m3.agents.media import pictures
from s2m3.agents.media.headers import check_picture, decoding_bytes, picture_facts
from s2m3.agents.media.pictures import decode_picture, square_pixels
from s2m3.schemas.errors import BadInputError
from tests.media.files import MULTIPART, file_of, jpeg, picture, png_header, with_scans

WHOLE = 65_535


def _difference(data: bytes, whole: bytes) -> float:
    one, other = (np.asarray(decode_picture(each, WHOLE), np.float32) for each in (data, whole))
    return float(np.abs(one - other).max())


JPEGS = {
    "baseline": jpeg(),
    "progressive": jpeg(progressive=True),
    "grey": file_of(picture().convert("L"), "JPEG"),
    "restarts": jpeg(restart_marker_blocks=7),
    "444": jpeg(subsampling=0),
}


@pytest.mark.parametrize("missing", [1, 2])
@pytest.mark.parametrize("name", JPEGS)
def test_12_a_jpeg_without_its_end_marker_is_read(name: str, missing: int) -> None:
    whole = JPEGS[name]
    assert _difference(whole[:-missing], whole) == 0.0


@pytest.mark.parametrize(
    "before",
    [
        b"\r\n",
        b"\r\n\r\n",
        bytes(7),
        MULTIPART,
        b"\r\n" + MULTIPART,
        b"HTTP/1.1 200 OK\r\n" + MULTIPART[9:],
        b"5e4b\r\n\r\n",
        b"5e4b\r\n",
        b"\xef\xbb\xbf\r\n",
    ],
    ids=["crlf", "two-crlf", "zeros", "multipart", "crlf-multipart", "http", "chunk", "chunk-alone", "byte-order-mark"],
)
@pytest.mark.parametrize("behind", [b"", b"\r\n--frame--\r\n", bytes(512), b"junk" * 9, jpeg()[:99]])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_12_what_stands_before_and_behind_a_jpeg_is_passed_over(before: bytes, behind: bytes, end: bytes) -> None:
    whole = JPEGS["baseline"]
    assert _difference(before + whole[:-2] + end + behind, whole) == 0.0


@pytest.mark.parametrize("behind", [b"", b"\r\n--frame--\r\n", bytes(4096), jpeg()])
@pytest.mark.parametrize("part", [0.2, 0.5, 0.9, 0.99])
@pytest.mark.parametrize("name", JPEGS)
def test_12_a_jpeg_cut_in_the_middle_is_refused(name: str, part: float, behind: bytes) -> None:
    whole = JPEGS[name]
    with pytest.raises(BadInputError, match="truncated"):
        decode_picture(whole[: int(len(whole) * part)] + behind, WHOLE)


def test_12_a_progressive_jpeg_that_ends_between_two_scans_is_refused() -> None:
    whole = JPEGS["progressive"]
    with pytest.raises(BadInputError, match="scans of the JPEG are missing"):
        decode_picture(whole[: whole.rfind(b"\xff\xda")], WHOLE)


@pytest.mark.parametrize("form", ["PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF"])
def test_13_every_kind_of_picture_is_read_behind_headers_too(form: str) -> None:
    pillow_heif.register_heif_opener()
    options = {} if form in ("GIF", "BMP", "TIFF", "PNG") else {"quality": 95}
    data = file_of(picture(), form, **options)
    for before in (b"", b"\r\n", MULTIPART):
        found = np.asarray(decode_picture(before + data, WHOLE), np.float32)
        assert found.shape == (269, 403, 3)
        assert np.abs(found - np.asarray(picture(), np.float32)).mean() < 12


def test_13_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pillow_heif.register_heif_opener()
    data = file_of(picture(), "HEIF")
    monkeypatch.delitem(Image.OPEN, "HEIF")
    monkeypatch.setattr(pictures, "find_spec", lambda _: None)
    with pytest.raises(BadInputError, match=r"HEIC .*pillow-heif .*pip install"):
        decode_picture(data, 448)


def _large(width: int, height: int, **options: object) -> bytes:
    return file_of(picture().resize((width, height)), "JPEG", quality=40, **options)


@pytest.mark.parametrize("need", [448, 2048])
def test_17_a_picture_of_50_megapixels_is_read(need: int) -> None:
    found = decode_picture(_large(8192, 6144), need)
    assert min(found.size) >= need
    assert found.width * found.height < 13_000_000


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_17_a_picture_of_200_megapixels_is_refused_in_words(form: str) -> None:
    data = jpeg() if form == "JPEG" else png_header(64, 64)
    at = data.index(b"\xff\xc0") + 5 if form == "JPEG" else 16
    size = b"".join(
        side.to_bytes(2 if form == "JPEG" else 4) for side in ((12_240, 16_320) if form == "JPEG" else (16_320, 12_240))
    )
    with pytest.raises(BadInputError, match=r"too large: 16320 x 12240 pixels \(200 megapixels\)") as caught:
        decode_picture(data[:at] + size + data[at + len(size) :], 448)
    assert "bomb" not in caught.value.detail


@pytest.mark.parametrize(
    "data", [b"\xff\xd8\xff" + bytes(99), b"GIF89a" + bytes(99), b"II*\0" + bytes(99), b"", b"RIFF....WEBP"]
)
def test_19_no_error_of_a_picture_holds_an_address(data: bytes) -> None:
    with pytest.raises(BadInputError) as caught:
        decode_picture(data, 448)
    assert "0x" not in str(caught.value)


def test_35_a_small_png_of_many_pixels_takes_what_was_reckoned_and_no_more() -> None:
    data = png_header(7_200, 6_900)
    assert len(data) < 250_000
    code = (
        "import sys, psutil\n"
        "from s2m3.agents.media.pictures import square_pixels\n"
        "data = sys.stdin.buffer.read(); before = psutil.Process().memory_info().rss\n"
        "square_pixels(data, 224)\n"
        "peak = next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM')) * 1024\n"
        "print((peak - before) // 1_000_000)"
    )
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True)
    facts = picture_facts(data, "PNG")
    assert facts is not None
    assert int(done.stdout) < 1.1 * decoding_bytes(facts, 448) / 1_000_000 < 250


@pytest.mark.parametrize("scans", [70, 400, 4_000])
def test_35_a_jpeg_of_many_scans_is_refused_before_it_is_decoded(scans: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    data = with_scans(JPEGS["progressive"], scans)
    monkeypatch.setattr(Image, "open", opened)
    with pytest.raises(BadInputError, match="scans"):
        decode_picture(data, 448)


def test_35_a_picture_for_which_there_is_no_memory_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = file_of(picture().resize((3000, 2000)), "PNG", compress_level=1)
    assert square_pixels(data, 224).shape == (224, 224, 3)
    monkeypatch.setattr(memory, "decoding_room_bytes", lambda: 20_000_000)
    with pytest.raises(BadInputError, match=r"3000 x 2000 pixels take 2\d MB to decode, 20 MB can be had"):
        square_pixels(data, 224)
    facts = picture_facts(data, "PNG")
    assert facts is not None
    check_picture(facts, 448, 100_000_000)


def test_an_animation_whose_frame_is_larger_than_its_canvas_is_bounded_too() -> None:
    data = bytearray(file_of(Image.new("P", (10, 10)), "GIF"))
    at = data.index(b",", 13)
    data[at + 5 : at + 9] = (60_000).to_bytes(2, "little") * 2
    with pytest.raises(BadInputError, match="60000 x 60000 pixels"):
        decode_picture(bytes(data), 448)


def test_a_large_transparent_picture_looks_the_same_when_it_is_made_smaller() -> None:
    image = picture().resize((1612, 1076)).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    white.alpha_composite(image)
    small = np.asarray(decode_picture(file_of(image, "PNG"), 448), np.float32)
    wanted = np.asarray(white.convert("RGB").reduce(2), np.float32)
    assert small.shape == wanted.shape
    assert np.abs(small - wanted).max() <= 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_put_upright(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file_of(picture(), "JPEG", exif=exif)
    with Image.open(io.BytesIO(data)) as image:
        from PIL import ImageOps  # noqa: PLC0415  # what Pillow itself makes of it

        wanted = np.asarray(ImageOps.exif_transpose(image))
    assert (np.asarray(decode_picture(data, WHOLE)) == wanted).all()


def test_36_what_decoding_may_take_is_part_of_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_budget", [])
    without = memory.decoding_room_bytes()
    monkeypatch.setattr(memory, "rss_mb", lambda: 390.0)
    memory.set_budget_mb(400.0)
    assert memory.decoding_room_bytes() == min(without, 110_000_000)
    bomb = file_of(Image.new("RGB", (7_000, 7_000)), "PNG")
    assert len(bomb) < 200_000
    with pytest.raises(BadInputError, match=r"7000 x 7000 pixels take 19\d MB to decode, 110 MB can be had"):
        decode_picture(bomb, 448)
    memory.set_budget_mb(100.0)
    assert memory.decoding_room_bytes() == min(without, 64_000_000)


def test_a_picture_that_is_fitted_whole_is_read_no_larger_than_its_longer_side_needs() -> None:
    large = file_of(picture().resize((4_000, 3_000)), "JPEG")
    assert decode_picture(large, 448).size == (1_000, 750)
    assert decode_picture(large, 448, longer=True).size == (500, 375)
    assert decode_picture(file_of(picture().resize((3_000, 4_000)), "PNG"), 448, longer=True).size == (375, 500)
    assert decode_picture(file_of(picture().resize((300, 200)), "JPEG"), 448, longer=True).size == (300, 200)
