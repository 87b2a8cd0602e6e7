"""Raw samples of a voice satellite become a WAV file, by the content type that says their rate. Pure."""

import re
import struct
from dataclasses import dataclass

import numpy as np

from s2m3.schemas.errors import BadInputError

__all__ = ["as_file", "input_and_type"]

#: Subtype -> bits of a sample, WAV format (1 PCM, 6 A-law, 7 mu-law), samples per second where none are named.
_SUBTYPES = {
    "l16": (16, 1, None),
    "pcm": (16, 1, None),
    "x-raw": (16, 1, None),
    "l24": (24, 1, None),
    "l8": (8, 1, None),
    "pcmu": (8, 7, 8000),
    "pcma": (8, 6, 8000),
    "basic": (8, 7, 8000),
}
#: Where the order of bytes is not said: RFC 2586 has these big-endian, most devices send them little-endian.
_EITHER_ORDER = frozenset({"l16", "l24"})
#: How files of sound begin, by four bytes or more: one is a file, whatever its content type says.
_FILE = re.compile(
    rb"\s*(?:RIFF|RF64|BW64|fLaC|OggS|FORM|\.snd|caff|#!AMR|\x1aE\xdf\xa3|ID3[\x02-\x04]|.{4}ftyp)", re.DOTALL
)
_RATES, _MAX_CHANNELS = range(1_000, 384_001), 16
_NUMBER = re.compile(r"[0-9]{1,6}")
_LONGEST = 200


@dataclass(frozen=True, slots=True)
class _Raw:
    bits: int
    form: int
    rate: int
    channels: int
    #: None: to be found out
    big: bool | None


def input_and_type(level: str) -> tuple[str, str | None]:
    """Returns the input's name and the content type that a topic level says: `audio;rate=16000` is 16-bit PCM."""
    name, _, parameters = level.partition(";")
    return name, f"audio/L16;{parameters}" if parameters else None


def as_file(data: bytes, content_type: str | None) -> bytes:
    """Returns a WAV file of raw samples, and anything else as it is.

    Args:
        data: Samples, channels interleaved; or the bytes of a file.
        content_type: `audio/L16; rate=16000; channels=1` (also L8, L24, PCM, x-raw, PCMU, PCMA, basic); `endian=little`
            or `big` says the order of bytes. Of any other type nothing is done: a file says itself what it is.

    Raises:
        BadInputError: It says raw samples, but not at which rate, or impossible ones.
    """
    raw = _read(content_type) if content_type else None
    if raw is None or _FILE.match(data):
        return data
    width = raw.bits // 8
    data = data[: len(data) // (width * raw.channels) * width * raw.channels]
    big = _is_big(data, width) if raw.big is None else raw.big
    if big and width > 1:
        data = np.frombuffer(data, np.uint8).reshape(-1, width)[:, ::-1].tobytes()
    frame = width * raw.channels
    form = struct.pack("<HHIIHH", raw.form, raw.channels, raw.rate, raw.rate * frame, frame, raw.bits)
    head = struct.pack("<4sI4s4sI", b"RIFF", 36 + len(data), b"WAVE", b"fmt ", len(form))
    return head + form + struct.pack("<4sI", b"data", len(data)) + data


def _read(content_type: str) -> _Raw | None:
    kind, *rest = (part.strip() for part in content_type[:_LONGEST].lower().split(";"))
    family, _, subtype = kind.partition("/")
    if family != "audio" or subtype not in _SUBTYPES:
        return None
    given = {name.strip(): value.strip(' "') for name, _, value in (part.partition("=") for part in rest)}
    bits, form, usual = _SUBTYPES[subtype]
    rate = _number(given, "rate", usual)
    channels = _number(given, "channels", 1)
    if rate not in _RATES:
        raise BadInputError(f"raw sound needs its rate, {_RATES[0]} to {_RATES[-1]}: audio/L16; rate=16000; channels=1")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise BadInputError(f"raw sound of {channels} channels; 1 to {_MAX_CHANNELS}")
    return _Raw(bits, form, rate, channels, _order(given, either=subtype in _EITHER_ORDER))


def _number(given: dict[str, str], name: str, usual: int | None) -> int:
    text = given.get(name, str(usual or 0))
    return int(text) if _NUMBER.fullmatch(text) else 0


def _order(given: dict[str, str], *, either: bool) -> bool | None:
    """Returns whether samples are big-endian; None where nothing says so."""
    said = given.get("endian", given.get("format", ""))
    if said in ("big", "be", "s16be", "s24be"):
        return True
    if said in ("little", "le", "s16le", "s24le"):
        return False
    return None if either else False


def _is_big(data: bytes, width: int) -> bool:
    """Returns whether samples are smoother read big-endian: sound is, and the other order makes noise of it."""
    rows = np.frombuffer(data[: 400_000 // width * width], np.uint8).reshape(-1, width)
    high_last, high_first = (
        (rows[:, high].astype(np.int8).astype(np.int32) << 8) + rows[:, low]
        for high, low in ((width - 1, width - 2), (0, 1))
    )
    return bool(np.abs(np.diff(high_first)).sum() < np.abs(np.diff(high_last)).sum())
