"""Chat messages as an input: the form that chat templates take, checked and with the request's pictures counted in.

A first message of the role `tools` describes functions that may be called; its content is a list of their descriptions.
"""

from collections.abc import Mapping
from typing import Any

from s2m3.schemas.errors import BadInputError

__all__ = ["chat_messages", "chat_tools", "is_chat"]

_ROLES = ("system", "user", "assistant", "tool")
_TOOLS = "tools"
#: Messages of one chat, and blocks of one message.
_MOST = 200


def is_chat(value: object) -> bool:
    """Returns whether a value is a list of chat messages: maps with `role` and `content`."""
    return isinstance(value, list) and bool(value) and all(_is_message(message) for message in value)


def _is_message(message: object) -> bool:
    if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
        return False
    content = message.get("content")
    return isinstance(content, str) or (isinstance(content, list) and all(isinstance(x, Mapping) for x in content))


def chat_messages(value: str | list[Any], pictures: int) -> list[dict[str, Any]]:
    """Returns a chat in one form: the content of each message is a list of blocks.

    A block is `{"type": "text", "text": …}` or `{"type": "image"}`. A text is one message of the user. Pictures
    that no block stands for come first in the last message of the user.

    Args:
        value: A text, or messages; a message's content is a text or a list of blocks.
        pictures: The pictures of the request.

    Raises:
        BadInputError: A role, a block or the number of pictures does not fit.
    """
    given: list[Any] = [{"role": "user", "content": value}] if isinstance(value, str) else _without_tools(value)
    if len(given) > _MOST:
        raise BadInputError(f"{len(given)} chat messages; at most {_MOST}")
    found: list[dict[str, Any]] = [
        {"role": _role(message), "content": _blocks(message["content"]), **_called(message)} for message in given
    ]
    shown = sum(block["type"] == "image" for message in found for block in message["content"])
    if shown == 0 and pictures:
        asked = next((message for message in reversed(found) if message["role"] == "user"), None)
        if asked is None:
            raise BadInputError("the chat has no message of the user, to whom the pictures belong")
        asked["content"] = [*({"type": "image"} for _ in range(pictures)), *asked["content"]]
    elif shown != pictures:
        raise BadInputError(f"the chat shows {shown} pictures; {pictures} came with it")
    return found


def chat_tools(value: str | list[Any]) -> list[dict[str, Any]]:
    """Returns the descriptions of functions in a chat, in OpenAI's form: `{"type": "function", "function": {…}}`.

    Raises:
        BadInputError: One of them describes no function.
    """
    if isinstance(value, str) or len(value) == len(_without_tools(value)):
        return []
    described = value[0]["content"]
    if isinstance(described, str) or len(described) > _MOST or not all(_is_function(item) for item in described):
        raise BadInputError(f'tools are at most {_MOST} of {{"type": "function", "function": {{"name": …}}}}')
    return [dict(item) for item in described]


def _is_function(item: Mapping[str, Any]) -> bool:
    function = item.get("function")
    return isinstance(function, Mapping) and isinstance(function.get("name"), str)


def _without_tools(value: list[Any]) -> list[Any]:
    return value[1:] if value and value[0]["role"] == _TOOLS else value


def _called(message: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the calls of functions in a message of the assistant."""
    calls = message.get("tool_calls") if message["role"] == "assistant" else None
    if not calls:
        return {}
    if not isinstance(calls, list) or len(calls) > _MOST or not all(map(_is_function, calls)):
        raise BadInputError('tool_calls is a list of {"type": "function", "function": {"name": …, "arguments": {…}}}')
    return {"tool_calls": calls}


def _role(message: Mapping[str, Any]) -> str:
    role: str = message["role"]
    if role not in _ROLES:
        raise BadInputError(f"a chat message has the role {role[:40]!r}; it is one of {', '.join(_ROLES)}")
    return role


def _blocks(content: str | list[Any]) -> list[dict[str, str]]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}]
    if len(content) > _MOST:
        raise BadInputError(f"a chat message of {len(content)} blocks; at most {_MOST}")
    return [_block(block) for block in content]


def _block(block: Mapping[str, Any]) -> dict[str, str]:
    if block.get("type") == "text" and isinstance(block.get("text"), str):
        return {"type": "text", "text": block["text"]}
    if block.get("type") == "image":
        return {"type": "image"}
    form = '{"type": "text", "text": …} or {"type": "image"}'
    raise BadInputError(f"a block of a chat message is {form}; its picture comes in the input image")
