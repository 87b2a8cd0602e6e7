"""Chat messages: one form for texts, blocks and the pictures that they stand for; what does not fit is refused."""

from typing import Any

import pytest

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.chat import chat_messages, chat_tools, is_chat
from s2m3.schemas.wire.values import check_kind

IMAGE = {"type": "image"}


def text(said: str) -> dict[str, str]:
    return {"type": "text", "text": said}


def test_a_text_is_one_message_of_the_user_behind_its_pictures() -> None:
    assert chat_messages("who", 0) == [{"role": "user", "content": [text("who")]}]
    assert chat_messages("who", 2) == [{"role": "user", "content": [IMAGE, IMAGE, text("who")]}]


def test_pictures_that_nothing_stands_for_belong_to_the_last_message_of_the_user() -> None:
    said = [{"role": role, "content": role} for role in ("system", "user", "assistant", "user", "assistant")]
    shown = [[block["type"] for block in message["content"]] for message in chat_messages(said, 1)]
    assert shown == [["text"], ["text"], ["text"], ["image", "text"], ["text"]]


def test_blocks_stand_where_they_are_and_other_keys_are_left_out() -> None:
    said = [{"role": "user", "content": [{**text("left"), "cache": 1}, {**IMAGE, "url": "file:x"}, text("right")]}]
    assert chat_messages(said, 1)[0]["content"] == [text("left"), IMAGE, text("right")]


def test_tools_are_described_by_a_first_message_and_called_by_the_assistant() -> None:
    tool = {"type": "function", "function": {"name": "light_on"}}
    called = {"role": "assistant", "content": "", "tool_calls": [tool]}
    said = [
        {"role": "tools", "content": [tool]},
        {"role": "user", "content": "on"},
        called,
        {"role": "tool", "content": "ok"},
    ]
    assert is_chat(said)
    assert chat_tools(said) == [tool]
    assert chat_tools(said[1:]) == chat_tools("on") == []
    assert [message["role"] for message in chat_messages(said, 0)] == ["user", "assistant", "tool"]
    assert chat_messages(said, 0)[1]["tool_calls"] == [tool]
    with pytest.raises(BadInputError, match="tools are"):
        chat_tools([{"role": "tools", "content": [{"type": "function"}]}])


def test_what_is_given_is_not_changed() -> None:
    said = [{"role": "user", "content": [text("a")]}]
    chat_messages(said, 1)
    assert said == [{"role": "user", "content": [text("a")]}]


@pytest.mark.parametrize(
    ("said", "pictures", "why"),
    [
        ([{"role": "user", "content": [IMAGE]}], 0, "shows 1 pictures; 0 came"),
        ([{"role": "user", "content": [IMAGE]}], 2, "shows 1 pictures; 2 came"),
        ([{"role": "system", "content": "a"}], 1, "no message of the user"),
        ([{"role": "critic", "content": "a"}], 0, "the role 'critic'"),
        ([{"role": "assistant", "content": "", "tool_calls": [{"function": {}}]}], 0, "tool_calls is a list"),
        ([{"role": "user", "content": [{"type": "video"}]}], 0, "a block of a chat message"),
        ([{"role": "user", "content": [{"type": "text", "text": 1}]}], 0, "a block of a chat message"),
        ([{"role": "user", "content": "a"}] * 201, 0, "201 chat messages"),
        ([{"role": "user", "content": [text("a")] * 201}], 0, "201 blocks"),
    ],
)
def test_what_does_not_fit_is_refused(said: Any, pictures: int, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        chat_messages(said, pictures)


@pytest.mark.parametrize(
    "value", [[], [{}], [{"role": "user"}], [{"role": 1, "content": "a"}], [1], {"role": "user"}, 5]
)
def test_what_is_no_chat_is_no_value_of_the_kind(value: Any) -> None:
    assert not is_chat(value)
    with pytest.raises(BadInputError, match=r"takes one text, or chat messages: a list of \{role, content\}"):
        check_kind("text", "chat", value)


def test_a_chat_or_one_text_is_a_value_of_the_kind() -> None:
    said = [{"role": "user", "content": "a"}]
    assert check_kind("text", "chat", said) == said
    assert check_kind("text", "chat", "a") == "a"
    assert check_kind("text", "chat", ["a"]) == "a"
