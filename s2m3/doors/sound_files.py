"""Samples of WAV files: as Wyoming's clients take them, and in stretches for transcription. Pure."""

import struct
from dataclasses import dataclass

import numpy as np

from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["Samples", "read_wav", "samples_of"]

_WIDTHS, _MOST_RATE, _MOST_CHANNELS = (1, 2, 3, 4), 384_000, 8
_INTEGERS, _FLOAT, _FORMAT = 1, 3, struct.Struct("<HHIIHH")
_FLOAT_BITS, _LOUDEST = 32, 32_767


@dataclass(frozen=True)
class Samples:
    """Raw samples.

    Args:
        rate: Samples of a channel per second.
        width: Bytes of a sample, little-endian.
        channels: Number of channels, interleaved.
        data: The bytes of all samples.
    """

    rate: int
    width: int
    channels: int
    data: bytes = b""

    def __post_init__(self) -> None:
        if self.width not in _WIDTHS or not 0 < self.rate <= _MOST_RATE or not 0 < self.channels <= _MOST_CHANNELS:
            raise BadInputError(f"no sound: rate {self.rate}, width {self.width}, channels {self.channels}")

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return len(self.data) / (self.width * self.channels * self.rate)


def read_wav(data: bytes) -> Samples:
    """Returns a WAV file's samples; floats become 16 bits.

    Raises:
        ModuleFailedError: The file is no WAV file of integers or of 32-bit floats.
    """
    try:
        form, raw = _chunk(data, b"fmt "), _chunk(data, b"data")
        kind, channels, rate, _, _, bits = _FORMAT.unpack_from(form)
        if kind == _FLOAT and bits == _FLOAT_BITS:
            floats = np.nan_to_num(np.frombuffer(raw[: len(raw) // 4 * 4], "<f4"))
            loud = np.clip(np.rint(floats * _LOUDEST), -_LOUDEST, _LOUDEST)
            return Samples(rate, 2, channels, loud.astype("<i2").tobytes())
        return Samples(rate, bits // 8, channels, raw)
    except (struct.error, ValueError, BadInputError) as error:
        raise ModuleFailedError(f"the task's sound is no WAV file that can be passed on: {error}"[:200]) from error


def samples_of(data: bytes) -> Samples | None:
    """Returns a WAV file's samples, which can be transcribed in stretches; None for any other file."""
    try:
        (kind, *_) = _FORMAT.unpack_from(_chunk(data, b"fmt "))
        return read_wav(data) if data[:4] == b"RIFF" and kind in (_INTEGERS, _FLOAT) else None
    except (struct.error, ValueError, ModuleFailedError):
        return None


def _chunk(data: bytes, wanted: bytes) -> bytes:
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        if name == wanted:
            return data[at + 8 : at + 8 + size]
        at += 8 + size + size % 2
    raise ValueError(f"it has no chunk {wanted.decode()!r}")
