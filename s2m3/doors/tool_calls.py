"""Calls of tools in a written text: the forms that chat templates teach models. Pure.

`<tool_call>{…}</tool_call>` (Qwen, Hermes, SmolLM3), `[TOOL_CALLS][{…}]` (Mistral), and a text that is nothing but the
JSON of a call, or of several (Llama 3). Anything else stays text.
"""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["ToolCall", "tool_calls"]

_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*</tool_call>", re.DOTALL)
#: Marks in front of a text that is nothing but calls; models write some of them as special tokens, which texts lack.
_MARKS = re.compile(r"^\s*(\[TOOL_CALLS\]|<\|python_tag\|>|<\|tool_call\|>)\s*")


@dataclass(frozen=True)
class ToolCall:
    """A call of one function with its arguments."""

    name: str
    arguments: Mapping[str, Any]


def tool_calls(text: str, names: Collection[str]) -> tuple[str, list[ToolCall]]:
    """Returns the text without its calls, and the calls.

    Args:
        text: The text that the model wrote.
        names: Functions that the request described; calls of others are left in the text.
    """
    if tagged := _TAGGED.findall(text):
        calls = [call for inner in tagged for call in _read(inner, names)]
        return (_TAGGED.sub("", text).strip(), calls) if len(calls) == len(tagged) else (text, [])
    calls = _read(_MARKS.sub("", text), names)
    return ("", calls) if calls else (text, [])


def _read(text: str, names: Collection[str]) -> list[ToolCall]:
    """Returns the calls of a text that is the JSON of one or of several calls; none if a part of it is no call."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    calls = [_call(item, names) for item in (found if isinstance(found, list) else [found])]
    return [call for call in calls if call is not None] if all(calls) else []


def _call(item: object, names: Collection[str]) -> ToolCall | None:
    if not isinstance(item, dict):
        return None
    described = item.get("function") if isinstance(item.get("function"), dict) else item
    name = described.get("name") if isinstance(described, dict) else None
    arguments = described.get("arguments", described.get("parameters", {})) if isinstance(described, dict) else None
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments)
