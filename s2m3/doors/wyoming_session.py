"""One connection of a Wyoming client: what it asks, one after the other, and what is answered."""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from wyoming.asr import Transcript, TranscriptChunk, TranscriptStart, TranscriptStop
from wyoming.audio import AudioChunk, AudioStart, AudioStop
from wyoming.event import Event
from wyoming.ping import Pong
from wyoming.tts import SynthesizeStopped

from s2m3.client import Answer, Client
from s2m3.doors.asking import answer_text, appended
from s2m3.doors.served_tasks import ServedTask
from s2m3.doors.sound_files import Samples, read_wav, written_wav
from s2m3.doors.wyoming_events import EventStream
from s2m3.doors.wyoming_info import chosen_task, described
from s2m3.schemas.errors import BadInputError, BusyError, ModuleFailedError, TooLargeError
from s2m3.schemas.settings import DoorSettings

__all__ = ["Budget", "Session"]

#: Bytes of the sound of one event that is sent.
_CHUNK = 8_192
#: Characters of a text that is to be spoken.
_MOST_TEXT = 20_000
#: Up to the end of the last whole sentence of a text that grows.
_SENTENCES = re.compile(r".*(?:[.!?…]['\")\]]*\s|[\u3002\uff01\uff1f\n])", re.DOTALL)


@dataclass
class Budget:
    """What all connections together may hold and ask.

    Args:
        sounds: Bytes of the sounds that are not answered yet.
        requests: Requests at once.
    """

    sounds: int
    requests: int

    def take(self, size: int) -> None:
        """Counts bytes that came.

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


@dataclass
class _Utterance:
    """A sound that is coming."""

    form: Samples
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0


class Session:
    """One connection.

    Args:
        client: Asks the tasks.
        stream: The connection.
        settings: Limits of size and time.
        languages: Task -> languages, as the settings tell.
        budget: Of all connections.
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
        self._sound: _Utterance | None = None
        self._voice: Mapping[str, Any] | None = None
        self._text = ""

    async def serve(self) -> None:
        """Answers events until the connection's end.

        Raises:
            S2M3Error: A request failed, or what came is no request.
            OSError: The connection is lost.
            TimeoutError: The peer did not read its answer in time.
        """
        within = self._settings.header_s
        while (event := await self._stream.read(within)) is not None:
            async with asyncio.timeout(self._settings.request_s):
                await self._handle(event)
            within = self._settings.request_s if self._sound is None else self._settings.body_s

    def close(self) -> None:
        """Gives back what the connection holds."""
        if self._sound is not None:
            self._budget.sounds += self._sound.size
            self._sound = None

    async def _handle(self, event: Event) -> None:
        """Answers one event; unknown ones are passed over, as Wyoming asks."""
        match event.type:
            case "describe":
                await self._stream.write(described(self._client, self._languages))
            case "ping":
                await self._stream.write(Pong(text=event.data.get("text")))
            case "transcribe" | "audio-start" | "audio-chunk" | "audio-stop":
                await self._listen(event)
            case "synthesize" | "synthesize-start" | "synthesize-chunk" | "synthesize-stop":
                await self._say(event)

    async def _listen(self, event: Event) -> None:
        match event.type:
            case "transcribe":
                self._asked = event.data
            case "audio-start":
                self.close()
                self._sound = _Utterance(_form(event))
            case "audio-chunk":
                self._hear(event)
            case _:
                await self._write_down()

    async def _say(self, event: Event) -> None:
        match event.type:
            case "synthesize-start":
                self._voice, self._text = _mapping(event.data.get("voice")), ""
            case "synthesize-chunk":
                await self._speak_sentences(_text(event))
            case "synthesize-stop":
                await self._speak_rest()
            case _ if self._voice is None:  # behind synthesize-start it repeats the text for old servers
                await self._speak(_text(event), _mapping(event.data.get("voice")))

    def _hear(self, event: Event) -> None:
        if self._sound is None:
            self._sound = _Utterance(_form(event))
        piece = event.payload or b""
        if self._sound.size + len(piece) > self._settings.max_body_mb * 1e6:
            raise TooLargeError(f"a sound is over {self._settings.max_body_mb:g} MB")
        self._budget.take(len(piece))
        self._sound.size += len(piece)
        self._sound.pieces.append(piece)

    async def _write_down(self) -> None:
        """Answers a sound that is complete with its transcript, in pieces where the task writes token by token."""
        if self._sound is None:
            raise BadInputError("audio-stop without a sound before it")
        form, raw = self._sound.form, b"".join(self._sound.pieces)
        sound = written_wav(Samples(form.rate, form.width, form.channels, raw))
        task = self._task("transcription", self._asked)
        inputs = {task.of_kind("audio") or "": sound}
        with self._budget.request():
            await self._stream.write(TranscriptStart())
            answer = await self._transcribed(task, inputs) if raw else None
        self.close()
        text = answer_text(answer).strip() if answer else ""
        language = str(answer.outputs.get("language") or "") if answer else ""
        await self._stream.write(Transcript(text=text, language=language or None))
        await self._stream.write(TranscriptStop())

    async def _transcribed(self, task: ServedTask, inputs: Mapping[str, Any]) -> Answer:
        if not task.streams:
            answer: Answer = await asyncio.wrap_future(self._client.submit(task.name, **inputs))
            await self._stream.write(TranscriptChunk(text=answer_text(answer).strip()))
            return answer
        stream = self._client.stream(task.name, **inputs)
        async for piece in appended(stream):
            await self._stream.write(TranscriptChunk(text=piece))
        return stream.result()

    async def _speak_sentences(self, text: str) -> None:
        """Speaks the sentences that are whole, of a text that is still coming."""
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
        """Answers a text with its sound; an empty one with nothing."""
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


def _form(event: Event) -> Samples:
    """Returns how the samples of a sound are to be read, which its first event says."""
    rate, width, channels = (event.data.get(name) for name in ("rate", "width", "channels"))
    if not (isinstance(rate, int) and isinstance(width, int) and isinstance(channels, int)):
        raise BadInputError(f"{event.type} has rate, width and channels")
    return Samples(rate, width, channels)
