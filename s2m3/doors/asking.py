"""Requests of a door on the bus: their inputs, the stable part of their text, and their end when the caller leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import Request

from s2m3.client import Answer, Reply, Stream
from s2m3.doors.served_tasks import ServedTask
from s2m3.schemas.errors import BadInputError, ModuleFailedError
from s2m3.schemas.wire.plain import plain_value

__all__ = ["CallerGoneError", "Conversation", "answer_text", "answered", "appended", "read_json"]

#: Most characters of a word that is held back, because its spelling may change with the next token.
_HELD_BACK = 16
#: Most levels of the JSON values of a request.
_DEEPEST = 64


class CallerGoneError(Exception):
    """The caller closed the connection before its answer came."""


@dataclass
class Conversation:
    """The messages of a caller as a value of the input kind `chat`.

    Args:
        messages: Maps of `role` and `content`, a text or blocks.
        pictures: The files of all pictures, in the order of the blocks that stand for them.
        tools: Descriptions of functions, in OpenAI's form.
    """

    messages: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[bytes] = field(default_factory=list)
    tools: list[dict[str, Any]] = field(default_factory=list)

    def inputs(self, task: ServedTask) -> dict[str, Any]:
        """Returns the inputs of a task: the chat, or the user's last text; the pictures, or the last one.

        Raises:
            BadInputError: The task takes no pictures, or no tools, and some are given.
        """
        if self.pictures and not task.takes_pictures:
            raise BadInputError(f"the model {task.name} takes no pictures")
        if self.tools and not task.takes_chats:
            raise BadInputError(f"the model {task.name} takes no tools")
        found: dict[str, Any] = {}
        for name, kind in task.doc.inputs.items():
            if kind == "chat":
                described = [{"role": "tools", "content": self.tools}] if self.tools else []
                found[name] = [*described, *self.messages]
            elif kind == "text" and (text := self._last_text()):
                found[name] = text
            elif kind == "images" and self.pictures:
                found[name] = list(self.pictures)
            elif kind == "image" and self.pictures:
                found[name] = self.pictures[-1]
        return found

    def _last_text(self) -> str:
        asked = next((message for message in reversed(self.messages) if message["role"] == "user"), None)
        if asked is None:
            return ""
        content = asked["content"]
        return content if isinstance(content, str) else "".join(block.get("text", "") for block in content)


async def read_json(request: Request) -> dict[str, Any]:
    """Returns the body of a request.

    Raises:
        BadInputError: The body is no JSON object, or is nested too deep.
    """
    try:
        found = json.loads(await request.body() or b"{}")
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"the body is no JSON: {error}"[:200]) from error
    if not isinstance(found, dict):
        raise BadInputError("the body is no JSON object")
    if _depth(found) > _DEEPEST:
        raise BadInputError(f"the body is nested deeper than {_DEEPEST}")
    return found


def _depth(value: object) -> int:
    level, deepest = [value], 0
    while level and deepest <= _DEEPEST:
        inner = [item.values() if isinstance(item, dict) else item for item in level if isinstance(item, dict | list)]
        level, deepest = [item for items in inner for item in items], deepest + 1
    return deepest


async def answered(reply: Reply, request: Request) -> Answer:
    """Waits for an answer; cancels the request on the bus when its caller is gone.

    Raises:
        S2M3Error: The request failed.
        CallerGoneError: The caller is gone.
    """
    gone: asyncio.Future[Any] = asyncio.create_task(_is_gone(request))
    waiting: asyncio.Future[Any] = asyncio.wrap_future(reply)
    try:
        await asyncio.wait([waiting, gone], return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise CallerGoneError
        return reply.result()
    finally:
        gone.cancel()
        waiting.cancel()


async def _is_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def appended(stream: Stream) -> AsyncIterator[str]:
    """Yields the additions to a streamed text that no later delta replaces.

    The last word is held back until the next one begins. After a node is lost another node writes the text again, as a
    rule the same text, of which nothing is sent twice.

    Raises:
        ModuleFailedError: The text differs from the part that was sent already.
        S2M3Error: The request failed.
    """
    sent = shown = ""
    with stream:
        async for delta in stream:
            shown = delta.after(shown)
            stable = shown[: max(shown.rfind(" ") + 1, len(shown) - _HELD_BACK)]
            if len(stable) > len(sent) and stable.startswith(sent):
                yield stable[len(sent) :]
                sent = stable
        text = answer_text(stream.result())
        if not text.startswith(sent):
            raise ModuleFailedError("a node was lost, and another one wrote another text than what was sent")
        if text != sent:
            yield text[len(sent) :]


def answer_text(answer: Answer) -> str:
    """Returns an answer as text: a text unchanged, an answer of no label as an empty text, anything else as JSON."""
    if answer.value is None:
        return ""
    plain = plain_value(answer.value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)
