"""Streamed answers: an error before the first part is an HTTP error, a later one is a part of the stream."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import wraps
from typing import Any, Literal

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Send

from s2m3.doors.asking import CallerGoneError
from s2m3.doors.errors import error_body, error_response, refusal_of
from s2m3.schemas.errors import S2M3Error

__all__ = ["JsonObject", "endpoint", "json_lines", "server_sent_events"]

JsonObject = dict[str, Any]
Endpoint = Callable[[Request], Awaitable[Response]]
#: nginx's: the status of a request whose caller closed the connection; nobody reads it.
_CALLER_GONE = 499


def endpoint(answer: Callable[[Request], Awaitable[Response | JsonObject]]) -> Endpoint:
    """Returns an endpoint that answers with JSON, and with errors in the format of its API."""

    @wraps(answer)
    async def found(request: Request) -> Response:
        try:
            made = await answer(request)
        except S2M3Error as error:
            return error_response(request.url.path, refusal_of(error))
        except CallerGoneError:
            return Response(status_code=_CALLER_GONE)
        return made if isinstance(made, Response) else JSONResponse(made)

    return found


class _Closing(StreamingResponse):
    """A streamed response that closes its source when the caller is gone."""

    body_iterator: AsyncGenerator[str, None]

    async def stream_response(self, send: Send) -> None:
        """Sends all parts."""
        async with aclosing(self.body_iterator):
            await super().stream_response(send)


async def json_lines(parts: AsyncGenerator[JsonObject, None]) -> Response:
    """Returns a stream of JSON objects, a line each, as in Ollama's API.

    Raises:
        S2M3Error: The request failed before its first part.
    """
    return await _streamed(parts, _line, "application/x-ndjson", end="", openai=False)


async def server_sent_events(
    parts: AsyncGenerator[JsonObject, None], *, end: Literal["", "data: [DONE]\n\n"] = "data: [DONE]\n\n"
) -> Response:
    """Returns a stream of JSON objects as server-sent events, as in OpenAI's API.

    Raises:
        S2M3Error: The request failed before its first part.
    """
    return await _streamed(parts, _event, "text/event-stream", end=end, openai=True)


def _line(part: JsonObject) -> str:
    return json.dumps(part, ensure_ascii=False) + "\n"


def _event(part: JsonObject) -> str:
    return f"data: {json.dumps(part, ensure_ascii=False)}\n\n"


async def _streamed(
    parts: AsyncGenerator[JsonObject, None],
    encode: Callable[[JsonObject], str],
    media_type: str,
    *,
    end: str,
    openai: bool,
) -> Response:
    try:
        first = await anext(parts)
    except BaseException:
        await parts.aclose()
        raise
    return _Closing(_encoded(first, parts, encode, end, openai=openai), media_type=media_type)


async def _encoded(
    first: JsonObject, rest: AsyncIterator[JsonObject], encode: Callable[[JsonObject], str], end: str, *, openai: bool
) -> AsyncGenerator[str, None]:
    yield encode(first)
    try:
        async with aclosing(rest):  # type: ignore[type-var]  # it is a generator
            async for part in rest:
                yield encode(part)
    except S2M3Error as error:
        yield encode(error_body(refusal_of(error), openai=openai))
        return
    if end:
        yield end
