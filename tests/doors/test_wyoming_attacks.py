"""What is thrown at a Wyoming door that hears: its memory stays flat, and it goes on answering. Nodes hear for real."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest
from wyoming.asr import Transcript
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe

from s2m3.broker.servers.launch import free_port
from s2m3.cluster import Cluster
from tests.doors.door import Door, opened
from tests.doors.test_live import samples
from tests.doors.wyoming_site import listening, transcribed

pytestmark = pytest.mark.long
CONNECTIONS, GROWTH_MB = 200, 15.0
START = b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n'
CHUNK = b'{"type": "audio-chunk", "data": {"rate": 16000, "width": 2, "channels": 1}, "payload_length": 32000}\n'


@pytest.fixture(scope="module")
def attacked(site: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Door, int]]:
    port = free_port()
    limits = {"S2M3_HEADER_S": "2", "S2M3_BODY_S": "2", "S2M3_MAX_BODY_MB": "4", "S2M3_MAX_CONNECTIONS": "64"}
    folder, flags = tmp_path_factory.mktemp("door"), ("--openai", "--wyoming", "--wyoming-port", str(port))
    with opened(site.settings.port, folder, *flags, **limits) as door:
        asyncio.run(listening(port))
        yield door, port


async def _endless(port: int, sound: bytes, seconds: float) -> int:
    """Sends sound as fast as it is taken, until the door ends it or the time is over; returns the bytes taken."""
    sent = 0
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            try:
                writer.write(START)
                while True:
                    writer.write(CHUNK + sound)
                    await writer.drain()
                    sent += len(sound)
            finally:
                writer.transport.abort()
    return sent


def test_200_connections_with_endless_sound_leave_memory_flat(attacked: tuple[Door, int]) -> None:
    door, port = attacked
    sound = samples(1.0)

    async def attack() -> tuple[list[int], float]:
        highest = door.memory_mb()

        async def watch() -> None:
            nonlocal highest
            while True:
                highest = max(highest, door.memory_mb())
                await asyncio.sleep(0.1)

        watching = asyncio.create_task(watch())
        sent = await asyncio.gather(*(_endless(port, sound, 20.0) for _ in range(CONNECTIONS)))
        watching.cancel()
        return sent, highest

    taken, first = asyncio.run(attack())
    again, second = asyncio.run(attack())
    assert sum(again) > 0
    assert second - first < GROWTH_MB, f"{sum(taken + again) / 1e6:.0f} MB of sound taken"
    assert asyncio.run(_is_heard(port, sound))


def test_half_open_connections_are_ended(attacked: tuple[Door, int]) -> None:
    door, port = attacked

    async def wait(begun: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        with contextlib.suppress(ConnectionResetError):
            await reader.read()
        writer.close()

    async def attack() -> None:
        parts = (b"", b'{"type": "audio-', START, START + CHUNK, START + CHUNK + bytes(100))
        async with asyncio.timeout(60):
            await asyncio.gather(*(wait(parts[number % len(parts)]) for number in range(CONNECTIONS)))

    before = door.memory_mb()
    asyncio.run(attack())
    assert door.memory_mb() - before < GROWTH_MB
    assert asyncio.run(_is_heard(port, samples(1.0)))


async def _is_heard(port: int, sound: bytes) -> bool:
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Describe().event())
        assert await client.read_event() is not None
    return any(Transcript.is_type(event.type) for event in await transcribed(port, sound))
