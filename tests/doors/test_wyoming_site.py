"""Wyoming's own client before three nodes, one of them killed -9 in the middle: it sees no error. Real Whisper."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from wyoming.client import AsyncTcpClient
from wyoming.info import Describe, Info
from wyoming.tts import SynthesizeChunk, SynthesizeStart, SynthesizeStop

from s2m3.cluster import Cluster
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.doors.wyoming_site import (
    RATE,
    TASKS,
    WIDTH,
    events_until,
    has_spare,
    samples_of,
    spoken,
    text_of,
    transcribed,
    voice_house,
)
from tests.homeassistant.core import HASS, HomeAssistant
from tests.zoo.samples import FOLDER

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]
SAID = "Please turn on the kitchen light."
REQUESTS = 200


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Cluster, int]]:
    with voice_house(tmp_path_factory.mktemp("shelf")) as (cluster, port):
        yield cluster, port


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """16-bit samples of `kitchen-light.flac`."""
    path = tmp_path_factory.mktemp("sound") / "light.wav"
    sound, rate = soundfile.read(FOLDER / "kitchen-light.flac", dtype="int16")
    soundfile.write(path, sound, rate)
    assert rate == RATE
    return samples_of(path)


async def told(port: int) -> Info:
    async with AsyncTcpClient("127.0.0.1", port) as client:
        await client.write_event(Describe().event())
        return Info.from_event((await events_until(client, "info"))[0])


def test_a_client_is_told_which_tasks_hear_and_speak(house: tuple[Cluster, int]) -> None:
    info = asyncio.run(told(house[1]))
    assert [(model.name, model.languages) for model in info.asr[0].models] == [("transcription", ["en"])]
    assert [voice.name for voice in info.tts[0].voices] == ["say"]


def test_speech_is_written_down_in_pieces_and_whole(house: tuple[Cluster, int], light: bytes) -> None:
    events = asyncio.run(transcribed(house[1], light, language="en"))
    assert [event.type for event in events[:1]] == ["transcript-start"]
    pieces = [event.data["text"] for event in events if event.type == "transcript-chunk"]
    assert len(pieces) > 1
    assert "".join(pieces).strip() == text_of(events) == SAID


def test_a_text_that_is_still_coming_is_spoken_sentence_by_sentence(house: tuple[Cluster, int]) -> None:
    async def streamed() -> list[str]:
        async with AsyncTcpClient("127.0.0.1", house[1]) as client:
            await client.write_event(SynthesizeStart().event())
            await client.write_event(SynthesizeChunk(text="the door is open. the wi").event())
            first = await events_until(client, "audio-stop")  # before the second sentence is whole
            await client.write_event(SynthesizeChunk(text="ndow too").event())
            await client.write_event(SynthesizeStop().event())
            return [event.type for event in [*first, *await events_until(client, "synthesize-stopped")]]

    types = asyncio.run(streamed())
    assert types.count("audio-start") == types.count("audio-stop") == 2
    assert types[-1] == "synthesize-stopped"


def test_home_assistant_hears_and_speaks_through_its_own_dialog_and_notices_no_killed_node(
    house: tuple[Cluster, int], light: bytes, tmp_path: Path
) -> None:
    if not HASS.exists():
        pytest.skip("Home Assistant is not installed: make homeassistant (Python 3.13)")
    cluster, port = house
    with HomeAssistant(tmp_path / "hass", cluster.broker.port_v3) as home:
        entry = home.add_integration("wyoming", host="127.0.0.1", port=port)
        assert entry["type"] == "create_entry", entry
        home.wait("stt.s2m3", "unknown")
        home.wait("tts.s2m3", "unknown")
        for gone in (None, "pi"):
            if gone is not None:
                cluster.kill(gone)
            assert home.heard("stt.s2m3", light, "en") == {"text": SAID, "result": "success"}
            assert len(home.said("tts.s2m3", "the door is open")) > 1_000
            assert home.heard("stt.s2m3", light, "en") == {"text": SAID, "result": "success"}
    with Site(cluster.settings) as site:
        assert site.wait(lambda s: "pi" not in s.nodes.ready, WAIT_S)
        cluster.start_agent("pi")
        assert site.wait(lambda s: "pi" in s.nodes.ready and all(has_spare(s, t) for t in TASKS), WAIT_S), site.routes


def test_a_node_that_is_killed_is_not_noticed_by_the_clients(house: tuple[Cluster, int], light: bytes) -> None:
    cluster, port = house

    async def ask_all() -> tuple[set[str], set[int]]:
        texts: set[str] = set()
        sounds: set[int] = set()
        room = asyncio.Semaphore(4)

        async def one(number: int) -> None:
            async with room:
                if number == REQUESTS // 2:
                    cluster.kill("laptop")
                if number % 2:
                    texts.add(text_of(await transcribed(port, light, language="en")))
                else:
                    sounds.add(sum(len(event.payload or b"") for event in await spoken(port, "the door is open")))

        async with asyncio.TaskGroup() as asking:
            for number in range(2 * REQUESTS):
                asking.create_task(one(number))
        return texts, sounds

    texts, sounds = asyncio.run(ask_all())
    assert texts == {SAID}
    assert min(sounds) > RATE * WIDTH / 100
    with Site(cluster.settings) as site:
        assert site.wait(lambda s: "laptop" not in s.nodes.ready, 10)
