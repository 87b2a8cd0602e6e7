"""Cuts a sound that is still arriving into windows for a speech model. Pure.

A window that grows too long is cut where it is quietest, so that no word is cut.
"""

import secrets
import struct
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from s2m3.schemas.request_ids import REQUEST_ID_BYTES
from s2m3.schemas.wire.input_pieces import Growing

__all__ = ["LONGEST_S", "Form", "Window", "Windows"]

#: Seconds after which a window is cut (models take 30 s at once), of its first part, in which no cut is made, and of
#: the stretches whose loudness is compared.
LONGEST_S, _WHOLE_S, _STRETCH_S = 28.0, 14.0, 0.2
_ENDLESS = 0xFFFF_FFFF
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


@dataclass(frozen=True, slots=True)
class Form:
    """The form of samples.

    Args:
        rate: Samples of a channel per second.
        width: Bytes of a sample, little-endian; one byte is unsigned.
        channels: Number of channels, interleaved.
    """

    rate: int
    width: int
    channels: int

    @property
    def frame(self) -> int:
        """Bytes of one sample of all channels."""
        return self.width * self.channels

    def seconds(self, nbytes: int) -> float:
        """Returns the duration of so many bytes, seconds."""
        return nbytes / self.frame / self.rate

    def header(self) -> bytes:
        """Returns the header of a WAV file of unknown length: its samples reach to the end of the file."""
        rate = self.rate * self.frame
        form = (16, 1, self.channels, self.rate, rate, self.frame, 8 * self.width)
        return _HEADER.pack(b"RIFF", _ENDLESS, b"WAVE", b"fmt ", *form, b"data", _ENDLESS)


def _stream() -> bytes:
    return secrets.token_bytes(REQUEST_ID_BYTES)


@dataclass(slots=True)
class Window:
    """A stretch of the sound."""

    form: Form
    samples: bytearray = field(default_factory=bytearray)
    stream: bytes = field(default_factory=_stream)

    @property
    def seconds(self) -> float:
        """The duration so far."""
        return self.form.seconds(len(self.samples))

    def file(self) -> Growing:
        """Returns the sound so far as a WAV file; a later one begins with the same bytes."""
        whole = len(self.samples) // self.form.frame * self.form.frame
        return Growing.of(self.stream, self.form.header() + self.samples[:whole])

    def cut(self) -> "Window":
        """Ends the window where it is quietest; returns the next one, which begins there."""
        frame, rate = self.form.frame, self.form.rate
        loud = _loudness(bytes(self.samples), self.form, int(_STRETCH_S * rate))
        first = int(_WHOLE_S / _STRETCH_S)
        at = int((first + int(loud[first:].argmin()) + 0.5) * int(_STRETCH_S * rate)) * frame
        following = Window(self.form, self.samples[at:])
        del self.samples[at:]
        return following


class Windows:
    """The windows of one sound: `open` is the one that grows.

    Args:
        form: The form of the samples.
    """

    def __init__(self, form: Form) -> None:
        self.open = Window(form)
        self._nbytes = 0

    @property
    def seconds(self) -> float:
        """The duration of the sound so far."""
        return self.open.form.seconds(self._nbytes)

    def add(self, data: bytes) -> list[Window]:
        """Adds samples; returns the windows that ended with them, in order."""
        ended, second = [], self.open.form.frame * self.open.form.rate
        self._nbytes += len(data)
        for at in range(0, len(data), second):
            self.open.samples += data[at : at + second]
            if self.open.seconds >= LONGEST_S:
                ended.append(self.open)
                self.open = self.open.cut()
        return ended


def _loudness(samples: bytes, form: Form, stretch: int) -> npt.NDArray[np.float64]:
    """Returns the mean square of each stretch of so many samples of the first channel."""
    values = _values(samples[: len(samples) // form.frame * form.frame], form.width)[:: form.channels]
    whole = values[: len(values) // stretch * stretch].reshape(-1, stretch).astype(np.float64)
    loud: npt.NDArray[np.float64] = np.square(whole - whole.mean(axis=1, keepdims=True)).mean(axis=1)
    return loud


def _values(samples: bytes, width: int) -> npt.NDArray[np.int32]:
    match width:
        case 1:
            return np.frombuffer(samples, np.uint8).astype(np.int32) - 128
        case 2:
            return np.frombuffer(samples, "<i2").astype(np.int32)
        case 3:  # the upper two bytes
            return np.frombuffer(np.frombuffer(samples, np.uint8).reshape(-1, 3)[:, 1:].tobytes(), "<i2").astype(
                np.int32
            )
        case _:
            return np.frombuffer(samples, "<i4").astype(np.int32)
