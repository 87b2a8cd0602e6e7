"""What comes to the Wyoming door from outside: too much, too slow, nonsense. It is refused, and the door goes on."""

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from wyoming.client import AsyncTcpClient
from wyoming.event import Event
from wyoming.info import Describe
from wyoming.ping import Ping

from s2m3.broker.servers.launch import free_port
from s2m3.client import Client
from s2m3.doors.sound_files import Samples, read_wav, samples_of
from s2m3.doors.wyoming_door import WyomingDoor, _may_ask
from s2m3.doors.wyoming_info import read_languages
from s2m3.hearing.live import Hearing, LiveTranscript
from s2m3.hearing.windows import Form
from s2m3.schemas import topics
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.messages import RouteDoc, RouteStep
from s2m3.schemas.settings import BrokerSettings, DoorSettings
from s2m3.snapshot import Site

Talk = Callable[[int], Awaitable[Any]]


@asynccontextmanager
async def opened(client: Client, settings: BrokerSettings, **limits: Any) -> AsyncIterator[int]:
    port = free_port()
    own = DoorSettings(host=settings.host, port=settings.port, root=settings.root, wyoming_port=port, **limits)
    stop = asyncio.Event()
    serving = asyncio.create_task(WyomingDoor(own).serve(client, stop))
    try:
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except OSError:
                await asyncio.sleep(0.01)
                continue
            writer.close()
            break
        yield port
    finally:
        stop.set()
        await serving


def talk(settings: BrokerSettings, what: Talk, **limits: Any) -> Any:
    """Runs a conversation with a door of a site without tasks, and then asks whether it still answers."""

    async def conversation() -> Any:
        with Client(settings=settings) as client:
            async with opened(client, settings, **limits) as port:
                found = await what(port)
                async with asyncio.timeout(20):
                    assert (await answers(port, Ping(text="there").event()))[0].data == {"text": "there"}
                return found

    return asyncio.run(conversation())


async def answers(port: int, *events: Event, last: str = "pong") -> list[Event]:
    """Sends events; returns what is answered until the last, or until the door ends the connection."""
    found: list[Event] = []
    async with AsyncTcpClient("127.0.0.1", port) as client:
        for event in events:
            await client.write_event(event)
        while (event_ := await client.read_event()) is not None:
            found.append(event_)
            if event_.type == last:
                break
    return found


