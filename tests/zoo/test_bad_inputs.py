"""An item that cannot be read is refused by itself, in words that say why; odd but readable ones are read."""

import io
import resource
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import soundfile
from PIL import Image

from s2m3.agents.media.pictures import decode_picture, square_pixels
from s2m3.agents.media.sounds import decode_sound
from s2m3.schemas.errors import BadInputError
from tests.zoo.inprocess import loaded, run_model
from tests.zoo.samples import sample


def picture_file(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def sound_file(samples: Any, rate: int = 16000, form: str = "WAV", subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=form, subtype=subtype)
    return file.getvalue()


def refused(module_id: str, inputs: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInputError, match=text):
        loaded(module_id).prepare(inputs)


# Pictures.


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not a picture: 0 bytes"),
        (b"not a picture at all", "not a picture: 20 bytes .*; they are text"),
        (b"<html><h1>401 Unauthorized</h1></html>", "not a picture.*they are HTML, as a camera's error page is"),
        (b'{"image": {"base64": "/9j/"}}', "not a picture.*they are JSON, which goes to request/<task>"),
        ("é".encode() * 150, "; they are text"),
        (sample("hello-world.flac"), "not a picture"),
        (sample("chelsea.jpg")[:9000], "cannot be decoded: .*truncated"),
        (sample("red-triangle.png")[:200], "cannot be decoded"),
    ],
    ids=["empty", "words", "html", "json", "letters", "sound", "half-jpeg", "half-png"],
)
def test_a_file_that_is_no_whole_picture_is_refused(data: bytes, text: str) -> None:
    refused("efficientnet-lite0", {"image": data}, text)


def test_one_bad_picture_among_good_ones_is_refused() -> None:
    refused("efficientnet-lite0", {"image": [sample("chelsea.jpg"), b"bad"]}, "not a picture")


def test_more_than_32_pictures_are_refused() -> None:
    refused("efficientnet-lite0", {"image": [sample("red-triangle.png")] * 33}, "33 pictures; at most 32")


@pytest.mark.parametrize("side", [7500, 12000, 30000])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(side: int) -> None:
    bomb = bomb_of(side)
    assert len(bomb) < 200_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(BadInputError, match=r"pixels|large"):
        square_pixels(bomb, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000


def bomb_of(side: int) -> bytes:
    """Returns a PNG whose header promises side x side pixels."""
    import struct  # noqa: PLC0415 - only for this forgery
    import zlib  # noqa: PLC0415

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def test_a_very_long_picture_takes_no_memory_of_a_square() -> None:
    pixels = square_pixels(picture_file(Image.new("1", (40_000, 10), 0)), 224)
    assert pixels.shape == (224, 224, 3)
    assert (pixels[111, 60:160] == 0).all()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_png_of_any_mode_is_read(mode: str) -> None:
    image = Image.new(mode, (30, 20), 0) if mode != "I;16" else Image.fromarray(np.zeros((20, 30), np.uint16))
    assert decode_picture(picture_file(image), 448).getpixel((3, 3)) == (
        (255, 255, 255) if mode in ("LA", "RGBA") else (0, 0, 0)
    )


def test_sixteen_bit_grey_is_scaled_and_not_clipped() -> None:
    grey = Image.fromarray(np.full((20, 30), 0x8000, np.uint16))
    assert decode_picture(picture_file(grey), 448).getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF", "BMP", "MPO"])
def test_other_formats_are_read(form: str) -> None:
    options = {"save_all": True, "append_images": [Image.new("RGB", (40, 30), "blue")]} if form == "MPO" else {}
    data = picture_file(Image.new("RGB", (40, 30), "red"), form, **options)
    red, green, blue = np.asarray(decode_picture(data, 448)).reshape(-1, 3).mean(0)
    assert red > 240
    assert max(green, blue) < 10


def test_cmyk_jpeg_is_read() -> None:
    data = picture_file(Image.new("CMYK", (40, 30), (0, 255, 255, 0)), "JPEG")
    assert np.asarray(decode_picture(data, 448))[0, 0, 0] > 240


def test_the_first_frame_of_an_animation_is_what_is_seen() -> None:
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("red", "lime", "blue")]
    for form in ("GIF", "PNG", "WEBP"):
        data = picture_file(frames[0], form, save_all=True, append_images=frames[1:])
        assert np.asarray(decode_picture(data, 448))[5, 5].argmax() == 0


