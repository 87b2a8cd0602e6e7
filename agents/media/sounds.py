"""Sound files to samples: one file, checked and bounded before it is decoded, as mono samples."""

import io
from functools import partial

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from s2m3.agents.media.containers import DEMUXERS, read_container
from s2m3.agents.media.formats import PICTURES, format_of, told_as_text, unwrapped
from s2m3.agents.media.wav import finished_wav
from s2m3.schemas.errors import BadInputError

__all__ = ["MAX_SECONDS", "MAX_SECONDS_IN_WINDOWS", "RATE", "decode_sound"]

Samples = npt.NDArray[np.float32]
#: Samples per second that Whisper hears.
RATE = 16_000
#: Longest sound for networks that hear it in one piece, and for those that hear it in windows. Recorders that are set
#: to 30 s give a little more: what is less than a second longer is cut, not refused.
MAX_SECONDS, MAX_SECONDS_IN_WINDOWS, _GRACE_S = 30, 600, 1
_RATES = range(1_000, 384_001)
_MAX_CHANNELS = 16
_BLOCK = 65_536
#: libsndfile's number of frames where a header says none (FLAC from a pipe).
_UNKNOWN = 1 << 55
_KNOWN = "WAV, FLAC, Ogg, MP3, AIFF, AU, CAF, m4a, AAC, WebM, AMR"


def _check_header(longest: int, rate: int, channels: int, frames: int) -> None:
    if rate not in _RATES:
        raise BadInputError(f"the sound has {rate} samples per second; {_RATES[0]} to {_RATES[-1]} are read")
    if not 1 <= channels <= _MAX_CHANNELS:
        raise BadInputError(f"the sound has {channels} channels; at most {_MAX_CHANNELS}")
    if (longest + _GRACE_S) * rate <= frames < _UNKNOWN:
        raise BadInputError(f"{frames / rate:.1f} s of sound; at most {longest} s")


def _read_mono(sound: soundfile.SoundFile, longest: int) -> Samples:
    """Returns all samples, mixed to mono block by block, stopping where a header that lied would go past the limit."""
    limit = (longest + _GRACE_S) * sound.samplerate
    blocks: list[Samples] = []
    read = 0
    while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
        blocks.append(block.mean(axis=1, dtype=np.float32))
        read += len(block)
        if read >= limit:
            raise BadInputError(f"more than {longest} s of sound")
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def _read_file(data: bytes, longest: int) -> tuple[Samples, int]:
    with soundfile.SoundFile(io.BytesIO(data)) as sound:
        _check_header(longest, sound.samplerate, sound.channels, sound.frames)
        return _read_mono(sound, longest), sound.samplerate


def _decoded(data: bytes, longest: int) -> tuple[Samples, int]:
    """Returns a file's mono samples and their rate: by libsndfile where it can, else by FFmpeg."""
    file = unwrapped(data)
    form = format_of(file)
    if form in ("MP4", "AAC", "WebM", "AMR"):
        return read_container(file, form, longest + _GRACE_S, partial(_check_header, longest))
    if form in PICTURES:
        raise BadInputError(f"the {len(data)} bytes cannot be read as sound ({_KNOWN}): they are a picture ({form})")
    if form == "WAV":
        file = finished_wav(file)
    try:
        return _read_file(file, longest)
    except soundfile.LibsndfileError as error:  # its text holds the address of our buffer
        if form in DEMUXERS:
            return _second_try(file, form, error.error_string, longest)
        raise BadInputError(
            f"the {len(data)} bytes cannot be read as sound ({_KNOWN}): {error.error_string}{told_as_text(data)}"
        ) from error


def _second_try(file: bytes, form: str, why: str, longest: int) -> tuple[Samples, int]:
    """Reads what libsndfile did not, of a container that may hold other codecs (Speex in Ogg, MP3 in WAV)."""
    try:
        return read_container(file, form, longest + _GRACE_S, partial(_check_header, longest))
    except BadInputError as error:
        raise BadInputError(f"the {len(file)} bytes cannot be read as sound ({form}): {why} {error.detail}") from error


def decode_sound(data: bytes, wanted: int = RATE, longest: int = MAX_SECONDS) -> Samples:
    """Returns a sound file as mono samples in -1..1. docs/protocol.md lists the formats.

    Args:
        data: The file; blank bytes and MIME headers before it are passed over.
        wanted: Samples per second to return.
        longest: Seconds; what is less than a second longer is cut.

    Raises:
        BadInputError: Not a sound file, damaged, empty, not finite, of a format whose package is missing, or longer
            than `longest` by a second or more (found before decoding where the header says so).
    """
    samples, rate = _decoded(data, longest)
    if not len(samples):
        raise BadInputError("the sound is empty")
    if not np.isfinite(samples).all():
        raise BadInputError("the sound holds samples that are not finite")
    if rate != wanted:
        samples = soxr.resample(samples, rate, wanted)
    return samples[: longest * wanted]
