"""One connection of a Wyoming client: its requests, one after the other, and their answers."""

import asyncio
import re
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.ping import Pong
from wyoming.tts import SynthesizeStopped

from s2m3.client import Client
from s2m3.doors.served_tasks import ServedTask
from s2m3.doors.sound_files import Samples, read_wav
from s2m3.doors.wyoming_events import EventStream
from s2m3.doors.wyoming_hearing import Utterance
from s2m3.doors.wyoming_info import chosen_task, described
from s2m3.hearing.live import Hearing, LiveTranscript
from s2m3.hearing.windows import Form
from s2m3.schemas.errors import BadInputError, BusyError, ModuleFailedError, TooLargeError
from s2m3.schemas.settings import DoorSettings

__all__ = ["Budget", "Session"]

#: Most bytes of the sound of one event that is sent.
_CHUNK = 8_192
#: Most characters of a text that is to be spoken.
_MOST_TEXT = 20_000
#: Matches up to the end of the last whole sentence of a growing text.
_SENTENCES = re.compile(r".*(?:[.!?…]['\")\]]*\s|[\u3002\uff01\uff1f\n])", re.DOTALL)


@dataclass
class Budget:
    """The limits of all connections together.

    Args:
        sounds: Most bytes of sounds that are not transcribed yet.
        requests: Most requests at once.
    """

    sounds: int
    requests: int

    def take(self, size: int) -> None:
        """Counts bytes of a sound.

        Raises:
            BusyError: There is no room for them.
        """
        if size > self.sounds:
            raise BusyError("too many sounds at once")
        self.sounds -= size

    @contextmanager
    def request(self) -> Iterator[None]:
        """Counts a request.

        Raises:
            BusyError: There are too many.
        """
        if not self.requests:
            raise BusyError("too many requests at once")
        self.requests -= 1
        try:
            yield
        finally:
            self.requests += 1


