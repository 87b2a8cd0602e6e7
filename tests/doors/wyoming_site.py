"""Three nodes, a task that writes down and one that speaks, and `s2m3 serve --wyoming` before them, as processes."""

import asyncio
import subprocess
import sys
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from wyoming.asr import Transcribe, Transcript
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.tts import Synthesize

from s2m3.broker.servers.launch import free_port
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests import command
from tests.families.speech import SPEECH

NODES = {"pi": 900.0, "laptop": 900.0, "desktop": 900.0}
TASKS = ("transcription", "say")
RATE, WIDTH = 16_000, 2


@contextmanager
def voice_house(folder: Path) -> Iterator[tuple[Cluster, int]]:
    """Yields the cluster, and the port of its Wyoming door, both tasks ready with a second copy."""
    (folder / "vits").mkdir()
    next(family for family in SPEECH if family.name == "vits").make(folder / "vits")
    with Cluster(NODES, threads=1, checkpoints=dict.fromkeys(NODES, folder)) as cluster, Site(cluster.settings) as site:
        assert site.wait(lambda s: s.nodes.ready == set(NODES) == set(s.profiles), 180), site.nodes
        add_task(site, "transcription", m.TaskSpec(model="transcription", deadline_s=120))
        port = cluster.settings.port
        added = command.s2m3("task", "add", "say", "--model", str(folder / "vits"), port=port)
        assert added.returncode == 0, added.stderr
        assert site.wait(lambda s: all(has_spare(s, task) for task in TASKS), 180), site.routes
        door = free_port()
        words = ["serve", "--wyoming", "--port", str(port), "--wyoming-port", str(door)]
        with subprocess.Popen([sys.executable, "-m", "s2m3", *words]) as serving:
            try:
                asyncio.run(listening(door))
                yield cluster, door
                assert serving.poll() is None
            finally:
                serving.terminate()


def has_spare(site: Site, task: str) -> bool:
    """Whether a task outlives the loss of a node without a load."""
    return site.ready(task) and all(len(step.replicas) > 1 for step in site.routes[task].steps.values())


async def listening(port: int) -> None:
    async with asyncio.timeout(60):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return


def samples_of(path: Path) -> bytes:
    with wave.open(str(path)) as file:
        assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (RATE, WIDTH, 1)
        return bytes(file.readframes(file.getnframes()))


async def events_until(client: AsyncTcpClient, last: str) -> list[Event]:
    found: list[Event] = []
    while not found or found[-1].type != last:
        event = await client.read_event()
        assert event is not None, found
        assert event.type != "error", event.data
        found.append(event)
    return found


async def transcribed(port: int, samples: bytes, language: str | None = None) -> list[Event]:
    """What a voice client hears of one sound, sent in pieces as a microphone gives them."""
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Transcribe(language=language).event())
        await client.write_event(AudioStart(rate=RATE, width=WIDTH, channels=1).event())
        for at in range(0, len(samples), 2_048):
            piece = samples[at : at + 2_048]
            await client.write_event(AudioChunk(rate=RATE, width=WIDTH, channels=1, audio=piece).event())
        await client.write_event(AudioStop().event())
        return await events_until(client, "transcript-stop")


def text_of(events: list[Event]) -> str:
    (found,) = [event for event in events if Transcript.is_type(event.type)]
    return Transcript.from_event(found).text


async def spoken(port: int, text: str) -> list[Event]:
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Synthesize(text=text).event())
        return await events_until(client, "audio-stop")
