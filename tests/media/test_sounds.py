"""Sound as phones, recorders and voice satellites send it, and sound without speech."""

import base64
import io
import struct

import numpy as np
import pytest
import soundfile

from s2m3.agents.media import containers
from s2m3.agents.media.sounds import decode_sound
from s2m3.agents.zoo import voice
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.plain import read_inputs
from s2m3.schemas.wire.raw_sound import as_file, input_and_type
from tests.media.files import QUIET, RATE, Samples, encoded, needs_espeak, pcm, quiet, speech, spoken, wav
from tests.zoo.inprocess import loaded, run_model
from tests.zoo.samples import sample

SAID = "Please turn on the kitchen light."
#: container and codec of PyAV, samples per second
ENCODED = {
    "m4a": ("ipod", "aac", 44_100),
    "aac": ("adts", "aac", 16_000),
    "webm-opus": ("webm", "libopus", 48_000),
    "ogg-opus": ("ogg", "libopus", 48_000),
    "mp3": ("mp3", "libmp3lame", 16_000),
    "amr": ("amr", "libopencore_amrnb", 8_000),
    "3gp-amr": ("3gp", "libopencore_amrnb", 8_000),
    "alac": ("ipod", "alac", 16_000),
}


@pytest.mark.parametrize("name", ENCODED)
@pytest.mark.parametrize("before", [b"", b"\r\n", b"Content-Type: audio/mp4\r\n\r\n"], ids=["", "crlf", "mime"])
def test_13_what_phones_record_is_read(name: str, before: bytes) -> None:
    container, codec, rate = ENCODED[name]
    samples = decode_sound(before + encoded(speech(), container, codec, rate))
    assert len(samples) / RATE == pytest.approx(len(speech()) / RATE, abs=0.15)
    assert _likeness(samples, speech()) > 0.9


