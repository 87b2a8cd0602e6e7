"""Raw samples become a WAV file by what their content type says, read back with the standard library."""

import io
import struct
import wave
from collections.abc import Iterable
from typing import Literal

import numpy as np
import pytest

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.raw_sound import as_file, input_and_type

ORDERS: tuple[Literal["little", "big"], ...] = ("little", "big")
#: A tone: smooth in the right order of bytes, noise in the other.
TONE = (np.sin(np.arange(800) / 9) * 12_000).astype(np.int16)


def samples(values: Iterable[int], order: str = "<", kind: str = "h") -> bytes:
    return b"".join(struct.pack(order + kind, value) for value in values)


def opened(data: bytes) -> wave.Wave_read:
    return wave.open(io.BytesIO(data), "rb")


@pytest.mark.parametrize("kind", ["L16", "l16", "PCM", "x-raw"])
def test_samples_come_out_as_they_went_in_with_the_rate_and_channels_of_their_type(kind: str) -> None:
    with opened(as_file(samples(TONE), f"audio/{kind}; rate=16000; channels=2")) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 2, 2)
        assert file.readframes(10_000) == samples(TONE)


def test_one_channel_is_the_usual_and_quotes_and_spaces_do_not_matter() -> None:
    with opened(as_file(samples(TONE), ' audio/L16 ; rate = "8000" ')) as file:
        assert (file.getframerate(), file.getnchannels()) == (8_000, 1)


@pytest.mark.parametrize("said", ["", "; endian=big", "; endian=be", "; format=S16BE"])
def test_big_endian_samples_are_turned_round_whether_it_is_said_or_heard(said: str) -> None:
    with opened(as_file(samples(TONE, ">"), f"audio/L16; rate=16000{said}")) as file:
        assert file.readframes(10_000) == samples(TONE)


@pytest.mark.parametrize("said", ["little", "le"])
def test_what_is_said_to_be_little_endian_is_left_as_it_is(said: str) -> None:
    with opened(as_file(samples(TONE, ">"), f"audio/L16; rate=16000; endian={said}")) as file:
        assert file.readframes(10_000) == samples(TONE, ">")
    for form in ("s16le", "s24le"):
        assert as_file(samples(TONE, ">"), f"audio/L16; rate=16000; format={form}")[44:] == samples(TONE, ">")


def test_pcm_is_little_endian_where_nothing_is_said() -> None:
    assert as_file(samples(TONE, ">"), "audio/pcm; rate=16000")[44:] == samples(TONE, ">")
    assert as_file(samples(TONE, ">"), "audio/pcm; rate=16000; format=s24be")[44:] == samples(TONE)


@pytest.mark.parametrize("said", ["endian=big", "endian=be", "format=s16be", "format=S24BE"])
def test_pcm_that_is_said_to_be_big_endian_is_turned_round(said: str) -> None:
    assert as_file(samples(TONE, ">"), f"audio/pcm; rate=16000; {said}")[44:] == samples(TONE)


@pytest.mark.parametrize("kind", ["L16", "L24"])
def test_samples_that_are_as_smooth_either_way_are_left_as_they_are(kind: str) -> None:
    data = b"\x01\x02\x03" * 16
    constant = data if kind == "L24" else b"\x01\x02" * 24
    assert as_file(constant, f"audio/{kind}; rate=16000")[44:] == constant


def test_three_bytes_a_sample_keep_their_order_or_are_turned_round() -> None:
    fine = [int(value) * 256 + n * 37 % 256 for n, value in enumerate(TONE)]
    little, big = (b"".join(value.to_bytes(3, order, signed=True) for value in fine) for order in ORDERS)
    for data in (little, big):
        with opened(as_file(data, "audio/L24; rate=48000")) as file:
            assert (file.getsampwidth(), file.getframerate()) == (3, 48_000)
            assert file.readframes(10_000) == little


def test_one_byte_a_sample_has_no_order() -> None:
    data = bytes(range(100))
    assert as_file(data, "audio/L8; rate=8000; endian=big")[44:] == data


@pytest.mark.parametrize(("kind", "form"), [("PCMU", 7), ("basic", 7), ("PCMA", 6)])
def test_telephone_codes_are_marked_as_such_at_8000_a_second(kind: str, form: int) -> None:
    data = as_file(b"\x01\x02\x03", f"audio/{kind}")
    assert data[:4] + data[8:16] == b"RIFFWAVEfmt "
    assert struct.unpack("<IHHIIHH", data[16:36]) == (16, form, 1, 8_000, 8_000, 1, 8)
    assert data[36:] == b"data" + struct.pack("<I", 3) + b"\x01\x02\x03"


def test_the_head_says_how_long_everything_is() -> None:
    data = as_file(samples(TONE), "audio/L16; rate=16000; channels=2")
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    assert struct.unpack("<IHHIIHH", data[16:36]) == (16, 1, 2, 16_000, 64_000, 4, 16)
    assert struct.unpack("<I", data[40:44])[0] == len(samples(TONE))


def test_half_a_frame_at_the_end_is_left_out() -> None:
    whole = samples(TONE[:4])
    for rest in (b"\0", b"\0\0", b"\0\0\0"):
        assert as_file(whole + rest, "audio/pcm; rate=16000; channels=2")[44:] == whole


@pytest.mark.parametrize("content_type", [None, "", "audio/wav", "image/jpeg", "audio", "video/L16; rate=16000"])
def test_anything_but_raw_samples_is_left_as_it_is(content_type: str | None) -> None:
    assert as_file(b"anything", content_type) == b"anything"


@pytest.mark.parametrize("head", [b"RIFF", b" \nRIFF", b"fLaC", b"OggS", b"ID3\x03", b"\x1aE\xdf\xa3", b"\0\0\0\nftyp"])
def test_a_file_of_sound_is_left_as_it_is_whatever_its_type_says(head: bytes) -> None:
    assert as_file(head + b"rest", "audio/L16; rate=16000") == head + b"rest"


@pytest.mark.parametrize("rate", ["", "; rate=999", "; rate=384001", "; rate=fast", "; rate=-8000", "; rate=1600000"])
def test_a_rate_that_is_missing_or_impossible_is_told_with_an_example(rate: str) -> None:
    with pytest.raises(BadInputError) as caught:
        as_file(samples(TONE), f"audio/L16{rate}")
    said = "raw sound needs its rate, 1000 to 384000: audio/L16; rate=16000; channels=1"
    assert caught.value.detail == said


def test_the_slowest_and_the_fastest_rate_are_taken() -> None:
    for rate in (1_000, 384_000):
        with opened(as_file(samples(TONE), f"audio/L16; rate={rate}")) as file:
            assert file.getframerate() == rate


def test_one_to_sixteen_channels_are_taken() -> None:
    for channels in (1, 16):
        with opened(as_file(samples(TONE), f"audio/L16; rate=16000; channels={channels}")) as file:
            assert file.getnchannels() == channels
    for channels in (0, 17):
        with pytest.raises(BadInputError, match=f"raw sound of {channels} channels; 1 to 16"):
            as_file(samples(TONE), f"audio/L16; rate=16000; channels={channels}")


def test_a_topic_level_says_the_input_and_perhaps_its_type() -> None:
    assert input_and_type("audio") == ("audio", None)
    assert input_and_type("audio;") == ("audio", None)
    assert input_and_type("audio;rate=8000;channels=2") == ("audio", "audio/L16;rate=8000;channels=2")
