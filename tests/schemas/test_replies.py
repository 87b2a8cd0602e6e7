"""Where answers may go: a caller cannot make us write to our own documents."""

import pytest

from s2m3.schemas.wire.reply_topics import is_client_inbox, may_answer_at

ROOT = "s2m3/v1"


@pytest.mark.parametrize("topic", ["s2m3/v1/client/me/in", "s2m3/v1/client/node-pi5/in"])
def test_a_client_s_inbox_takes_answers(topic: str) -> None:
    assert is_client_inbox(ROOT, topic)
    assert may_answer_at(ROOT, topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "s2m3/v1/client/+/in",
        "s2m3/v1/client/#",
        "s2m3/v1/client//in",
        "s2m3/v1/client/me/out",
        "s2m3/v1/client/a/b/in",
        "s2m3/v1/module/m/n/in",
        "other/client/me/in",
        "$SYS/client/me/in",
    ],
)
def test_the_data_plane_answers_nowhere_else(topic: str) -> None:
    assert not is_client_inbox(ROOT, topic)


@pytest.mark.parametrize("topic", [None, "home/answers", "s2m3", "s2m3/v10/x", "s2m3/v1/response/porch"])
def test_a_plain_request_may_be_answered_outside_our_root_and_where_answers_go(topic: str | None) -> None:
    assert may_answer_at(ROOT, topic)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        ROOT,
        "s2m3/v1/plan/pi5",
        "s2m3/v1/task/porch",
        "s2m3/v1/control/drain",
        "s2m3/v1/response/porch/more",
        "home/+/answers",
        "home/#",
        "$SYS/x",
        "$share/g/x",
        "a\0b",
    ],
)
def test_a_plain_request_cannot_have_us_write_to_documents_or_to_no_topic_at_all(topic: str) -> None:
    assert not may_answer_at(ROOT, topic)
