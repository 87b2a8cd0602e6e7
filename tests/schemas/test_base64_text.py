"""Base64 as tools, browsers and devices write it, and as it cannot be read."""

import base64
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.base64_text import decode_base64
from s2m3.schemas.wire.plain import ignored_keys, read_inputs

#: Bytes whose base64 has +, / and padding.
DATA = b"\xfb\xef\xff\xfe" * 40
TEXT = base64.b64encode(DATA).decode()


@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "\n".join(textwrap.wrap(TEXT, 76)),
        "\r\n".join(textwrap.wrap(TEXT, 64)) + "\r\n",
        f"  {TEXT}\t",
        base64.urlsafe_b64encode(DATA).decode(),
        TEXT.rstrip("="),
        base64.urlsafe_b64encode(DATA).decode().rstrip("="),
        f'"{TEXT}"',
        "\ufeff" + TEXT + "\r\n",
        f"-----BEGIN CERTIFICATE-----\r\n{TEXT}\r\n-----END CERTIFICATE-----\r\n",
        f"begin-base64 644 photo.jpg\n{TEXT}\n====\n",
    ],
    ids=[
        *("plain", "mime", "pem", "blanks", "url-safe", "no-padding", "url-safe-no-padding"),
        *("quoted", "byte-order-mark", "certutil", "uuencode"),
    ],
)
def test_3_base64_as_tools_write_it_is_read(text: str) -> None:
    assert decode_base64(text) == (DATA, None)
    assert read_inputs({"image": "image"}, {"image": text}, {}) == {"image": DATA}  # a string where a file is wanted
    assert read_inputs({"image": "image"}, {"image": text.encode()}, {}) == {"image": DATA}


@pytest.mark.parametrize("head", ["data:image/jpeg;base64,", "DATA:image/jpeg;BASE64,"])
def test_3_a_data_url_is_read_with_its_media_type(head: str) -> None:
    assert decode_base64(head + TEXT) == (DATA, "image/jpeg")


def test_3_a_data_url_keeps_the_parameters_of_its_media_type() -> None:
    assert decode_base64("data:audio/L16;rate=16000;base64,AAA=") == (b"\0\0", "audio/L16;rate=16000")
    assert decode_base64("data:;base64,AAA=") == (b"\0\0", None)
    assert decode_base64("data:text/plain,a%20b-_") == (b"a b-_", "text/plain")
    assert decode_base64("data:image/png;base64,%2B/8%3D") == (b"\xfb\xff", "image/png")


@pytest.mark.parametrize("text", ["a", "abcde", "ab!d", "data:image/png;base64", "Grüße", "ab=cd"])
def test_what_is_not_base64_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_base64(text)
    with pytest.raises(BadInputError, match="input 'image' is not base64"):
        read_inputs({"image": "image"}, {"image": {"base64": text}}, {})


@given(st.binary(max_size=200), st.integers(1, 80))
def test_every_file_comes_back_whatever_the_line_length(data: bytes, width: int) -> None:
    text = base64.b64encode(data).decode()
    assert decode_base64("\n".join(text[at : at + width] for at in range(0, len(text), width)))[0] == data


def test_a_media_type_is_a_key_of_a_file_and_others_are_named_as_ignored() -> None:
    given_inputs = {"audio": {"base64": "AAA=", "content_type": "audio/wav", "filename": "a.wav"}}
    assert ignored_keys({"audio": "audio"}, given_inputs) == ("inputs.audio.filename",)


def test_raw_samples_of_a_data_url_get_the_header_of_a_file() -> None:
    found = read_inputs({"audio": "audio"}, {"audio": {"base64": "data:audio/L16;rate=16000;base64,AAABAAIA"}}, {})
    audio = found["audio"]
    assert isinstance(audio, bytes)
    assert audio[:4] == b"RIFF"


@pytest.mark.parametrize("text", [TEXT, f" data:image/jpeg;base64,{TEXT}"])
def test_3_base64_where_the_bytes_of_a_file_are_expected_is_read(text: str) -> None:
    assert read_inputs({"image": "image"}, {"image": text.encode()}, {}) == {"image": DATA}
    assert read_inputs({"image": "images"}, {"image": [text.encode(), DATA]}, {}) == {"image": [DATA, DATA]}
    assert read_inputs({"image": "images"}, {"image": [text]}, {}) == {"image": [DATA]}


@pytest.mark.parametrize("data", [DATA, b"\xff\xd8\xff\xe0" + TEXT.encode(), TEXT.encode() + b"\0", b"abcd", b"data:x"])
def test_3_what_is_no_base64_from_beginning_to_end_is_the_file_itself(data: bytes) -> None:
    assert read_inputs({"image": "image"}, {"image": data}, {}) == {"image": data}


def test_3_a_text_that_could_be_base64_stays_a_text() -> None:
    assert read_inputs({"text": "text", "any": "data"}, {"text": TEXT.encode(), "any": TEXT.encode()}, {}) == {
        "text": TEXT,
        "any": TEXT.encode(),
    }
