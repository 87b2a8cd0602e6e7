"""Inputs that no cache has seen: pictures, texts and sounds that differ from request to request, with equal answers."""

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import soundfile

__all__ = ["Asked", "inputs_of"]

_SAMPLES = Path(__file__).parents[2] / "s2m3" / "samples"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: the file, and the texts of a retrieval."""

    file: bytes
    texts: tuple[str, ...] = ()


def inputs_of(task: str, phase: str) -> Iterator[Asked]:
    """Yields requests of a task without end: the same ones for each peer, and other ones in each phase of a round."""
    chance = random.Random(f"{task} {phase}")  # noqa: S311  # not a secret
    while True:
        number = chance.randrange(10**8)
        if task == "transcription":
            yield Asked(_sound(number))
        elif task == "classification":
            yield Asked(_picture(number))
        else:
            names = ("a cat looking at you", "a cup of coffee on a table", "a rocket taking off")
            yield Asked(_picture(number), tuple(f"{name}, number {number}" for name in names))


def _picture(number: int) -> bytes:
    """Returns a JPEG of a cat with a number in a comment segment."""
    data = _file("chelsea.jpg")
    return data[:2] + b"\xff\xfe" + (len(str(number)) + 2).to_bytes(2, "big") + str(number).encode() + data[2:]


def _sound(number: int) -> bytes:
    """Returns a spoken sentence as 16-bit WAV; its first samples hold the number, six bits each: far below hearing."""
    samples, rate = _samples()
    changed = samples.copy()
    changed[:5] = [number >> 6 * place & 63 for place in range(5)]
    out = io.BytesIO()
    soundfile.write(out, changed, rate, format="WAV", subtype="PCM_16")
    return out.getvalue()


@cache
def _file(name: str) -> bytes:
    return (_SAMPLES / name).read_bytes()


@cache
def _samples() -> tuple["np.typing.NDArray[np.int16]", int]:
    samples, rate = soundfile.read(_SAMPLES / "quick-brown-fox.flac", dtype="int16")
    return np.asarray(samples), rate
