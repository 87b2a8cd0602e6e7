"""Where answers may go: a caller cannot make us write to our own documents."""

import pytest

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.reply_topics import check_reply_topic, is_client_inbox

ROOT = "s2m3/v1"


@pytest.mark.parametrize("topic", ["s2m3/v1/client/me/in", "s2m3/v1/client/node-pi5/in"])
def test_a_client_s_inbox_takes_answers(topic: str) -> None:
    assert is_client_inbox(ROOT, topic)
    assert check_reply_topic(ROOT, "porch", topic) == topic


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


@pytest.mark.parametrize(
    "topic", [None, "home/answers", "s2m3", "s2m3/v10/x", "s2m3/v1/response/porch", "a" * 512, "/".join("a" * 50)]
)
def test_a_plain_request_may_be_answered_outside_our_root_and_where_its_tasks_answers_go(topic: str | None) -> None:
    assert check_reply_topic(ROOT, "porch", topic) == topic


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("", "is empty"),
        (ROOT, "under"),
        ("s2m3/v1/plan/pi5", "under"),
        ("s2m3/v1/task/porch", "under"),
        ("s2m3/v1/control/drain", "under"),
        ("s2m3/v1/response/porch/more", "under"),
        ("s2m3/v1/client/a/b/in", "under"),
        ("home/+/answers", "wildcard"),
        ("home/#", "wildcard"),
        ("$SYS/x", "the broker's own"),
        ("$share/g/x", "the broker's own"),
        ("a\0b", "characters"),
    ],
)
def test_a_plain_request_cannot_have_us_write_to_documents_or_to_no_topic_at_all(topic: str, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        check_reply_topic(ROOT, "porch", topic)


@pytest.mark.parametrize(
    ("topic", "why"),
    [
        ("/".join(["a"] * 201), "201 levels"),
        ("/".join(["a"] * 51), "51 levels"),
        ("/" * 200, "201 levels"),
        ("a" * 513, "513 bytes"),
        ("\u00e4" * 257, "514 bytes"),
        ("a/\x01", "characters"),
        ("a/\x7f", "characters"),
        ("a/\ufffe", "characters"),
        ("a/\U0001ffff", "characters"),
    ],
)
def test_29_a_response_topic_that_a_broker_cuts_its_publisher_for_is_refused(topic: str, why: str) -> None:
    with pytest.raises(BadInputError, match=why):
        check_reply_topic(ROOT, "porch", topic)


def test_29_a_refusal_shows_a_bounded_part_of_the_topic() -> None:
    with pytest.raises(BadInputError) as refused:
        check_reply_topic(ROOT, "porch", "a" * 60_000)
    assert len(refused.value.detail) < 200


def test_30_a_caller_of_one_task_cannot_answer_for_another() -> None:
    with pytest.raises(BadInputError, match="neither a client's inbox nor s2m3/v1/response/porch"):
        check_reply_topic(ROOT, "porch", "s2m3/v1/response/doorbell")
