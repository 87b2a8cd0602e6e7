"""Sound that libsndfile does not read (m4a, AAC, WebM, AMR), through PyAV (FFmpeg); imported when it is needed."""

import io
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from s2m3.schemas.errors import BadInputError

__all__ = ["DEMUXERS", "read_container"]

#: (samples per second, channels, frames that the header promises); raises BadInputError.
Check = Callable[[int, int, int], None]
#: Our format -> FFmpeg's demuxer. Named, never guessed: some of FFmpeg's formats are lists of other files.
DEMUXERS = {
    "MP4": "mov",
    "AAC": "aac",
    "WebM": "matroska",
    "AMR": "amr",
    "Ogg": "ogg",
    "MP3": "mp3",
    "CAF": "caf",
    "FLAC": "flac",
    "WAV": "wav",
}
#: Decoders that are offered bytes from strangers, by FFmpeg's names.
_CODECS = frozenset(
    {
        "aac",
        "aac_fixed",
        "alac",
        "opus",
        "libopus",
        "vorbis",
        "libvorbis",
        "flac",
        "mp3",
        "mp3float",
        "mp2",
        "mp2float",
        "speex",
        "libspeex",
        "amrnb",
        "amrwb",
        "amr_nb",
        "amr_wb",
        "libopencore_amrnb",
        "libopencore_amrwb",
        "pcm_s16le",
        "pcm_s16be",
        "pcm_s24le",
        "pcm_s24be",
        "pcm_s32le",
        "pcm_s32be",
        "pcm_f32le",
        "pcm_f32be",
        "pcm_u8",
        "pcm_s8",
        "pcm_alaw",
        "pcm_mulaw",
        "adpcm_ima_wav",
        "adpcm_ms",
        "adpcm_ima_qt",
        "gsm",
        "gsm_ms",
    }
)
#: Packets of one sound: Opus has 400 a second at most.
_MAX_PACKETS = 20_000


def read_container(data: bytes, form: str, max_seconds: float, check: Check) -> tuple[npt.NDArray[np.float32], int]:
    """Returns the first sound track of a file as mono samples, and their rate.

    Args:
        data: The file.
        form: Its format, a key of DEMUXERS.
        max_seconds: Decoding stops behind so many.
        check: Called with the rate, the channels and the frames that the header promises, before anything is decoded.

    Raises:
        BadInputError: PyAV is not installed; damaged; without a sound track; of a codec that is not read; too long.
    """
    if find_spec("av") is None:
        raise BadInputError(f"{form} sound is read with the package av (pip install s2m3[agent])")
    av: Any = import_module("av")
    try:
        with av.open(io.BytesIO(data), format=DEMUXERS[form], metadata_errors="ignore") as container:
            return _first_track(av, container, max_seconds, check)
    except av.FFmpegError as error:
        raise BadInputError(f"the sound cannot be decoded ({form}): {error.strerror}") from error
    except (ValueError, RuntimeError, MemoryError) as error:
        raise BadInputError(f"the sound cannot be decoded ({form})") from error


def _first_track(av: Any, container: Any, max_seconds: float, check: Check) -> tuple[npt.NDArray[np.float32], int]:
    if not container.streams.audio:
        raise BadInputError("the file holds no sound track")
    track = container.streams.audio[0]
    codec = track.codec_context
    if codec.name not in _CODECS:
        raise BadInputError(f"sound of the codec {codec.name[:40]} is not read")
    rate = int(codec.sample_rate or 0)
    seconds = float(track.duration * track.time_base) if track.duration and track.time_base else 0.0
    check(rate, int(codec.channels or 0), int(seconds * rate))
    samples = _mono(av, container, track, rate, max_seconds)
    return samples, rate


def _mono(av: Any, container: Any, track: Any, rate: int, max_seconds: float) -> npt.NDArray[np.float32]:
    planar = av.AudioResampler(format="fltp")
    blocks: list[npt.NDArray[np.float32]] = []
    read = 0
    cut: Exception | None = None
    for number, packet in enumerate(container.demux(track)):
        if cut is not None and packet.size:
            raise cut
        try:
            frames = packet.decode()
        except av.error.InvalidDataError as error:  # of a recording that was cut off, the last frame is not whole
            cut = error
            continue
        for frame in frames:
            if frame.sample_rate != rate:
                raise BadInputError("the sound changes its rate on the way")
            blocks += [np.asarray(part.to_ndarray()).mean(axis=0, dtype=np.float32) for part in planar.resample(frame)]
            read += frame.samples
        if read >= max_seconds * rate or number > _MAX_PACKETS:
            raise BadInputError(f"more than {max_seconds - 1:.0f} s of sound")
    if cut is not None and not blocks:
        raise cut
    return np.concatenate(blocks) if blocks else np.zeros(0, np.float32)