def test_a_camera_held_upright_is_seen_upright() -> None:
    image = Image.new("RGB", (60, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6  # turn a quarter clockwise to see it upright
    turned = decode_picture(picture_file(image, "JPEG", exif=exif), 448)
    assert turned.size == (20, 60)


def test_a_large_jpeg_is_decoded_small_and_looks_the_same() -> None:
    with Image.open(io.BytesIO(sample("chelsea.jpg"))) as image:
        large = picture_file(image.resize((3200, 2120), Image.Resampling.BICUBIC), "JPEG", quality=95)
    assert decode_picture(large, 448).width == 800
    difference = np.abs(square_pixels(large, 224).astype(int) - square_pixels(sample("chelsea.jpg"), 224))
    assert difference.mean() < 2


# Sounds.


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "cannot be read as sound"),
        (b"not a sound" * 100, "cannot be read as sound"),
        (sample("chelsea.jpg"), "cannot be read as sound"),
        (sample("hello-world.flac")[:30], "cannot be read as sound"),
        (sound_file(np.zeros(0)), "empty"),
        (sound_file(np.zeros(31 * 8000), 8000), r"31\.0 s of sound; at most 30 s"),
        (sound_file(np.full(100, np.nan, np.float32), subtype="FLOAT"), "not finite"),
        (sound_file(np.zeros(500), 500), "500 samples per second"),
        (sound_file(np.zeros((50, 40))), "40 channels"),
    ],
    ids=["no-bytes", "words", "picture", "cut-off", "empty", "long", "nan", "slow", "channels"],
)
def test_a_file_that_is_no_usable_sound_is_refused(data: bytes, text: str) -> None:
    refused("whisper-tiny-en-encoder", {"audio": data}, text)


def test_a_flac_bomb_is_refused_before_it_is_decoded() -> None:
    bomb = sound_file(np.zeros(3_000_000, np.int16), 8000, "FLAC")
    assert len(bomb) < 20_000
    with pytest.raises(BadInputError, match=r"375\.0 s of sound"):
        decode_sound(bomb)


def test_thirty_seconds_are_taken_whole() -> None:
    assert len(decode_sound(sound_file(np.zeros(30 * 44_100), 44_100))) == 30 * 16_000


@pytest.mark.parametrize(("form", "rate"), [("WAV", 44_100), ("FLAC", 8_000), ("OGG", 48_000), ("MP3", 22_050)])
def test_any_format_and_rate_becomes_16_khz(form: str, rate: int) -> None:
    tone = 0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)
    samples = decode_sound(sound_file(np.stack([tone, tone], 1), rate, form))
    assert samples.dtype == np.float32
    assert abs(len(samples) - 16_000) < 2_500  # MP3 pads
    spectrum = np.abs(np.fft.rfft(samples[:16_000], 16_000))
    assert abs(int(spectrum.argmax()) - 440) <= 1


def test_stereo_is_mixed() -> None:
    both = np.stack([np.full(1600, 0.5), np.full(1600, -0.25)], 1)
    np.testing.assert_allclose(decode_sound(sound_file(both)), 0.125, atol=1e-3)


def test_a_damaged_sound_is_refused_or_read_but_never_fails_otherwise() -> None:
    whole = bytearray(sample("hello-world.flac"))
    chance = np.random.default_rng(0)
    for _ in range(200):
        damaged = whole.copy()
        for place in chance.integers(0, 400, 8):
            damaged[place] = chance.integers(0, 256)
        try:
            decode_sound(bytes(damaged))
        except BadInputError:
            continue


