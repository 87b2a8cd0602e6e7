"""A sound that is still coming, cut into windows that a speech model hears at once. Pure.

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

#: Seconds of a window that is cut (models hear 30 s at once), of the part of it in which no cut is made, and of the
#: stretches that are compared.
LONGEST_S, _WHOLE_S, _STRETCH_S = 28.0, 14.0, 0.2
_ENDLESS = 0xFFFF_FFFF
_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")


@dataclass(frozen=True, slots=True)
class Form:
    """How samples are to be read.

    Args:
        rate: A second.
        width: Bytes of one, little-endian; one byte has no sign.
        channels: Interleaved.
    """

    rate: int
    width: int
    channels: int

    @property
    def frame(self) -> int:
        """Bytes of the samples of one moment."""
        return self.width * self.channels

    def seconds(self, nbytes: int) -> float:
        """Returns how long so many bytes last."""
        return nbytes / self.frame / self.rate

    def header(self) -> bytes:
        """Returns the beginning of a WAV file whose end is not known: its samples reach to the end of the file."""
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
        """Its length so far."""
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
        form: Of the samples.
    """

    def __init__(self, form: Form) -> None:
        self.open = Window(form)
        self._nbytes = 0

    @property
    def seconds(self) -> float:
        """Length of the sound so far."""
        return self.open.form.seconds(self._nbytes)

    def add(self, data: bytes) -> list[Window]:
        """Adds samples; returns the windows that they have ended, in order."""
        ended, second = [], self.open.form.frame * self.open.form.rate
        self._nbytes += len(data)
        for at in range(0, len(data), second):
            self.open.samples += data[at : at + second]
            if self.open.seconds >= LONGEST_S:
                ended.append(self.open)
                self.open = self.open.cut()
        return ended


def _loudness(samples: bytes, form: Form, stretch: int) -> npt.NDArray[np.float64]:
    """Returns the mean square of each stretch of so many moments, of the first channel."""
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
