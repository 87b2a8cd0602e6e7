"""Sound files to samples: one file, checked and bounded before it is decoded, as mono samples."""

import io

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

from s2m3.schemas.errors import BadInputError

__all__ = ["MAX_SECONDS", "RATE", "decode_sound"]

#: Samples per second that Whisper hears.
RATE = 16_000
#: Longest sound: Whisper's encoder always looks at 30 s.
MAX_SECONDS = 30
_RATES = range(1_000, 384_001)
_MAX_CHANNELS = 16
_BLOCK = 65_536


def _check_header(sound: soundfile.SoundFile) -> None:
    if sound.samplerate not in _RATES:
        raise BadInputError(
            f"the sound has {sound.samplerate} samples per second; {_RATES[0]} to {_RATES[-1]} are read"
        )
    if sound.channels > _MAX_CHANNELS:
        raise BadInputError(f"the sound has {sound.channels} channels; at most {_MAX_CHANNELS}")
    if sound.frames > MAX_SECONDS * sound.samplerate:
        raise BadInputError(f"{sound.frames / sound.samplerate:.1f} s of sound; at most {MAX_SECONDS} s")


def _read_mono(sound: soundfile.SoundFile) -> npt.NDArray[np.float32]:
    """Returns all samples, mixed to mono block by block, stopping where a header that lied would go past the limit."""
    limit = MAX_SECONDS * sound.samplerate
    blocks: list[npt.NDArray[np.float32]] = []
    read = 0
    while len(block := sound.read(_BLOCK, dtype="float32", always_2d=True)):
        blocks.append(block.mean(axis=1, dtype=np.float32))
        read += len(block)
        if read > limit:
            raise BadInputError(f"more than {MAX_SECONDS} s of sound")
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)


def decode_sound(data: bytes, wanted: int = RATE) -> npt.NDArray[np.float32]:
    """Returns a sound file of any format that libsndfile reads (WAV, FLAC, Ogg, MP3) as mono samples in -1..1.

    Args:
        data: The file.
        wanted: Samples per second to return.

    Raises:
        BadInputError: Not a sound file, damaged, empty, not finite, or longer than MAX_SECONDS (found before decoding).
    """
    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            _check_header(sound)
            samples, rate = _read_mono(sound), sound.samplerate
    except soundfile.SoundFileError as error:
        raise BadInputError(f"the {len(data)} bytes cannot be read as sound (WAV, FLAC, Ogg, MP3): {error}") from error
    if not len(samples):
        raise BadInputError("the sound is empty")
    if not np.isfinite(samples).all():
        raise BadInputError("the sound holds samples that are not finite")
    if rate != wanted:
        samples = soxr.resample(samples, rate, wanted)
    return samples[: MAX_SECONDS * wanted]
