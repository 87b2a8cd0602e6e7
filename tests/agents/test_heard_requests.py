"""Plain requests that listeners heard at several brokers: which of them nobody took, and each once."""

from functools import partial
from typing import Any

import pytest

from s2m3.agents.gateway.heard_requests import HeardRequests
from s2m3.agents.gateway.open_request import id_for, is_private, kind_of, request_answered_by
from s2m3.broker.mqtt.message import Message
from s2m3.schemas.errors import BusyError
from s2m3.schemas.ids import shown_id
from s2m3.schemas.settings import BrokerSettings
from s2m3.schemas.wire.plain import encode_plain_error, encode_plain_piece, encode_plain_result

MB = 1_000_000
KIND = partial(kind_of, BrokerSettings())


def request(text: str, correlation: bytes | None = None, **other: Any) -> Message:
    return Message(other.pop("topic", "request/t"), text.encode(), correlation=correlation, **other)


def missing(heard: HeardRequests, until: float = 0.0, claimed_until: float = 0.0) -> list[tuple[int, bytes]]:
    return [(listener, message.payload) for listener, message in heard.take_missing(until, claimed_until)]


def test_what_listeners_heard_and_the_session_did_not_bring_is_missing_once() -> None:
    heard = HeardRequests(KIND)
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
    heard = HeardRequests(KIND)
    heard.heard(0, request("same"), 0.0)
    for _ in range(3):
        heard.heard(1, request("same"), 0.0)
    heard.heard(1, request("same", reply_to="another's"), 0.0)
    assert not heard.came(request("same"), 0.0)
    found = heard.take_missing(0.0, 0.0)
    assert [(number, message.reply_to) for number, message in found] == [(1, None), (1, None), (1, "another's")]


PRIVATE: dict[str, Any] = {"correlation": b"1", "reply_to": "theirs"}


@pytest.mark.parametrize(
    "other",
    [
        request("same", topic="request/other", **PRIVATE),
        request("same", b"1", reply_to="mine"),
        request("same", b"2", reply_to="theirs"),
        request("no", **PRIVATE),
        request("same"),
    ],
    ids=["topic", "response topic", "correlation data", "payload", "the shared response topic"],
)
def test_requests_that_differ_are_told_apart(other: Message) -> None:
    heard = HeardRequests(KIND)
    heard.heard(0, request("same", **PRIVATE), 0.0)
    assert not heard.came(other, 0.0)
    assert missing(heard) == [(0, b"same")]


def test_a_request_that_only_the_session_brought_is_not_missing() -> None:
    heard = HeardRequests(KIND)
    assert not heard.came(request("quick"), 0.0)
    assert not heard.came(request("quick"), 0.0)
    heard.heard(0, request("quick"), 0.0)
    heard.heard(0, request("quick"), 0.0)
    assert missing(heard) == []
    heard.heard(0, request("quick"), 0.0)
    assert missing(heard) == [(0, b"quick")]


def test_requests_that_were_taken_count_as_brought_when_the_session_brings_them_late() -> None:
    heard = HeardRequests(KIND)
    for _ in range(3):
        heard.heard(0, request("same"), 0.0)
    assert missing(heard) == [(0, b"same")] * 3
    assert [heard.came(request("same"), 1.0) for _ in range(2)] == [True, True]
    heard.heard(0, request("same"), 1.0)
    assert missing(heard, 1.0) == [(0, b"same")]
    assert [heard.came(request("same"), 2.0) for _ in range(3)] == [True, True, False]
    assert missing(heard, 2.0) == []


def test_what_was_heard_again_just_now_may_still_come() -> None:
    heard = HeardRequests(KIND)
    heard.heard(0, request("same"), 0.0)
    heard.heard(1, request("same"), 5.0)
    assert missing(heard, 4.9) == []
    assert missing(heard, 5.0) == [(0, b"same")]


@pytest.mark.parametrize(("at", "known"), [(29.9, True), (30.0, True), (30.1, False)])
def test_requests_are_remembered_for_half_a_minute(*, at: float, known: bool) -> None:
    heard = HeardRequests(KIND)
    heard.heard(0, request("old"), 0.0)
    heard.heard(0, request("new"), at)
    assert [payload for _, payload in missing(heard, at)] == ([b"old", b"new"] if known else [b"new"])


def test_the_oldest_are_forgotten_beyond_16_mb_of_payload_together() -> None:
    heard = HeardRequests(KIND)
    for n in range(4):
        heard.heard(0, request(chr(65 + n) * 8 * MB), 40.0)
    assert [payload[:1] for _, payload in missing(heard, 40.0)] == [b"B", b"C", b"D"]  # 24 MB: the next one makes room
    heard.heard(0, request("a word"), 40.0)
    heard.heard(0, request("two words"), 40.0)  # 16 MB and a word are there
    assert heard.came(request("D" * 8 * MB), 40.0)
    assert not heard.came(request("C" * 8 * MB), 40.0)


