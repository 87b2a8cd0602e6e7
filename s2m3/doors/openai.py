"""OpenAI's API: models, chat completions, embeddings; sounds are in openai_audio.py. Tasks are its models."""

import base64
import json
import secrets
import time
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from s2m3.client import Answer, Client
from s2m3.doors import openai_words as words
from s2m3.doors.asking import answer_text, answered, appended, read_json
from s2m3.doors.embeddings import embeddings
from s2m3.doors.openai_audio import OpenAIAudio
from s2m3.doors.served_tasks import ServedTask, served, task_of, tasks_of
from s2m3.doors.streaming import JsonObject, endpoint, server_sent_events
from s2m3.doors.tool_calls import tool_calls
from s2m3.schemas.errors import BadInputError

__all__ = ["routes"]


def routes(client: Client) -> list[Route]:
    """Returns the routes of OpenAI's API."""
    api, audio = _OpenAI(client), OpenAIAudio(client)
    table = {
        "/v1/models": ("GET", api.models),
        "/v1/models/{model}": ("GET", api.model),
        "/v1/chat/completions": ("POST", api.chat),
        "/v1/embeddings": ("POST", api.embeddings),
        "/v1/audio/transcriptions": ("POST", audio.transcriptions),
        "/v1/audio/speech": ("POST", audio.speech),
    }
    return [Route(path, endpoint(answer), methods=[method]) for path, (method, answer) in table.items()]


class _OpenAI:
    """Answers OpenAI's paths over one Client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since = int(time.time())

    async def models(self, _request: Request) -> JsonObject:
        """Lists all tasks."""
        return {"object": "list", "data": [self._listed(task) for task in tasks_of(self._client).values()]}

    async def model(self, request: Request) -> JsonObject:
        """Describes one task."""
        return self._listed(task_of(self._client, request.path_params["model"]))

    def _listed(self, task: ServedTask) -> JsonObject:
        return {"id": task.name, "object": "model", "created": self._since, "owned_by": "s2m3"}

    async def chat(self, request: Request) -> Response | JsonObject:
        """Answers a chat, whole or as a stream."""
        body = await read_json(request)
        task = served(task_of(self._client, body.get("model")), "completion")
        conversation = words.conversation(body)
        options = words.options(body)
        names = {tool["function"]["name"] for tool in conversation.tools}
        asked = _Completion(self._client, task, conversation.inputs(task), options if task.doc.generates else {}, names)
        if not body.get("stream"):
            return asked.whole(await answered(asked.submit(), request))
        if task.streams and not names:
            return await server_sent_events(asked.pieces())
        return await server_sent_events(asked.at_once(await answered(asked.submit(), request)))

    async def embeddings(self, request: Request) -> JsonObject:
        """Returns the vectors of texts, as numbers or as base64 of float32."""
        body = await read_json(request)
        given, encoding = body.get("input"), body.get("encoding_format") or "float"
        if encoding not in ("float", "base64"):
            raise BadInputError("encoding_format is float or base64")
        if body.get("dimensions") is not None:
            raise BadInputError("dimensions is not supported: a vector is as wide as the model makes it")
        task = served(task_of(self._client, body.get("model")), "embedding")
        vectors = await embeddings(self._client, task, [given] if isinstance(given, str) else given, request)
        shown = [
            v.tolist() if encoding == "float" else base64.b64encode(v.astype("<f4").tobytes()).decode() for v in vectors
        ]
        data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(shown)]
        usage = {"prompt_tokens": 0, "total_tokens": 0}
        return {"object": "list", "data": data, "model": body["model"], "usage": usage}


class _Completion:
    """One answer to a chat in OpenAI's format."""

    def __init__(
        self, client: Client, task: ServedTask, inputs: Mapping[str, Any], options: Mapping[str, Any], names: set[str]
    ) -> None:
        self._client, self._task, self._inputs = client, task, inputs
        self._options = dict(options) or None
        self._names = names
        self._id, self._created = f"chatcmpl-{secrets.token_hex(12)}", int(time.time())

    def submit(self) -> Any:
        """Sends the request for a whole answer; returns its reply."""
        return self._client.submit(self._task.name, options=self._options, **self._inputs)

    def whole(self, answer: Answer) -> JsonObject:
        """Returns the whole answer."""
        text, calls, why = self._read(answer)
        message: JsonObject = {"role": "assistant", "content": text if text or not calls else None, "refusal": None}
        if calls:
            message["tool_calls"] = calls
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": why}
        return {**self._stamp("chat.completion"), "choices": [choice]}

    def _read(self, answer: Answer) -> tuple[str, list[JsonObject], str]:
        text, calls = tool_calls(answer_text(answer), self._names) if self._names else (answer_text(answer), [])
        described = [
            {
                "id": f"call_{secrets.token_hex(12)}",
                "type": "function",
                "function": {"name": call.name, "arguments": json.dumps(call.arguments, ensure_ascii=False)},
            }
            for call in calls
        ]
        return text, described, "tool_calls" if calls else _why(answer)

    async def pieces(self) -> AsyncGenerator[JsonObject, None]:
        """Yields the answer as it is written."""
        stream = self._client.stream(self._task.name, options=self._options, **self._inputs)
        begun = False
        async for piece in appended(stream):
            yield self._part({"content": piece} if begun else {"role": "assistant", "content": piece})
            begun = True
        yield self._part({}, _why(stream.result()))

    async def at_once(self, answer: Answer) -> AsyncGenerator[JsonObject, None]:
        """Yields the parts of a complete answer."""
        text, calls, why = self._read(answer)
        indexed = [{"index": index, **call} for index, call in enumerate(calls)]
        yield self._part({"role": "assistant", "content": text, **({"tool_calls": indexed} if calls else {})})
        yield self._part({}, why)

    def _part(self, delta: JsonObject, why: str | None = None) -> JsonObject:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": why}
        return {**self._stamp("chat.completion.chunk"), "choices": [choice]}

    def _stamp(self, kind: str) -> JsonObject:
        return {"id": self._id, "object": kind, "created": self._created, "model": self._task.name}


def _why(answer: Answer) -> str:
    return "length" if answer.outputs.get("finished") == "length" else "stop"
