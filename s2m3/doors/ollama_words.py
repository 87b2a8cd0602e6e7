"""Converts requests of Ollama's clients: messages with pictures, options, the format of an answer. Pure."""

from collections.abc import Callable, Mapping
from typing import Any

from s2m3.doors.asking import Conversation
from s2m3.doors.served_tasks import ServedTask
from s2m3.doors.tools import function_tools
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.base64_text import decode_base64

__all__ = ["AnswerKeys", "conversation", "details", "options", "prompt"]

#: Returns the keys that a text and calls of tools have in a part of an answer.
AnswerKeys = Callable[[str, list[dict[str, Any]]], dict[str, Any]]
_ROLES = ("system", "user", "assistant", "tool")
#: Ollama's name of an option -> the name of the generation option.
_OPTIONS = {
    "temperature": "temperature",
    "seed": "seed",
    "stop": "stop",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
}


def details(task: ServedTask) -> dict[str, Any]:
    """Returns the details that lists of models have."""
    return {
        "parent_model": "",
        "format": "safetensors",
        "family": task.doc.model,
        "families": [task.doc.model],
        "parameter_size": "",
        "quantization_level": "",
    }


def conversation(messages: object, tools: object) -> Conversation:
    """Returns the messages of `/api/chat`.

    Raises:
        BadInputError: A message, a picture or a tool is not in Ollama's form.
    """
    found = Conversation(tools=function_tools(tools))
    if not isinstance(messages, list | None):
        raise BadInputError("messages is a list")
    for message in messages or []:
        if not isinstance(message, Mapping):
            raise BadInputError("a message is an object with role and content")
        role, content = message.get("role"), message.get("content") or ""
        if role not in _ROLES or not isinstance(content, str):
            raise BadInputError(f"a message has a role ({', '.join(_ROLES)}) and a text as its content")
        pictures = _pictures(message.get("images"))
        found.pictures += pictures
        blocks = [*({"type": "image"} for _ in pictures), {"type": "text", "text": content}]
        said: dict[str, Any] = {"role": role, "content": blocks if pictures else content}
        if role == "assistant" and (calls := message.get("tool_calls")):
            said["tool_calls"] = _calls(calls)
        found.messages.append(said)
    return found


def _calls(given: object) -> list[dict[str, Any]]:
    found = []
    for call in given if isinstance(given, list) else [None]:
        function = call.get("function") if isinstance(call, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise BadInputError("tool_calls is a list of {function: {name, arguments}}")
        arguments = function.get("arguments") or {}
        found.append({"type": "function", "function": {"name": function["name"], "arguments": arguments}})
    return found


def prompt(body: Mapping[str, Any]) -> Conversation:
    """Returns the prompt of `/api/generate` as a chat.

    Raises:
        BadInputError: The prompt, the system's text or a picture is not in Ollama's form.
    """
    for key in ("suffix", "context", "raw"):
        if body.get(key):
            raise BadInputError(f"{key} is not supported")
    said, system = body.get("prompt") or "", body.get("system") or ""
    if not isinstance(said, str) or not isinstance(system, str):
        raise BadInputError("prompt and system are texts")
    found = Conversation(pictures=_pictures(body.get("images")))
    if said or found.pictures:
        found.messages = [
            *([{"role": "system", "content": system}] if system else []),
            {"role": "user", "content": said},
        ]
    return found


def _pictures(given: object) -> list[bytes]:
    if not isinstance(given, list | None):
        raise BadInputError("images is a list of pictures in base64")
    try:
        return [decode_base64(item)[0] for item in given or [] if _is_text(item)]
    except ValueError as error:
        raise BadInputError(f"a picture is not base64: {error}") from error


def _is_text(item: object) -> bool:
    if not isinstance(item, str):
        raise BadInputError("images is a list of pictures in base64")
    return True


def options(body: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the generation options of a request; other options of Ollama are ignored.

    Raises:
        BadInputError: `options` or `format` is not in Ollama's form.
    """
    given = body.get("options") or {}
    if not isinstance(given, Mapping):
        raise BadInputError("options is an object")
    found = {ours: given[name] for name, ours in _OPTIONS.items() if given.get(name) is not None}
    if isinstance(seed := found.get("seed"), int) and seed < 0:
        del found["seed"]  # a negative seed stands for any
    if isinstance(most := given.get("num_predict"), int) and most > 0:  # 0 and below stand for no limit
        found["max_tokens"] = most
    if (wanted := body.get("format")) not in (None, ""):
        found["format"] = wanted
    return {name: float(value) if name in ("temperature", "top_p", "min_p") else value for name, value in found.items()}
