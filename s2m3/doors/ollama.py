"""Ollama's API: models, chats, texts and embeddings, with tasks as its models. docs/doors.md lists the omissions."""

import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from s2m3.client import Client
from s2m3.doors import ollama_words as words
from s2m3.doors.asking import Conversation, answer_text, answered, appended, read_json
from s2m3.doors.embeddings import embeddings
from s2m3.doors.served_tasks import ServedTask, served, task_of, tasks_of
from s2m3.doors.streaming import JsonObject, endpoint, json_lines
from s2m3.doors.tool_calls import tool_calls
from s2m3.schemas.errors import BadInputError

__all__ = ["routes"]

#: The release of Ollama whose API this is.
_VERSION = "0.12.0"
_NS = 1_000_000_000


def routes(client: Client) -> list[Route]:
    """Returns the routes of Ollama's API."""
    api = _Ollama(client)
    table = {
        "/api/tags": ("GET", api.tags),
        "/api/ps": ("GET", api.ps),
        "/api/version": ("GET", api.version),
        "/api/show": ("POST", api.show),
        "/api/pull": ("POST", api.pull),
        "/api/chat": ("POST", api.chat),
        "/api/generate": ("POST", api.generate),
        "/api/embed": ("POST", api.embed),
        "/api/embeddings": ("POST", api.embeddings),
    }
    return [
        Route("/", _running, methods=["GET", "HEAD"]),
        *(Route(path, endpoint(answer), methods=[method]) for path, (method, answer) in table.items()),
    ]


async def _running(_request: Request) -> Response:
    """Returns the text by which Ollama's clients recognise the server."""
    return PlainTextResponse("Ollama is running")


