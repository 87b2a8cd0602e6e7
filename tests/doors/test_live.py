"""Sound that is still coming, at the doors: heard in windows while it comes, and let go when its caller leaves."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import numpy as np
import openai
import pytest
import soundfile

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.hearing.live import Hearing, LiveTranscript
from s2m3.hearing.windows import Form, Windows
from tests.conftest import WAIT_S
from tests.doors.door import Door
from tests.families.speech import sound

RATE = 16_000
FORM = Form(RATE, 2, 1)


def samples(seconds: float) -> bytes:
    """16-bit samples, as a microphone gives them."""
    floats, _ = soundfile.read(io.BytesIO(sound(1, seconds)), dtype="float32")
    return bytes((floats * 20_000).astype("<i2").tobytes())


@pytest.fixture
def client(site: Cluster) -> Any:
    with Client(settings=site.settings) as made:
        yield made


@asynccontextmanager
async def heard(client: Client, every_s: float = 1.0, **more: Any) -> AsyncIterator[LiveTranscript]:
    made = LiveTranscript(client, Hearing("hear", "audio", streams=True, every_s=every_s, **more), FORM)
    try:
        yield made
    finally:
        await made.close()


async def told(live: LiveTranscript, data: bytes, at_once: int = 32_000) -> list[str]:
    """Says a sound in parts; returns what is shown of it."""
    pieces: list[str] = []

    async def read() -> None:
        pieces.extend([piece async for piece in live.pieces()])

    reading = asyncio.create_task(read())
    for at in range(0, len(data), at_once):
        await live.room()
        live.write(data[at : at + at_once])
        await asyncio.sleep(0)
    live.end()
    await reading
    return pieces


def text_of(client: Client, data: bytes) -> str:
    """What the task answers about each window by itself."""
    windows = Windows(FORM)
    every = [*windows.add(data), windows.open]
    return " ".join(str(client.ask("hear", audio=bytes(window.file())).value).strip() for window in every)


@pytest.mark.parametrize("seconds", [2.5, pytest.param(40.0, marks=pytest.mark.long)])
def test_a_sound_in_parts_has_the_transcript_of_its_windows(client: Client, seconds: float) -> None:
    data = samples(seconds)

    async def hear() -> tuple[str, str]:
        async with heard(client) as live:
            pieces = await told(live, data)
            return "".join(pieces), live.text

    shown, text = asyncio.run(hear())
    assert text == text_of(client, data)
    assert text.startswith(shown) or shown == text


def test_what_was_heard_whole_is_not_asked_for_again(client: Client) -> None:
    """A look that is about the whole sound is its transcript."""
    requests, said = 0, bytearray()

    async def hear() -> str:
        looking = asyncio.Event()

        @contextmanager
        def counted() -> Iterator[None]:
            nonlocal requests
            requests += 1
            looking.set()
            yield

        async with heard(client, every_s=0.1, admit=counted) as live:
            await spoken(live, looking, said)
            live.end()
            return "".join([piece async for piece in live.pieces()])

    assert asyncio.run(hear()) == text_of(client, bytes(said))
    assert requests == 1


async def spoken(live: LiveTranscript, looking: asyncio.Event, said: bytearray) -> None:
    """Says a sound as a microphone gives it, until it is looked at."""
    while not looking.is_set():
        piece = samples(0.02)
        said += piece
        live.write(piece)
        with suppress(TimeoutError):
            await asyncio.wait_for(looking.wait(), 0.02)


def test_nothing_of_a_sound_is_under_way_once_its_caller_has_left(client: Client) -> None:
    async def leave() -> None:
        asking = asyncio.Event()

        @contextmanager
        def noted() -> Iterator[None]:
            asking.set()
            yield

        async with heard(client, every_s=0.5, admit=noted) as live:
            await spoken(live, asking, bytearray())

    asyncio.run(leave())
    deadline = time.monotonic() + WAIT_S
    while client.under_way:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.long
def test_openai_streams_the_transcript_of_a_long_sound(door: Door, client: Client) -> None:
    data = samples(40.0)
    file = io.BytesIO()
    soundfile.write(file, np.frombuffer(data, "<i2"), RATE, format="WAV", subtype="PCM_16")
    other = openai.OpenAI(base_url=f"{door.url}/v1", api_key="none", max_retries=0)
    events = list(other.audio.transcriptions.create(model="hear", file=("a.wav", file.getvalue()), stream=True))
    expected = text_of(client, data)
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == expected
    assert "".join(event.delta for event in events if event.type == "transcript.text.delta") == expected
    assert other.audio.transcriptions.create(model="hear", file=("a.wav", file.getvalue())).text
