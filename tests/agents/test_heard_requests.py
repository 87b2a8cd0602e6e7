"""Plain requests that listeners heard at several brokers: which of them the session never brought, and each once."""

from typing import Any

import pytest

from s2m3.agents.gateway.heard_requests import HeardRequests
from s2m3.broker.mqtt.message import Message

MB = 1_000_000


def request(text: str, correlation: bytes | None = None, **other: Any) -> Message:
    return Message(other.pop("topic", "request/t"), text.encode(), correlation=correlation, **other)


def missing(heard: HeardRequests, until: float = 0.0) -> list[tuple[int, bytes]]:
    return [(listener, message.payload) for listener, message in heard.take_missing(until)]


def test_what_listeners_heard_and_the_session_did_not_bring_is_missing_once() -> None:
    heard = HeardRequests()
    for listener in (0, 1):
        heard.heard(listener, request("came"), 0.0)
        heard.heard(listener, request("waited"), 0.0)
    assert not heard.came(request("came"), 0.0)
    assert missing(heard, -0.1) == []  # the session may bring it yet
    assert missing(heard) == [(0, b"waited")]
    assert missing(heard) == []
    assert heard.came(request("waited"), 1.0)  # the session brings it after all: it was answered
    assert not heard.came(request("waited"), 2.0)  # another caller asks the same


def test_equal_requests_count_each_and_one_that_a_broker_that_died_did_not_show_counts_too() -> None:
    heard = HeardRequests()
    heard.heard(0, request("same"), 0.0)
    for _ in range(3):
        heard.heard(1, request("same"), 0.0)
    heard.heard(1, request("same", b"another's"), 0.0)
    assert not heard.came(request("same"), 0.0)
    found = heard.take_missing(0.0)
    assert [(number, message.correlation) for number, message in found] == [(1, None), (1, None), (1, b"another's")]


@pytest.mark.parametrize(
    "other",
    [request("same", topic="request/other"), request("same", reply_to="mine"), request("same", b"mine"), request("no")],
    ids=["topic", "response topic", "correlation data", "payload"],
)
def test_requests_that_differ_are_told_apart(other: Message) -> None:
    heard = HeardRequests()
    heard.heard(0, request("same"), 0.0)
    assert not heard.came(other, 0.0)
    assert missing(heard) == [(0, b"same")]


def test_a_request_that_only_the_session_brought_is_not_missing() -> None:
    heard = HeardRequests()
    assert not heard.came(request("quick"), 0.0)
    assert not heard.came(request("quick"), 0.0)
    heard.heard(0, request("quick"), 0.0)
    heard.heard(0, request("quick"), 0.0)
    assert missing(heard) == []
    heard.heard(0, request("quick"), 0.0)
    assert missing(heard) == [(0, b"quick")]


def test_requests_that_were_taken_count_as_brought_when_the_session_brings_them_late() -> None:
    heard = HeardRequests()
    for _ in range(3):
        heard.heard(0, request("same"), 0.0)
    assert missing(heard) == [(0, b"same")] * 3
    assert [heard.came(request("same"), 1.0) for _ in range(2)] == [True, True]
    heard.heard(0, request("same"), 1.0)
    assert missing(heard, 1.0) == [(0, b"same")]
    assert [heard.came(request("same"), 2.0) for _ in range(3)] == [True, True, False]
    assert missing(heard, 2.0) == []


def test_what_was_heard_again_just_now_may_still_come() -> None:
    heard = HeardRequests()
    heard.heard(0, request("same"), 0.0)
    heard.heard(1, request("same"), 5.0)
    assert missing(heard, 4.9) == []
    assert missing(heard, 5.0) == [(0, b"same")]


@pytest.mark.parametrize(("at", "known"), [(29.9, True), (30.0, True), (30.1, False)])
def test_requests_are_remembered_for_half_a_minute(*, at: float, known: bool) -> None:
    heard = HeardRequests()
    heard.heard(0, request("old"), 0.0)
    heard.heard(0, request("new"), at)
    assert [payload for _, payload in missing(heard, at)] == ([b"old", b"new"] if known else [b"new"])


def test_the_oldest_are_forgotten_beyond_16_mb_of_payload_together() -> None:
    heard = HeardRequests()
    for n in range(4):
        heard.heard(0, request(chr(65 + n) * 8 * MB), 40.0)
    assert [payload[:1] for _, payload in missing(heard, 40.0)] == [b"B", b"C", b"D"]  # 24 MB: the next one makes room
    heard.heard(0, request("a word"), 40.0)
    heard.heard(0, request("two words"), 40.0)  # 16 MB and a word are there
    assert heard.came(request("D" * 8 * MB), 40.0)
    assert not heard.came(request("C" * 8 * MB), 40.0)


def test_exactly_16_mb_of_payload_are_remembered() -> None:
    heard = HeardRequests()
    for letter in "ABC":
        heard.heard(0, request(letter * 8 * MB), 0.0)
        assert len(missing(heard)) == 1
    assert heard.came(request("B" * 8 * MB), 0.0)
