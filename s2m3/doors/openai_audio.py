"""OpenAI's API for sounds: transcriptions, whole or as a stream, and speech."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from s2m3.client import Answer, Client
from s2m3.doors.asking import answer_text, answered, appended, read_json
from s2m3.doors.served_tasks import ServedTask, served, task_of
from s2m3.doors.sound_files import Samples, samples_of
from s2m3.doors.streaming import JsonObject, server_sent_events
from s2m3.hearing.live import Hearing, LiveTranscript
from s2m3.hearing.windows import LONGEST_S, Form
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["OpenAIAudio"]

_FORMATS = ("json", "text", "verbose_json", "srt", "vtt")
#: Most fields of a form, and most files.
_MOST_FIELDS, _MOST_FILES = 20, 1
#: Status of the answer to an invalid form.
_UNREADABLE = 400


class OpenAIAudio:
    """Answers OpenAI's paths for sounds over one Client."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def transcriptions(self, request: Request) -> Response | JsonObject:
        """Returns the transcript of a sound file."""
        sound, fields = await _form(request)
        task = served(task_of(self._client, fields.get("model")), "transcription")
        form = fields.get("response_format", "json")
        if form not in _FORMATS:
            raise BadInputError(f"response_format is one of {', '.join(_FORMATS)}")
        inputs: dict[str, Any] = {task.of_kind("audio") or "": sound}
        options = _options(task, fields, timed=form in ("verbose_json", "srt", "vtt"))
        if fields.get("stream", "").lower() == "true" and task.streams:
            return await server_sent_events(self._pieces(task, sound, options), end="")
        answer = await answered(self._client.submit(task.name, options=options or None, **inputs), request)
        return _shown(answer, form)

    async def _pieces(
        self, task: ServedTask, sound: bytes, options: Mapping[str, Any]
    ) -> AsyncGenerator[JsonObject, None]:
        """Yields a transcript as it is written; of a long WAV file one window after the other."""
        name = task.of_kind("audio") or ""
        if (samples := _long(sound)) is None:
            inputs: dict[str, Any] = {name: sound}
            stream = self._client.stream(task.name, options=dict(options) or None, **inputs)
            async for piece in appended(stream):
                yield {"type": "transcript.text.delta", "delta": piece}
            yield {"type": "transcript.text.done", "text": answer_text(stream.result())}
            return
        hearing = Hearing(task.name, name, streams=True, options=options, every_s=0)
        live = LiveTranscript(self._client, hearing, Form(samples.rate, samples.width, samples.channels))
        try:
            live.write(samples.data)
            live.end()
            async for piece in live.pieces():
                yield {"type": "transcript.text.delta", "delta": piece}
            yield {"type": "transcript.text.done", "text": live.text}
        finally:
            await live.close()

    async def speech(self, request: Request) -> Response:
        """Returns a spoken text as a WAV file."""
        body = await read_json(request)
        task = served(task_of(self._client, body.get("model")), "speech")
        if body.get("response_format") not in (None, "wav"):
            raise BadInputError("response_format is wav: no other is made")
        if body.get("speed") not in (None, 1):
            raise BadInputError("speed is 1: no other is made")
        if not isinstance(text := body.get("input"), str):
            raise BadInputError("input is a text")
        name = task.of_kind("text", "texts") or ""
        inputs: dict[str, Any] = {name: [text] if task.doc.inputs.get(name) == "texts" else text}
        answer = await answered(self._client.submit(task.name, **inputs), request)
        if not isinstance(answer.value, bytes):
            raise ModuleFailedError("the task answered without a sound")
        return Response(answer.value, media_type="audio/wav")


def _long(sound: bytes) -> Samples | None:
    """Returns the samples of a WAV file that is too long for one request; None for any other file."""
    found = samples_of(sound)
    return found if found is not None and found.seconds >= LONGEST_S else None


async def _form(request: Request) -> tuple[bytes, dict[str, str]]:
    """Returns the file and the fields of a form.

    Raises:
        BadInputError: The body is no form, or the form lacks its file.
    """
    try:
        async with request.form(max_files=_MOST_FILES, max_fields=_MOST_FIELDS) as form:
            sound = form.get("file")
            if not isinstance(sound, UploadFile):
                raise BadInputError("a form (multipart/form-data) with a file and a model is needed")
            fields = {name: value for name, value in form.items() if isinstance(value, str)}
            return await sound.read(), fields
    except HTTPException as error:
        if error.status_code != _UNREADABLE:
            raise
        raise BadInputError(f"the form cannot be read: {error.detail}"[:200]) from error


def _options(task: ServedTask, fields: Mapping[str, str], *, timed: bool) -> dict[str, Any]:
    if not task.doc.generates:
        return {}
    found: dict[str, Any] = {}
    if timed and "segments" in task.doc.answer:
        found["timestamps"] = True
    try:
        if (heat := float(fields.get("temperature") or 0)) > 0:
            found["temperature"] = heat
    except ValueError as error:
        raise BadInputError("temperature is a number") from error
    return found


def _shown(answer: Answer, form: str) -> Response | JsonObject:
    text = answer_text(answer)
    segments = [part for part in answer.outputs.get("segments") or [] if isinstance(part, dict)]
    if form == "text":
        return PlainTextResponse(text + "\n")
    if form == "json":
        return {"text": text}
    if not segments and form in ("srt", "vtt"):
        raise BadInputError(f"response_format {form}: the model does not say when its words were spoken")
    if form == "verbose_json":
        timed = [{"id": index, **_segment(part)} for index, part in enumerate(segments)]
        language = answer.outputs.get("language") or ""
        duration = max((part["end"] for part in timed), default=0.0)
        return {"task": "transcribe", "language": language, "duration": duration, "text": text, "segments": timed}
    return PlainTextResponse(_captions([_segment(part) for part in segments], form))


def _segment(part: Mapping[str, Any]) -> JsonObject:
    start = float(part.get("start") or 0.0)
    end = part.get("end")
    return {"start": start, "end": float(end) if isinstance(end, int | float) else start, "text": part.get("text", "")}


def _captions(segments: list[JsonObject], form: str) -> str:
    point = "," if form == "srt" else "."
    blocks = []
    for number, part in enumerate(segments, 1):
        times = f"{_time(part['start'], point)} --> {_time(part['end'], point)}\n{str(part['text']).strip()}\n"
        blocks.append(f"{number}\n{times}" if form == "srt" else times)
    return ("" if form == "srt" else "WEBVTT\n\n") + "\n".join(blocks)


def _time(seconds: float, point: str) -> str:
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{point}{ms:03}"
