"""Pictures and sounds as devices send them, made from the project's own samples."""

import io
import shutil
import struct
import subprocess
import zlib
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import pytest
import soundfile
from PIL import Image

from tests.zoo.samples import sample

Samples = npt.NDArray[np.float32]
RATE = 16_000
MULTIPART = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 24139\r\n\r\n"


def has_espeak() -> bool:
    return shutil.which("espeak-ng") is not None


needs_espeak = pytest.mark.skipif(not has_espeak(), reason="espeak-ng is not installed")


def picture() -> Image.Image:
    """A real photograph whose size is no multiple of a JPEG's blocks."""
    with Image.open(io.BytesIO(sample("chelsea.jpg"))) as image:
        return image.convert("RGB").resize((403, 269))


def file_of(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def jpeg(*, progressive: bool = False, **options: Any) -> bytes:
    return file_of(picture(), "JPEG", progressive=progressive, quality=85, **options)


def png_header(width: int, height: int) -> bytes:
    """A PNG of a size, all of whose pixels are transparent black: a thousandth of the bytes that they take decoded."""
    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    squeeze = zlib.compressobj(9)
    row = bytes(1 + 4 * width)
    body = b"".join(squeeze.compress(row) for _ in range(height)) + squeeze.flush()
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_scans(data: bytes, scans: int) -> bytes:
    """A progressive JPEG whose last scan is there again and again."""
    last = data[data.rfind(b"\xff\xda") : -2]
    return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]


def speech(name: str = "kitchen-light.flac") -> Samples:
    samples: Samples = soundfile.read(io.BytesIO(sample(name)), dtype="float32")[0]
    return samples


def spoken(text: str, voice: str) -> Samples:
    """What espeak-ng says, at its own 22,050 samples a second."""
    said = subprocess.run(["espeak-ng", "-v", voice, "--stdout", text], capture_output=True, check=True).stdout
    samples: Samples = soundfile.read(io.BytesIO(said), dtype="float32")[0]
    return samples


def wav(samples: Samples, rate: int = RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def encoded(samples: Samples, container: str, codec: str, rate: int = RATE) -> bytes:
    """A sound as PyAV writes it into a pipe's worth of bytes."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as out:
        track: Any = out.add_stream(codec, rate=rate)
        track.layout = "mono"
        frame: Any = av.AudioFrame.from_ndarray((samples * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.sample_rate = RATE
        for part in av.AudioResampler(format=track.format.name, layout="mono", rate=rate).resample(frame):
            out.mux(track.encode(part))
        out.mux(track.encode(None))
    return file.getvalue()


def pcm(samples: Samples, order: str = "<") -> bytes:
    return (samples * 32767).astype(f"{order}i2").tobytes()


def quiet(kind: str) -> Samples:
    """Five seconds in which nobody speaks."""
    chance, t = np.random.default_rng(1), np.arange(5 * RATE) / RATE
    match kind:
        case "silence":
            found = np.zeros(5 * RATE)
        case "hum":
            found = sum((0.1 / k * np.sin(2 * np.pi * 50 * k * t) for k in range(1, 12)), np.zeros(5 * RATE))
        case "noise":
            found = chance.standard_normal(5 * RATE) * 0.05
        case "tone":
            found = 0.3 * np.sin(2 * np.pi * 440 * t)
        case "knocks":
            found = 0.8 * np.exp(-40 * (t % 1)) * np.sin(2 * np.pi * 180 * t)
        case _:
            found = np.zeros(5 * RATE)
            found[40_000:40_040] = 0.9
    return found.astype(np.float32)


QUIET = ("silence", "hum", "noise", "tone", "knocks", "click")
