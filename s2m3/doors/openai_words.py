"""Converts requests of OpenAI's clients: messages with pictures, options, the format of an answer. Pure."""

import json
from collections.abc import Mapping
from typing import Any

from s2m3.doors.asking import Conversation
from s2m3.doors.tools import function_tools
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.base64_text import decode_base64

__all__ = ["conversation", "options"]

#: OpenAI's role -> role of the kind `chat`.
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"}
_TEMPERATURES = ("temperature", "top_p")


def conversation(body: Mapping[str, Any]) -> Conversation:
    """Returns the messages of `/v1/chat/completions`.

    Raises:
        BadInputError: A message, a picture or a tool is not in OpenAI's form, or is one that is not supported.
    """
    messages, choice = body.get("messages"), body.get("tool_choice")
    if not isinstance(messages, list) or not messages:
        raise BadInputError("messages is a list of at least one message")
    if choice not in (None, "none", "auto"):
        raise BadInputError("tool_choice is none or auto: no tool can be forced")
    found = Conversation(tools=[] if choice == "none" else function_tools(body.get("tools")))
    for message in messages:
        if not isinstance(message, Mapping) or message.get("role") not in _ROLES:
            raise BadInputError(f"a message has a role ({', '.join(_ROLES)}) and content")
        said: dict[str, Any] = {"role": _ROLES[message["role"]], "content": _content(message.get("content"), found)}
        if message["role"] == "assistant" and message.get("tool_calls"):
            said["tool_calls"] = [_call(call) for call in message["tool_calls"]]
        found.messages.append(said)
    return found


def _content(content: object, found: Conversation) -> str | list[dict[str, Any]]:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise BadInputError("the content of a message is a text, or a list of parts")
    return [_block(part, found) for part in content]


def _block(part: object, found: Conversation) -> dict[str, Any]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if isinstance(part, Mapping) and kind == "text" and isinstance(part.get("text"), str):
        return {"type": "text", "text": part["text"]}
    if isinstance(part, Mapping) and kind == "image_url":
        given = part.get("image_url")
        url = given.get("url") if isinstance(given, Mapping) else given
        found.pictures.append(_picture(url))
        return {"type": "image"}
    raise BadInputError(f"a part of a message is a text or an image_url, not {str(kind)[:40]!r}")


def _picture(url: object) -> bytes:
    """Returns the picture of a `data:` URL. Other URLs are refused: a caller could name any server in the house."""
    if not isinstance(url, str) or not url.startswith("data:"):
        raise BadInputError("image_url has to be data:image/…;base64,…: no other address is fetched")
    try:
        return decode_base64(url)[0]
    except ValueError as error:
        raise BadInputError(f"a picture is not base64: {error}") from error


def _call(call: object) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise BadInputError("tool_calls is a list of {id, type, function: {name, arguments}}")
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (ValueError, TypeError, RecursionError) as error:
        raise BadInputError(f"the arguments of a tool call are no JSON: {error}"[:200]) from error
    return {"type": "function", "function": {"name": function["name"], "arguments": arguments}}


def options(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the generation options of a request.

    Raises:
        BadInputError: Several answers or probabilities are requested, or `response_format` is not in OpenAI's form.
    """
    if body.get("n") not in (None, 1):
        raise BadInputError("n is 1: a request has one answer")
    if body.get("logprobs"):
        raise BadInputError("logprobs is not supported")
    found: dict[str, Any] = {
        name: float(body[name]) for name in _TEMPERATURES if isinstance(body.get(name), int | float)
    }
    found |= {name: body[name] for name in ("seed", "stop") if body.get(name) is not None}
    if (most := body.get("max_completion_tokens", body.get("max_tokens"))) is not None:
        found["max_tokens"] = most
    if (wanted := _format(body.get("response_format"))) is not None:
        found["format"] = wanted
    return found


def _format(given: object) -> str | dict[str, Any] | None:
    match given:
        case None | {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return "json"
        case {"type": "json_schema", "json_schema": {"schema": dict() as schema}}:
            return schema
    raise BadInputError('response_format is {"type": "text"}, json_object, or json_schema with a schema')