@pytest.mark.parametrize("name", ["aac", "webm-opus", "flac"])
def test_13_of_a_recording_that_was_cut_off_what_is_there_is_read(name: str) -> None:
    whole = sample("kitchen-light.flac") if name == "flac" else encoded(speech(), *ENCODED[name])
    samples = decode_sound(whole[: len(whole) * 3 // 4])
    assert 0.5 * len(speech()) < len(samples) < len(speech())
    assert _likeness(samples, speech()[: len(samples)]) > 0.9


def _likeness(heard: Samples, meant: Samples) -> float:
    """Correlation of loudness by 10 ms, whatever a codec's delay of up to 0.1 s."""
    one, other = (np.abs(each[: len(each) // 160 * 160]).reshape(-1, 160).mean(1) for each in (heard, meant))
    count = min(len(one), len(other)) - 10
    return max(float(np.corrcoef(one[delay : delay + count], other[:count])[0, 1]) for delay in range(10))


@pytest.mark.parametrize("name", ENCODED)
def test_13_too_long_a_recording_is_refused_by_its_header_or_on_the_way(name: str) -> None:
    container, codec, rate = ENCODED[name]
    with pytest.raises(BadInputError, match="s of sound"):
        decode_sound(encoded(np.zeros(RATE * 40, np.float32), container, codec, rate))


def test_13_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(speech(), "ipod", "aac")
    monkeypatch.setattr(containers, "find_spec", lambda _: None)
    with pytest.raises(BadInputError, match=r"MP4 .*package av .*pip install"):
        decode_sound(data)
    assert len(decode_sound(sample("hello-world.flac")))


@pytest.mark.parametrize(
    ("content_type", "order"),
    [
        ("audio/L16; rate=16000; channels=1", "<"),
        ("audio/L16;rate=16000", ">"),
        ('audio/l16; rate="16000"; endian=little', "<"),
        ("audio/L16; rate=16000; endian=big", ">"),
        ("audio/pcm; rate=16000", "<"),
        ("audio/x-raw; format=S16LE; rate=16000; channels=1", "<"),
    ],
)
def test_13_raw_pcm_is_read_by_its_content_type(content_type: str, order: str) -> None:
    np.testing.assert_allclose(decode_sound(as_file(pcm(speech(), order), content_type)), speech(), atol=1e-4)


def test_13_raw_pcm_of_two_channels_and_another_rate_is_mixed_and_resampled() -> None:
    both = np.stack([speech(), speech()], 1).ravel()
    heard = decode_sound(as_file(pcm(both) + b"\0", "audio/L16; rate=8000; channels=2"))
    assert len(heard) == 2 * len(speech())


@pytest.mark.parametrize("law", ["PCMU", "basic"])
def test_13_mu_law_is_read(law: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, speech()[::2], 8000, format="RAW", subtype="ULAW")
    assert len(decode_sound(as_file(file.getvalue(), f"audio/{law}"))) == pytest.approx(len(speech()), abs=2)


def test_13_the_topic_may_say_the_rate() -> None:
    assert input_and_type("audio;rate=16000;channels=1") == ("audio", "audio/L16;rate=16000;channels=1")
    assert input_and_type("audio") == ("audio", None)


@pytest.mark.parametrize("content_type", ["audio/L16", "audio/L16; rate=7", "audio/L16; rate=16000; channels=99"])
def test_13_raw_pcm_that_does_not_say_what_it_is_is_refused(content_type: str) -> None:
    with pytest.raises(BadInputError, match="raw sound"):
        as_file(pcm(speech()), content_type)


@pytest.mark.parametrize("content_type", [None, "", "audio/wav", "image/jpeg", "audio/L16; rate=16000"])
def test_a_file_is_left_alone_whatever_its_content_type_says(content_type: str | None) -> None:
    for data in (wav(speech()), sample("hello-world.flac"), encoded(speech(), "ipod", "aac")):
        assert as_file(data, content_type) == data


def test_13_a_json_request_may_say_the_content_type() -> None:
    given = {"audio": {"base64": base64.b64encode(pcm(speech())).decode(), "content_type": "audio/L16; rate=16000"}}
    found = read_inputs({"audio": "audio"}, given, {})
    np.testing.assert_allclose(decode_sound(found["audio"]), speech(), atol=1e-4)


def test_14_flac_of_unknown_length_is_read() -> None:
    data = bytearray(sample("hello-world.flac"))
    at = data.index(b"fLaC") + 8
    data[at + 13] &= 0xF0
    data[at + 14 : at + 34] = bytes(20)  # total samples and MD5: what an encoder fills in at its end
    assert len(decode_sound(bytes(data))) == len(speech("hello-world.flac"))


def test_14_flac_of_unknown_length_is_bounded() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(40 * 8000, np.int16), 8000, format="FLAC")
    data = bytearray(file.getvalue())
    data[21] &= 0xF0
    data[22:42] = bytes(20)
    with pytest.raises(BadInputError, match="more than 30 s"):
        decode_sound(bytes(data))


def _with_length(data: bytes, length: int, riff: int | None = None) -> bytes:
    at = data.index(b"data") + 4
    said = data[:4] + struct.pack("<I", length if riff is None else riff) + data[8:at] + struct.pack("<I", length)
    return said + data[at + 4 :]


@pytest.mark.parametrize("length", [0, 0xFFFF_FFFF, 0x7FFF_FFFF, 2, 1_000, 1_024, 32_768, 0x7FFF_F000])
@pytest.mark.parametrize("behind", [b"", b"LIST\x04\0\0\0INFO"], ids=["", "list"])
def test_15_a_wav_whose_header_was_never_finished_is_read_to_its_end(length: int, behind: bytes) -> None:
    whole = wav(speech())
    heard = decode_sound(_with_length(whole, length) + behind)
    np.testing.assert_array_equal(heard[: len(speech())], decode_sound(whole))
    assert len(heard) - len(speech()) in (0, len(behind) // 2)


@pytest.mark.parametrize("form", ["WAV", "WAVEX", "RF64"])
@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "ALAW"])
def test_15_of_every_kind_of_wav(form: str, subtype: str) -> None:
    file = io.BytesIO()
    soundfile.write(file, speech(), RATE, format=form, subtype=subtype)
    whole = file.getvalue()
    wanted = decode_sound(whole)
    assert len(wanted) == len(speech())
    for length in (0, 500):
        heard = decode_sound(_with_length(whole, length, riff=0))
        np.testing.assert_array_equal(heard[: len(wanted)], wanted)
        assert len(heard) - len(wanted) < 30  # a trailing chunk of the whole file may be taken for samples


@pytest.mark.parametrize("behind", [b"", b"LIST\x04\0\0\0INFO", b"id3 \x02\0\0\0xx", b"LIST\x03\0\0\0abc\0"])
def test_15_a_wav_whose_header_is_right_keeps_its_length(behind: bytes) -> None:
    whole = wav(speech())
    assert len(decode_sound(whole + behind)) == len(speech())


def test_15_a_wav_without_samples_is_empty_still() -> None:
    with pytest.raises(BadInputError, match="empty"):
        decode_sound(wav(np.zeros(0, np.float32)))


@pytest.mark.parametrize("seconds", [30.05, 30.5, 30.9])
@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
def test_16_a_little_more_than_30_s_is_cut(seconds: float, rate: int) -> None:
    assert len(decode_sound(wav(np.zeros(int(seconds * rate), np.float32), rate))) == 30 * RATE


def test_16_a_second_more_than_30_s_is_refused() -> None:
    with pytest.raises(BadInputError, match=r"31\.0 s of sound; at most 30 s"):
        decode_sound(wav(np.zeros(31 * RATE, np.float32)))


INTENTS = ["turn on the kitchen light", "play some music", "what is the weather"]


@pytest.mark.parametrize("kind", QUIET)
def test_18_without_speech_there_is_no_text_and_no_intent(kind: str) -> None:
    data = wav(quiet(kind))
    assert run_model("transcription", {"audio": data}) == {"text": ""}
    answer = run_model("spoken-intent", {"audio": data, "text": INTENTS})
    assert answer == {"label": "", "score": 0.0, "ranking": [], "said": ""}


@pytest.mark.parametrize("kind", ["silence", "noise"])
def test_18_whisper_alone_tells_most_of_it(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loaded("whisper-tiny-en-encoder"), "voice", None)
    assert run_model("transcription", {"audio": wav(quiet(kind))}) == {"text": ""}
    assert run_model("transcription", {"audio": sample("kitchen-light.flac")})["text"] == SAID


def test_18_without_the_detectors_wheel_the_encoder_loads_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert voice.load_voice_activity() is not None
    monkeypatch.setattr(voice, "wheel_folder", lambda _: None)
    assert voice.load_voice_activity() is None


def test_18_other_weights_than_the_detectors_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice, "read_safetensors", lambda *_: {})
    with pytest.raises(ModuleFailedError, match="silero-vad do not fit"):
        voice.load_voice_activity()


def test_18_no_picture_is_shown_for_no_words() -> None:
    answer = run_model("spoken-retrieval", {"audio": wav(quiet("silence")), "image": [sample("chelsea.jpg")]})
    assert answer["picture"] is None
    assert answer["pictures"] == []


@pytest.mark.parametrize(("loudness", "pause"), [(1.0, 0), (0.02, 2)])
def test_18_speech_is_heard_as_before(loudness: float, pause: int) -> None:
    samples = np.concatenate([np.zeros(pause * RATE, np.float32), loudness * speech()])
    answer = run_model("spoken-intent", {"audio": wav(samples), "text": INTENTS})
    assert answer["label"] == INTENTS[0]
    assert answer["score"] > 0.5


@needs_espeak
@pytest.mark.parametrize(
    ("text", "language"),
    [("ja", "de"), ("nein", "de"), ("Bitte mach das Licht aus", "de"), ("yes", "en"), ("stop", "en"), ("no", "en")],
)
def test_18_short_words_in_german_and_english_are_speech(text: str, language: str) -> None:
    samples: Samples = spoken(text, language)
    assert run_model("transcription", {"audio": wav(samples, 22_050)})["text"] != ""


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0\0\0\x18ftypM4A " + bytes(99),
        b"\x1aE\xdf\xa3" + bytes(99),
        b"#!AMR\n",
        b"fLaC" + bytes(99),
        b"OggS" + bytes(99),
    ],
)
def test_19_no_error_of_a_sound_holds_an_address(data: bytes) -> None:
    with pytest.raises(BadInputError) as caught:
        decode_sound(data)
    assert "0x" not in str(caught.value)


def test_19_no_error_of_ours_holds_an_address() -> None:
    error = BadInputError(f"cannot identify {io.BytesIO()!r}: {object()!r}")
    assert error.detail == "cannot identify _io.BytesIO: object"
    assert "0x" not in f"{error} {error.as_dict()} {error.args}"


def test_a_damaged_recording_is_refused_or_read_but_never_fails_otherwise() -> None:
    chance = np.random.default_rng(0)
    for name in ("m4a", "aac", "webm-opus", "amr"):
        container, codec, rate = ENCODED[name]
        whole = bytearray(encoded(speech(), container, codec, rate))
        for _ in range(60):
            damaged = whole.copy()
            for place in chance.integers(0, len(whole), 12):
                damaged[place] = chance.integers(0, 256)
            try:
                decode_sound(bytes(damaged[: int(chance.integers(1, len(whole)))]))
            except BadInputError as error:
                assert "0x" not in str(error)  # noqa: PT017