class _Ollama:
    """Answers Ollama's paths over one Client."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._since = datetime.now(UTC).isoformat()

    # ---- models ---------------------------------------------------------------------------------------------------

    async def tags(self, _request: Request) -> JsonObject:
        """Lists all tasks."""
        return {"models": [self._listed(task) for task in tasks_of(self._client).values()]}

    async def ps(self, _request: Request) -> JsonObject:
        """Lists the tasks whose modules are all loaded."""
        ready = [task for task in tasks_of(self._client).values() if task.is_ready]
        return {
            "models": [{**self._listed(task), "expires_at": "0001-01-01T00:00:00Z", "size_vram": 0} for task in ready]
        }

    def _listed(self, task: ServedTask) -> JsonObject:
        name = f"{task.name}:latest"
        listed = {"name": name, "model": name, "modified_at": self._since, "size": 0, "digest": task.digest}
        return {**listed, "details": words.details(task)}

    async def version(self, _request: Request) -> JsonObject:
        """Returns the release of Ollama whose API this is."""
        return {"version": _VERSION}

    async def show(self, request: Request) -> JsonObject:
        """Describes one task, with its capabilities."""
        body = await read_json(request)
        task = task_of(self._client, body.get("model") or body.get("name"))
        return {
            "modelfile": f"# the task {task.name} of S2M3, of the model {task.doc.model}",
            "parameters": "",
            "template": "{{ .Prompt }}",
            "details": words.details(task),
            "model_info": {"general.architecture": "s2m3", "general.basename": task.doc.model},
            "capabilities": task.capabilities,
            "modified_at": self._since,
        }

    async def pull(self, request: Request) -> Response | JsonObject:
        """Answers success for an existing task; nothing is fetched."""
        body = await read_json(request)
        task_of(self._client, body.get("model") or body.get("name"))
        if not body.get("stream", True):
            return {"status": "success"}

        async def done() -> AsyncGenerator[JsonObject, None]:
            yield {"status": "success"}

        return await json_lines(done())

    # ---- texts ----------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response | JsonObject:
        """Answers a chat; without messages, answers whether the task exists."""
        body = await read_json(request)
        conversation = words.conversation(body.get("messages"), body.get("tools"))

        def keys_of(text: str, calls: list[JsonObject]) -> JsonObject:
            return {"message": {"role": "assistant", "content": text, **({"tool_calls": calls} if calls else {})}}

        return await self._write(request, body, conversation, keys_of)

    async def generate(self, request: Request) -> Response | JsonObject:
        """Answers a prompt; without one, answers whether the task exists."""
        body = await read_json(request)
        return await self._write(request, body, words.prompt(body), lambda text, _: {"response": text})

    async def _write(
        self, request: Request, body: JsonObject, conversation: Conversation, keys_of: words.AnswerKeys
    ) -> Response | JsonObject:
        task = served(task_of(self._client, body.get("model")), "completion")
        if body.get("think"):
            raise BadInputError(f"the model {task.name} does not support thinking")
        writing = _Writing(self._client, task, str(body["model"]), keys_of)
        if not conversation.messages and not conversation.pictures:
            return writing.ended("load", time.monotonic_ns(), "")
        inputs = conversation.inputs(task)
        options = words.options(body) if task.doc.generates else {}
        names = {tool["function"]["name"] for tool in conversation.tools}
        if body.get("stream", True) and task.streams and not names:
            return await json_lines(writing.pieces(inputs, options))
        whole = await writing.whole(request, inputs, options, names)
        return await json_lines(_once(whole)) if body.get("stream", True) else whole

    # ---- vectors --------------------------------------------------------------------------------------------------

    async def embed(self, request: Request) -> JsonObject:
        """Returns the vectors of texts."""
        body, began = await read_json(request), time.monotonic_ns()
        given = body.get("input")
        task = served(task_of(self._client, body.get("model")), "embedding")
        vectors = await embeddings(self._client, task, [given] if isinstance(given, str) else given, request)
        took = time.monotonic_ns() - began
        return {
            "model": body["model"],
            "embeddings": [vector.tolist() for vector in vectors],
            "total_duration": took,
            "load_duration": 0,
        }

    async def embeddings(self, request: Request) -> JsonObject:
        """Returns the vector of one text, in the older form."""
        body = await read_json(request)
        task = served(task_of(self._client, body.get("model")), "embedding")
        (vector,) = await embeddings(self._client, task, [body.get("prompt")], request)
        return {"embedding": vector.tolist()}


async def _once(part: JsonObject) -> AsyncGenerator[JsonObject, None]:
    yield part


class _Writing:
    """One answer, whole or in parts, in Ollama's format."""

    def __init__(self, client: Client, task: ServedTask, model: str, keys_of: words.AnswerKeys) -> None:
        self._client, self._task, self._model, self._keys_of = client, task, model, keys_of

    async def whole(self, request: Request, inputs: JsonObject, options: JsonObject, names: set[str]) -> JsonObject:
        """Returns the whole answer, with the calls of tools of these names in it."""
        began = time.monotonic_ns()
        reply = self._client.submit(self._task.name, options=options or None, **inputs)
        answer = await answered(reply, request)
        text, calls = tool_calls(answer_text(answer), names) if names else (answer_text(answer), [])
        described = [{"function": {"name": call.name, "arguments": call.arguments}} for call in calls]
        return self.ended(str(answer.outputs.get("finished", "stop")), began, text, described)

    async def pieces(self, inputs: JsonObject, options: JsonObject) -> AsyncGenerator[JsonObject, None]:
        """Yields the answer as it is written."""
        began = time.monotonic_ns()
        stream = self._client.stream(self._task.name, options=options or None, **inputs)
        async for piece in appended(stream):
            yield {**self._stamp(), **self._keys_of(piece, []), "done": False}
        yield self.ended(str(stream.result().outputs.get("finished", "stop")), began, "")

    def ended(self, why: str, began: int, text: str, calls: list[Any] | None = None) -> JsonObject:
        """Returns the last part of an answer, or the whole one."""
        took = time.monotonic_ns() - began
        times = {"total_duration": took, "load_duration": 0, "eval_duration": took}
        return {**self._stamp(), **self._keys_of(text, calls or []), "done": True, "done_reason": why, **times}

    def _stamp(self) -> JsonObject:
        return {"model": self._model, "created_at": datetime.now(UTC).isoformat().replace("+00:00", "Z")}
