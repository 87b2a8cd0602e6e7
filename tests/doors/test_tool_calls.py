"""Calls of tools in what models write: the known forms are read, anything else stays text."""

import pytest

from s2m3.doors.tool_calls import ToolCall, tool_calls

ON = ToolCall("light_on", {"room": "hall"})


@pytest.mark.parametrize(
    "text",
    [
        '<tool_call>\n{"name": "light_on", "arguments": {"room": "hall"}}\n</tool_call>',
        '[TOOL_CALLS][{"name": "light_on", "arguments": {"room": "hall"}}]',
        '{"name": "light_on", "parameters": {"room": "hall"}}',
        '<|python_tag|>{"type": "function", "function": {"name": "light_on", "arguments": {"room": "hall"}}}',
    ],
)
def test_the_known_forms_are_read(text: str) -> None:
    assert tool_calls(text, {"light_on"}) == ("", [ON])


def test_text_beside_a_tagged_call_stays() -> None:
    text = 'I will. <tool_call>{"name": "light_on", "arguments": {"room": "hall"}}</tool_call>'
    assert tool_calls(text, {"light_on"}) == ("I will.", [ON])


@pytest.mark.parametrize(
    "text",
    [
        "the light is on",
        '{"name": "open_door", "arguments": {}}',
        '{"name": "light_on", "arguments": "hall"}',
        '<tool_call>{"name": "light_on", "arg</tool_call>',
        '[{"name": "light_on", "arguments": {}}, 3]',
        "[]",
        "[" * 100_000,
    ],
)
def test_anything_else_stays_text(text: str) -> None:
    assert tool_calls(text, {"light_on"}) == (text, [])
