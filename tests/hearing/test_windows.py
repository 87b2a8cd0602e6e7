"""A sound that is coming, in windows: cut where it is quiet, nothing lost, each a file that only grows."""

import io

import numpy as np
import pytest
import soundfile

from s2m3.agents.media.sounds import decode_sound
from s2m3.hearing.windows import Form, Windows

RATE = 4_000
SECONDS = 70
#: Where nobody speaks, seconds.
PAUSES = (20.0, 41.0, 60.0)


def speech(width: int, channels: int) -> bytes:
    """A loud sound with pauses, each sample told from its neighbours."""
    time = np.arange(SECONDS * RATE) / RATE
    wave = np.sin(2 * np.pi * 300 * time)
    for pause in PAUSES:
        wave[(time > pause) & (time < pause + 0.5)] *= 0.001
    both = np.repeat((wave * 0.9)[:, None], channels, axis=1)
    kind = {1: "PCM_U8", 2: "PCM_16", 3: "PCM_24", 4: "PCM_32"}[width]
    file = io.BytesIO()
    soundfile.write(file, both, RATE, format="RAW", subtype=kind, endian="LITTLE")
    return file.getvalue()


@pytest.mark.parametrize(("width", "channels"), [(1, 1), (2, 1), (2, 2), (3, 1), (4, 2)])
def test_windows_end_in_pauses_and_nothing_is_lost(width: int, channels: int) -> None:
    form = Form(RATE, width, channels)
    sound, windows = speech(width, channels), Windows(form)
    ended = [one for at in range(0, len(sound), 999) for one in windows.add(sound[at : at + 999])]
    assert b"".join(bytes(one.samples) for one in (*ended, windows.open)) == sound
    ends = np.cumsum([one.seconds for one in ended])
    assert all(pause < end < pause + 0.5 for pause, end in zip(PAUSES, ends, strict=True))
    assert len({one.stream for one in (*ended, windows.open)}) == 4


def test_a_sound_that_comes_at_once_is_cut_all_the_same() -> None:
    windows = Windows(Form(RATE, 2, 1))
    ended = windows.add(speech(2, 1))
    assert [round(one.seconds) for one in ended] == [20, 21, 19]
    assert windows.open.seconds < 30


def test_a_window_is_a_file_that_only_grows() -> None:
    windows = Windows(Form(RATE, 2, 1))
    windows.add(b"\x01\x02" * 4_000 + b"\x01")  # half a sample has come
    first = windows.open.file()
    windows.add(b"\x02" + b"\x03\x04" * 4_000)
    second = windows.open.file()
    assert second.startswith(first)
    assert first.stream == second.stream
    assert len(decode_sound(first, RATE)) == 4_000
    assert len(decode_sound(second, RATE)) == 8_001


def test_a_sound_without_a_pause_is_cut_somewhere() -> None:
    windows = Windows(Form(RATE, 2, 1))
    (ended,) = windows.add(bytes(2 * 28 * RATE))
    assert 14 <= ended.seconds <= 28