def test_exactly_16_mb_of_payload_are_remembered() -> None:
    heard = HeardRequests(KIND)
    for letter in "ABC":
        heard.heard(0, request(letter * 8 * MB), 0.0)
        assert len(missing(heard)) == 1
    assert heard.came(request("B" * 8 * MB), 0.0)


def test_a_request_is_left_to_who_claims_it_until_the_claims_end() -> None:
    heard = HeardRequests(KIND)
    heard.heard(0, request("theirs"), 0.0)
    heard.claimed([KIND(request("theirs")), KIND(request("never heard"))], 3.0)
    heard.heard(0, request("nobody's"), 0.0)
    assert sorted(heard.missing()) == sorted([KIND(request("theirs")), KIND(request("nobody's"))])
    assert missing(heard, 9.0, 2.9) == [(0, b"nobody's")]
    assert heard.missing() == [KIND(request("theirs"))]
    assert missing(heard, 9.0, 3.0) == [(0, b"theirs")]
    assert missing(heard, 9.0, 9.0) == []


def test_a_request_that_was_answered_elsewhere_is_not_missing_nor_answered_again_when_the_session_brings_it() -> None:
    heard = HeardRequests(KIND)
    heard.answered([KIND(request("early"))], 0.0)  # the claims came before the request
    for text in ("early", "same", "same"):
        heard.heard(0, request(text), 0.0)
    heard.answered([KIND(request("same"))], 1.0)
    assert missing(heard) == [(0, b"same")]  # they were two
    assert [heard.came(request("same"), 2.0) for _ in range(3)] == [True, True, False]
    assert heard.came(request("early"), 2.0)


def test_a_taken_request_that_was_dropped_is_missing_again() -> None:
    heard = HeardRequests(KIND)
    heard.heard(0, request("dropped"), 0.0)
    heard.released(KIND(request("dropped")))  # it was never taken
    heard.released(KIND(request("never heard")))
    assert missing(heard) == [(0, b"dropped")]
    heard.released(KIND(request("dropped")))
    assert missing(heard) == [(0, b"dropped")]
    assert missing(heard) == []


def test_of_ten_thousand_kinds_the_oldest_are_forgotten_and_no_other() -> None:
    heard = HeardRequests(KIND)
    heard.claimed(["first", "second"], 1.0)
    heard.claimed(map(str, range(9_998)), 1.0)
    heard.claimed(["first"], 2.0)  # all are known: nothing makes room
    heard.heard(0, request("new"), 2.0)
    heard.answered(["first", "second"], 2.0)
    assert missing(heard, 2.0, 2.0) == [(0, b"new")]
    heard.claimed(map(str, range(10_000, 20_001)), 2.0)
    assert missing(heard, 9.0, 9.0) == []
    assert heard.missing() == []


def test_a_request_is_answered_at_the_broker_where_it_was_heard_and_at_our_own_where_it_was_heard_too() -> None:
    heard, name = HeardRequests(KIND), KIND(request("same"))
    assert heard.listener_of(name, 0) is None
    heard.claimed([name], 0.0)
    assert heard.listener_of(name, 0) is None
    heard.heard(1, request("same"), 0.0)
    assert heard.listener_of(name, 0) == 1
    heard.heard(0, request("same"), 0.0)
    assert [heard.listener_of(name, own) for own in (0, 1)] == [0, 1]
    heard.heard(1, request("same"), 0.0)  # the next one
    assert heard.listener_of(name, 0) == 1


def test_the_name_of_a_request_is_keyed_and_tells_all_parts_apart() -> None:
    one = request("a", reply_to="bc")
    assert len(KIND(one)) == 17
    assert is_private(KIND(one))
    assert KIND(one) != KIND(request("ab", reply_to="c"))
    assert KIND(one) != kind_of(BrokerSettings(root="other"), one)
    assert KIND(one) != kind_of(BrokerSettings(session_key="0123456789abcdef"), one)  # type: ignore[arg-type]
    assert KIND(one) == kind_of(BrokerSettings(host="elsewhere"), one)


@pytest.mark.parametrize("transaction", [None, 7, 'a "quoted", "request": "1"', "x" * 256])
def test_an_answer_shows_the_name_of_its_request(transaction: str | int | None) -> None:
    message = request("a", b"whatever its correlation")
    ours = id_for(BrokerSettings(), message)
    error = encode_plain_error(BusyError("full"), request=ours, transaction=transaction)
    result = encode_plain_result(
        answer="x" * 9_000,
        outputs={},
        timings={},
        latency_ms=1,
        attempts=1,
        request=ours,
        transaction=transaction,
        model="m",
    )
    for answer in (error, result[:4_096]):
        found = request_answered_by(answer)
        assert found == shown_id(ours)
        assert found[:16] == KIND(message)
        assert not is_private(KIND(message))
    assert request_answered_by(encode_plain_piece(at=0, text="a", seq=1, request=ours, transaction=transaction)) is None
    assert request_answered_by(b"no answer") is None