def test_a_damaged_picture_is_refused_or_read_but_never_fails_otherwise() -> None:
    chance = np.random.default_rng(0)
    for name in ("chelsea.jpg", "red-triangle.png"):
        whole = bytearray(sample(name))
        for _ in range(150):
            damaged = whole.copy()
            for place in chance.integers(0, 300, 4):
                damaged[place] = chance.integers(0, 256)
            try:
                square_pixels(bytes(damaged), 224)
            except BadInputError:
                continue


# Texts.


@pytest.mark.parametrize(
    ("texts", "text"),
    [
        (["x" * 10_001], "a text of 10001 characters; at most 10000"),
        (["x"] * 1_001, "1001 texts; at most 1000"),
        ([], "one or more texts"),
        ([1], "one or more texts"),
        (b"a cat", "one or more texts"),
        ([str(n) + "x" * 9_990 for n in range(1_000)], "1000 texts of 9,992,890 characters together; at most 200,000"),
        ([f"{n} " * 40 for n in range(1_000)], r"1000 texts of [\d,]+ tokens together; at most 32,768"),
        (["half a pair \ud83d"], "half of a surrogate pair"),
    ],
)
def test_texts_out_of_bounds_are_refused(texts: Any, text: str) -> None:
    refused("minilm", {"text": texts}, text)


def test_a_text_beyond_256_tokens_is_cut_not_refused() -> None:
    (tokens,) = loaded("minilm").prepare({"text": "word " * 2000}).tokens
    assert len(tokens) == 256 * 4


# Tensors.

EMBEDDING = np.full((1, 384), 0.05, np.float32)


@pytest.mark.parametrize(
    ("module_id", "inputs", "text"),
    [
        ("imagenet-linear", {}, "'features' is missing"),
        ("imagenet-linear", {"features": "words"}, "takes a tensor, not a text"),
        ("imagenet-linear", {"features": np.zeros((1, 1280), np.float64)}, "float32 tensor of n x 1280, not float64"),
        ("imagenet-linear", {"features": np.zeros((1, 384), np.float32)}, "n x 1280, not float32 of 1 x 384"),
        ("imagenet-linear", {"features": np.zeros((0, 1280), np.float32)}, "of 0 x 1280"),
        ("imagenet-linear", {"features": np.full((1, 1280), np.nan, np.float32)}, "not finite"),
        ("whisper-tiny-en-decoder", {"hidden": np.zeros((2, 1500, 384), np.float32)}, "1 x 1500 x 384"),
        ("whisper-tiny-en-decoder", {"hidden": np.full((1, 1500, 384), np.inf, np.float32)}, "not finite"),
        ("easy-vqa", {"features": np.zeros((2, 1280), np.float32), "embedding": EMBEDDING}, "of 1 x 1280"),
        (
            "conse",
            {"logits": np.zeros((1, 1000), np.float32), "embedding": EMBEDDING, "text": ["a", "b"]},
            "'embedding' takes a float32 tensor of 2 x 384",
        ),
        (
            "cosine",
            {"query": EMBEDDING, "said": ["a", "b"], "candidates": EMBEDDING, "text": ["a"]},
            "one text is compared",
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(module_id: str, inputs: dict[str, Any], text: str) -> None:
    refused(module_id, inputs, text)


def test_silence_has_an_answer() -> None:
    assert isinstance(run_model("transcription", {"audio": sound_file(np.zeros(1600))})["text"], str)


def test_a_bad_item_leaves_no_trace_on_standard_error() -> None:
    code = (
        "from s2m3.agents.media.pictures import square_pixels\n"
        "from s2m3.schemas.errors import BadInputError\n"
        "try: square_pixels(open('s2m3/samples/chelsea.jpg', 'rb').read()[:5000], 224)\n"
        "except BadInputError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("refused\n", "")