async def raw(port: int, data: bytes) -> dict[str, Any]:
    """Sends bytes; returns the error that is answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    await writer.drain()
    answer = await reader.read()
    writer.close()
    before, _, rest = answer.rpartition(b'"error"')
    assert before
    found: dict[str, Any] = json.loads(rest.partition(b"\n")[2])
    return found


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "bad_input"),
        (b"[]\n", "bad_input"),
        (b"{}\n", "bad_input"),
        (b"[" * 60_000 + b"\n", "bad_input"),
        (b"x" * 200_000, "too_large"),
        (b'{"type": "audio-chunk", "payload_length": 1000000000}\n', "too_large"),
        (b'{"type": "audio-chunk", "data_length": 1000000000}\n', "too_large"),
        (b'{"type": "audio-chunk", "payload_length": -1}\n', "bad_input"),
        (b'{"type": "audio-start", "data": {"rate": 0, "width": 2, "channels": 1}}\n', "bad_input"),
        (b'{"type": "audio-start"}\n', "bad_input"),
        (b'{"type": "audio-stop"}\n', "bad_input"),
        (b'{"type": "synthesize"}\n', "bad_input"),
        (b'{"type": "synthesize", "data": {"text": "hello"}}\n', "not_ready"),
        (b'{"type": "synthesize", "data": {"text": "hello", "voice": {"name": "../x"}}}\n', "unknown_task"),
    ],
    ids=str,
)
def test_nonsense_is_refused_in_words(settings: BrokerSettings, data: bytes, code: str) -> None:
    assert talk(settings, lambda port: raw(port, data))["code"] == code


START = b'{"type": "audio-start", "data": {"rate": 16000, "width": 2, "channels": 1}}\n'


@pytest.fixture
def unready(settings: BrokerSettings) -> BrokerSettings:
    """A site with a task that writes speech down, and no node for it."""
    step = RouteStep(module="whisper", inputs={"audio": "input.audio"}, outputs=["text"], replicas=[])
    route = RouteDoc(
        epoch=1, revision=1, model="m", inputs={"audio": "audio"}, answer=["text"], deadline_s=60, steps={"s": step}
    )
    with Site(settings) as site:
        site.publish(topics.ROUTE, route.encode(), task="hear")
    return settings


def test_a_sound_without_a_task_for_it_is_refused(settings: BrokerSettings) -> None:
    assert talk(settings, lambda port: raw(port, START))["code"] == "not_ready"


def test_a_sound_that_is_too_long_is_refused_while_it_comes(unready: BrokerSettings) -> None:
    piece = b'{"type": "audio-chunk", "payload_length": 50000}\n' + bytes(50_000)
    assert talk(unready, lambda port: raw(port, START + 3 * piece), max_body_mb=0.1)["code"] == "too_large"


def test_a_long_event_is_counted_while_it_comes(unready: BrokerSettings) -> None:
    """One event may be as large as a sound: many of them at once are over the bound, whatever was announced."""
    event = b'{"type": "audio-chunk", "payload_length": 90000}\n' + bytes(90_000)

    async def many(port: int) -> list[str]:
        return [found["code"] for found in await asyncio.gather(*(raw(port, START + event) for _ in range(4)))]

    codes = talk(unready, many, max_body_mb=0.1, body_s=1.0)
    assert set(codes) == {"busy", "timeout"}


def test_a_sound_that_comes_faster_than_it_is_heard_is_not_read_on(unready: BrokerSettings) -> None:
    async def say(client: Client) -> int:
        live = LiveTranscript(client, Hearing("hear", "audio", streams=False), Form(1_000, 1, 1))
        said = 0
        try:
            with suppress(TimeoutError):
                while said < 1_000_000:
                    await asyncio.wait_for(live.room(), 0.2)
                    live.write(bytes(5_000))
                    said += 5_000
            assert live.held_bytes == said
        finally:
            await live.close()
        return said

    with Client(settings=unready) as client:
        assert asyncio.run(say(client)) < 90_000


def test_who_says_nothing_is_let_go(settings: BrokerSettings) -> None:
    found = talk(settings, lambda port: raw(port, b'{"type": "describe"'), header_s=0.2)
    assert found["code"] == "timeout"


def test_connections_over_the_limit_are_ended_and_the_others_go_on(settings: BrokerSettings) -> None:
    async def many(port: int) -> int:
        pairs = [await asyncio.open_connection("127.0.0.1", port) for _ in range(40)]
        ends = [asyncio.create_task(reader.read()) for reader, _ in pairs]
        done: set[asyncio.Task[bytes]] = set()
        async with asyncio.timeout(20):
            while len(done) < 30:
                done, _ = await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=0.05)
        for _, writer in pairs:
            writer.close()
        await asyncio.gather(*ends, return_exceptions=True)
        return len(done)

    assert talk(settings, many, max_connections=10, header_s=30.0) == 30


async def _until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


def test_what_was_asked_for_a_client_ends_when_the_client_leaves(unready: BrokerSettings) -> None:
    """The site has no node for it: without its caller's end the request would wait for a minute."""

    async def leave(client: Client) -> None:
        async with opened(client, unready) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(START + b'{"type": "audio-chunk", "payload_length": 400}\n' + bytes(400))
            writer.write(b'{"type": "audio-stop"}\n')
            await _until(lambda: client.under_way > 0)
            writer.close()
            await _until(lambda: client.under_way == 0)

    with Client(settings=unready) as client:
        asyncio.run(leave(client))


def test_a_site_without_tasks_says_that_it_has_none(settings: BrokerSettings) -> None:
    (info,) = talk(settings, lambda port: answers(port, Describe().event(), last="info"))
    assert info.data["asr"] == info.data["tts"] == []


@pytest.mark.parametrize(
    ("address", "may"),
    [("127.0.0.1", True), ("192.168.1.7", True), ("fe80::1%eth0", True), ("::ffff:8.8.8.8", False), ("1.1.1.1", False)],
)
def test_only_this_machine_and_private_networks_may_ask(address: str, may: bool) -> None:  # noqa: FBT001
    assert _may_ask((address, 40_000)) is may


def test_floats_become_16_bits() -> None:
    form = struct.pack("<HHIIHH", 3, 1, 16_000, 64_000, 4, 32)
    data = struct.pack("<3f", 0.0, 1.0, -2.0)
    file = b"RIFF\0\0\0\0WAVEfmt " + struct.pack("<I", len(form)) + form + b"data" + struct.pack("<I", len(data)) + data
    assert read_wav(file) == Samples(16_000, 2, 1, struct.pack("<3h", 0, 32_767, -32_767))


def test_samples_come_back_from_their_file() -> None:
    sound = Samples(22_050, 2, 2, bytes(range(40)))
    file = Form(22_050, 2, 2).header() + sound.data
    assert read_wav(file) == samples_of(file) == sound
    assert samples_of(b"OggS" + bytes(60)) is samples_of(file.replace(b"\x10\0\0\0\x01\0", b"\x10\0\0\0\x06\0")) is None
    with pytest.raises(ModuleFailedError, match="no WAV file"):
        read_wav(b"OggS" + bytes(60))


def test_languages_are_told_by_task() -> None:
    assert read_languages("speech=en,de say=en") == {"speech": ("en", "de"), "say": ("en",)}
    for wrong in ("speech", "=en", "speech=", "speech=en,"):
        with pytest.raises(BadInputError, match="TASK=en,de"):
            read_languages(wrong)


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(BadInputError, match="--wyoming-bind"):
        WyomingDoor(DoorSettings(wyoming_bind="everywhere"))