class Session:
    """The requests of one connection.

    Args:
        client: Sends the requests.
        stream: The connection.
        settings: Limits of size and time.
        languages: Task -> languages, from the settings.
        budget: The limits of all connections together.
    """

    def __init__(
        self,
        client: Client,
        stream: EventStream,
        settings: DoorSettings,
        languages: Mapping[str, Sequence[str]],
        budget: Budget,
    ) -> None:
        self._client, self._stream, self._settings = client, stream, settings
        self._languages, self._budget = languages, budget
        self._asked: Mapping[str, Any] = {}
        self._sound: Utterance | None = None
        #: bytes of the sound that are counted in the budget
        self._counted = 0
        self._voice: Mapping[str, Any] | None = None
        self._text = ""

    async def serve(self) -> None:
        """Answers events until the end of the connection, which cancels requests under way.

        Raises:
            S2M3Error: A request failed, or an event is no valid request.
            OSError: The connection is lost.
            TimeoutError: The peer did not read its answer in time.
        """
        reading = asyncio.create_task(self._stream.read(self._settings.header_s))
        try:
            while (event := await reading) is not None:
                reading = asyncio.create_task(self._stream.read(self._patience(event)))
                async with asyncio.timeout(self._settings.request_s):
                    await _unless_gone(self._handle(event), reading)
        finally:
            reading.cancel()
            await self._drop_sound()

    def _patience(self, event: Event) -> float:
        """Returns the seconds within which the next event has to arrive: fewer within a sound."""
        begins = event.type in ("audio-start", "audio-chunk")
        within = begins or (self._sound is not None and event.type != "audio-stop")
        return self._settings.body_s if within else self._settings.request_s

    async def _drop_sound(self) -> None:
        """Frees the memory of a sound, and cancels its requests."""
        if (sound := self._sound) is not None:
            self._sound = None
            await sound.close()
        self._count(0)

    def _count(self, held: int) -> None:
        """Replaces the counted bytes of the sound by the present ones.

        Raises:
            BusyError: There is no room for it.
        """
        self._budget.sounds += self._counted
        self._counted = 0
        self._budget.take(held)
        self._counted = held

    async def _handle(self, event: Event) -> None:
        """Answers one event; unknown ones are ignored, as Wyoming prescribes."""
        match event.type:
            case "describe":
                await self._stream.write(described(self._client, self._languages))
            case "ping":
                await self._stream.write(Pong(text=event.data.get("text")))
            case "transcribe" | "audio-start" | "audio-chunk" | "audio-stop":
                await self._listen(event)
            case "synthesize" | "synthesize-start" | "synthesize-chunk" | "synthesize-stop":
                await self._synthesize(event)

    async def _listen(self, event: Event) -> None:
        match event.type:
            case "transcribe":
                self._asked = event.data
            case "audio-start":
                await self._drop_sound()
                self._begin(event)
            case "audio-chunk":
                await self._hear(event)
            case _:
                await self._write_down()

    async def _synthesize(self, event: Event) -> None:
        match event.type:
            case "synthesize-start":
                self._voice, self._text = _mapping(event.data.get("voice")), ""
            case "synthesize-chunk":
                await self._speak_sentences(_text(event))
            case "synthesize-stop":
                await self._speak_rest()
            case _ if self._voice is None:  # after synthesize-start, `synthesize` repeats the text for old servers
                await self._speak(_text(event), _mapping(event.data.get("voice")))

    def _begin(self, event: Event) -> Utterance:
        form = _form(event)
        task = self._task("transcription", self._asked)
        hearing = Hearing(
            task.name,
            task.of_kind("audio") or "",
            streams=task.streams,
            every_s=self._settings.partial_s,
            admit=self._budget.request,
        )
        self._sound = Utterance(self._stream, LiveTranscript(self._client, hearing, form))
        return self._sound

    async def _hear(self, event: Event) -> None:
        """Takes samples of a sound; waits while they arrive faster than they are transcribed."""
        sound = self._sound or self._begin(event)
        piece = event.payload or b""
        if sound.size + len(piece) > self._settings.max_body_mb * 1e6:
            raise TooLargeError(f"a sound is over {self._settings.max_body_mb:g} MB")
        await sound.write(piece)
        self._count(sound.held_bytes)

    async def _write_down(self) -> None:
        """Answers a sound that is complete with its transcript."""
        if self._sound is None:
            raise BadInputError("audio-stop without a sound before it")
        await self._sound.end()
        await self._drop_sound()

    async def _speak_sentences(self, text: str) -> None:
        """Speaks the whole sentences of a text that is still arriving."""
        if self._voice is None:
            raise BadInputError("synthesize-chunk without synthesize-start before it")
        self._text += text
        if len(self._text) > _MOST_TEXT:
            raise TooLargeError(f"a sentence has over {_MOST_TEXT} characters")
        if whole := _SENTENCES.match(self._text):
            self._text = self._text[whole.end() :]
            await self._speak(whole[0], self._voice)

    async def _speak_rest(self) -> None:
        voice, text, self._voice, self._text = self._voice or {}, self._text, None, ""
        await self._speak(text, voice)
        await self._stream.write(SynthesizeStopped())

    async def _speak(self, text: str, voice: Mapping[str, Any]) -> None:
        """Answers a text with its sound; an empty text with nothing."""
        if not text.strip():
            return
        if len(text) > _MOST_TEXT:
            raise TooLargeError(f"a text has over {_MOST_TEXT} characters")
        task = self._task("speech", voice)
        name = task.of_kind("text", "texts") or ""
        said = [text.strip()] if task.doc.inputs.get(name) == "texts" else text.strip()
        inputs: dict[str, Any] = {name: said}
        with self._budget.request():
            answer = await asyncio.wrap_future(self._client.submit(task.name, **inputs))
        if not isinstance(answer.value, bytes):
            raise ModuleFailedError("the task answered without a sound")
        sound = read_wav(answer.value)
        form = {"rate": sound.rate, "width": sound.width, "channels": sound.channels}
        await self._stream.write(AudioStart(**form))
        for at in range(0, len(sound.data), _CHUNK):
            await self._stream.write(AudioChunk(**form, audio=sound.data[at : at + _CHUNK]))
        await self._stream.write(AudioStop())

    def _task(self, use: Any, asked: Mapping[str, Any]) -> ServedTask:
        name, language = (value if isinstance(value := asked.get(key), str) else None for key in ("name", "language"))
        return chosen_task(self._client, use, self._languages, name, language)


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(event: Event) -> str:
    text = event.data.get("text")
    if not isinstance(text, str):
        raise BadInputError(f"{event.type} has a text")
    return text


def _form(event: Event) -> Form:
    """Returns the form of the samples of a sound, from its first event."""
    rate, width, channels = (event.data.get(name) for name in ("rate", "width", "channels"))
    if not (isinstance(rate, int) and isinstance(width, int) and isinstance(channels, int)):
        raise BadInputError(f"{event.type} has rate, width and channels")
    checked = Samples(rate, width, channels)
    return Form(checked.rate, checked.width, checked.channels)


async def _unless_gone(answering: Coroutine[Any, Any, None], reading: asyncio.Task[Event | None]) -> None:
    """Answers an event; ends the answer when the connection ends meanwhile.

    Args:
        answering: The answer.
        reading: Reads the next event; None means the end of the connection.

    Raises:
        S2M3Error: The request failed.
        OSError: The connection is lost.
    """
    task = asyncio.create_task(answering)
    try:
        await asyncio.wait({task, reading}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done() and not _is_end(reading):
            await asyncio.wait({task})
        if task.done():
            task.result()
    finally:
        task.cancel()


def _is_end(reading: asyncio.Task[Event | None]) -> bool:
    if not reading.done() or reading.cancelled():
        return False
    error = reading.exception()
    return isinstance(error, OSError) if error is not None else reading.result() is None
