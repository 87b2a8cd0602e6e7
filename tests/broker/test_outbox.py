"""Messages on their way out: the bound, who is called when, and what a lost connection takes along."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.mqtt.outbox import Outbox
from s2m3.broker.mqtt.retained_backlog import RetainedBacklog
from s2m3.schemas.errors import BusyError, S2M3Error, TooLargeError, UnauthorisedError


class Wire:
    """Takes what an outbox hands on; packet ids count up from 1."""

    def __init__(self) -> None:
        self.sent: list[Outgoing] = []

    def publish(self, message: Outgoing) -> int:
        self.sent.append(message)
        return len(self.sent)

    @property
    def topics(self) -> list[str]:
        return [message.topic for message in self.sent]


def made(limit: int = 1_000) -> tuple[Outbox, list[UnauthorisedError]]:
    refused: list[UnauthorisedError] = []
    return Outbox("client-7", limit, refused.append), refused


def message(topic: str = "t", qos: int = 1, size: int = 1) -> Outgoing:
    return Outgoing(topic, b"x" * size, qos=qos)


def told(calls: list[str], name: str) -> Callable[..., Any]:
    return lambda *_: calls.append(name)


def test_what_waits_is_handed_on_once_in_the_order_it_came() -> None:
    outbox, _ = made()
    wire = Wire()
    for topic in ("a", "b", "c"):
        outbox.add(message(topic), None, None, None)
    outbox.flush(wire.publish, connected=True, now=0.0)
    outbox.flush(wire.publish, connected=True, now=0.0)
    assert wire.topics == ["a", "b", "c"]


def test_without_a_connection_qos_1_waits_for_the_next_and_qos_0_is_lost() -> None:
    outbox, _ = made()
    wire = Wire()
    for topic, qos in (("kept", 1), ("lost", 0), ("kept too", 1)):
        outbox.add(message(topic, qos=qos), None, None, None)
        outbox.flush(wire.publish, connected=False, now=0.0)
    assert wire.topics == []
    outbox.flush(wire.publish, connected=True, now=1.0)
    assert wire.topics == ["kept", "kept too"]


def test_with_a_connection_qos_0_is_sent_too() -> None:
    outbox, _ = made()
    wire = Wire()
    outbox.add(message("now", qos=0), None, None, None)
    outbox.flush(wire.publish, connected=True, now=0.0)
    assert wire.topics == ["now"]


def test_a_message_counts_until_it_is_acknowledged() -> None:
    outbox, _ = made()
    outbox.add(message(), None, None, None)
    assert len(outbox) == 1
    outbox.flush(Wire().publish, connected=True, now=0.0)
    assert len(outbox) == 1
    outbox.acknowledged(1, None, has_subscribers=True)
    assert len(outbox) == 0


def test_a_lost_connection_forgets_what_was_sent_with_qos_0_and_keeps_the_rest() -> None:
    outbox, _ = made()
    outbox.add(message(qos=0), None, None, None)
    outbox.add(message(qos=1), None, None, None)
    outbox.flush(Wire().publish, connected=True, now=0.0)
    outbox.connection_lost(1.0, was_up=True)
    assert len(outbox) == 1


def test_the_bytes_of_payloads_count_until_they_are_acknowledged_dropped_or_replaced() -> None:
    outbox, _ = made()
    outbox.add(message("a", size=5), None, None, None)
    outbox.add(message("b", size=7, qos=0), None, None, None)
    assert outbox.nbytes == 12
    outbox.flush(Wire().publish, connected=True, now=0.0)
    assert outbox.nbytes == 12
    outbox.connection_lost(1.0, was_up=True)  # what had QoS 0 is not sent again
    assert outbox.nbytes == 5
    outbox.add(message("c", size=1), None, None, None)
    outbox.add(message("d", size=2, qos=0), None, None, None)
    outbox.flush(Wire().publish, connected=False, now=1.0)
    assert outbox.nbytes == 6
    outbox.flush(Wire().publish, connected=True, now=2.0)
    outbox.acknowledged(2, None, has_subscribers=True)
    outbox.acknowledged(2, None, has_subscribers=True)
    assert outbox.nbytes == 5
    for second in range(3, 20):  # always lost over it: a poison message
        outbox.connection_lost(second, was_up=True)
        outbox.isolate()
        outbox.flush(Wire().publish, connected=True, now=second + 0.1)
    assert (outbox.nbytes, len(outbox)) == (0, 0)


def test_what_was_not_acknowledged_is_sent_again_in_its_order_and_before_what_came_later() -> None:
    outbox, _ = made()
    wire = Wire()
    for topic in ("a", "b", "c"):
        outbox.add(message(topic), None, None, None)
    outbox.flush(wire.publish, connected=True, now=0.0)
    outbox.acknowledged(2, None, has_subscribers=True)
    outbox.connection_lost(1.0, was_up=True)
    outbox.add(message("d"), None, None, None)
    outbox.flush(wire.publish, connected=True, now=2.0)
    assert wire.topics == ["a", "b", "c", "a", "c", "d"]


def test_a_payload_of_the_limit_goes_and_one_byte_more_does_not() -> None:
    outbox, _ = made(limit=10)
    outbox.add(message(size=10), None, None, None)
    with pytest.raises(TooLargeError, match="11 bytes are over the limit of 10") as caught:
        outbox.add(message(size=11), None, None, None)
    assert (caught.value.size, caught.value.limit) == (11, 10)
    assert len(outbox) == 1
    outbox.limit = 20  # the broker of the next connection allows more
    outbox.add(message(size=11), None, None, None)


def test_two_thousand_messages_are_the_bound_whether_they_wait_or_were_sent() -> None:
    outbox, _ = made()
    for _ in range(1_000):
        outbox.add(message(), None, None, None)
    outbox.flush(Wire().publish, connected=True, now=0.0)
    for _ in range(1_000):
        outbox.add(message(), None, None, None)
    with pytest.raises(BusyError, match="2000 messages"):
        outbox.add(message(), None, None, None)
    outbox.acknowledged(1, None, has_subscribers=True)
    outbox.add(message(), None, None, None)


def test_there_is_room_for_what_could_be_left_out_while_fewer_than_a_quarter_of_the_bound_wait() -> None:
    outbox, _ = made()
    for _ in range(499):
        outbox.add(message(), None, None, None)
    assert outbox.has_room
    outbox.add(message(), None, None, None)
    assert not outbox.has_room


def one(
    *, on_no_subscribers: bool = True, on_refused: bool = True
) -> tuple[Outbox, list[str], list[UnauthorisedError]]:
    """A message that was sent, with what is called for it."""
    outbox, refused = made()
    calls: list[str] = []
    outbox.add(
        message("where/to"),
        told(calls, "delivered"),
        told(calls, "no subscribers") if on_no_subscribers else None,
        told(calls, "refused") if on_refused else None,
    )
    outbox.flush(Wire().publish, connected=True, now=0.0)
    return outbox, calls, refused


def test_the_acknowledgement_is_told_once() -> None:
    outbox, calls, _ = one()
    outbox.acknowledged(2, None, has_subscribers=True)
    assert calls == []
    outbox.acknowledged(1, None, has_subscribers=True)
    outbox.acknowledged(1, None, has_subscribers=True)
    assert calls == ["delivered"]


def test_that_nobody_is_subscribed_is_told_instead_of_the_delivery() -> None:
    outbox, calls, _ = one()
    outbox.acknowledged(1, None, has_subscribers=False)
    assert calls == ["no subscribers"]


def test_who_does_not_ask_whether_anybody_is_subscribed_is_told_of_the_delivery() -> None:
    outbox, calls, _ = one(on_no_subscribers=False)
    outbox.acknowledged(1, None, has_subscribers=False)
    assert calls == ["delivered"]


def test_a_refusal_is_told_to_the_message_that_asks_for_it_and_to_the_link_otherwise() -> None:
    outbox, calls, refused = one()
    outbox.acknowledged(1, "Not authorized", has_subscribers=True)
    assert (calls, refused) == (["refused"], [])
    outbox, calls, refused = one(on_refused=False)
    outbox.acknowledged(1, "Not authorized", has_subscribers=True)
    assert calls == []
    (error,) = refused
    assert error.code == "unauthorised"
    assert error.detail == (
        "the broker does not let client-7 publish on where/to; "
        "this login has another role or name (s2m3 secure ls), or its rights were taken back"
    )


def test_a_refused_message_is_told_the_error_itself() -> None:
    outbox, _ = made()
    errors: list[S2M3Error] = []
    outbox.add(message("where/to"), on_refused=errors.append)
    outbox.flush(Wire().publish, connected=True, now=0.0)
    outbox.acknowledged(1, "Not authorized", has_subscribers=True)
    assert [error.code for error in errors] == ["unauthorised"]


def test_another_reason_not_to_take_a_message_is_logged_and_counts_as_delivered() -> None:
    outbox, calls, refused = one()
    outbox.acknowledged(1, "Quota exceeded", has_subscribers=True)
    assert (calls, refused) == (["delivered"], [])


def test_a_message_without_callbacks_is_acknowledged_in_silence() -> None:
    outbox, refused = made()
    outbox.add(message(), None, None, None)
    outbox.flush(Wire().publish, connected=True, now=0.0)
    outbox.acknowledged(1, None, has_subscribers=False)
    assert (len(outbox), refused) == (0, [])


def test_nothing_is_lost_of_what_other_threads_add_while_the_connection_is_away() -> None:
    outbox, _ = made()
    wire = Wire()
    begun = threading.Barrier(3)

    def add(name: str) -> None:
        begun.wait()
        for n in range(500):
            outbox.add(message(f"{name}/{n}"))

    threads = [threading.Thread(target=add, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    begun.wait()
    while any(thread.is_alive() for thread in threads):
        outbox.flush(wire.publish, connected=False, now=0.0)
    outbox.flush(wire.publish, connected=True, now=0.0)
    for name in ("a", "b"):
        assert [topic for topic in wire.topics if topic.startswith(name)] == [f"{name}/{n}" for n in range(500)]


def test_41_a_queue_full_of_answers_takes_a_nodes_state_and_load_all_the_same() -> None:
    outbox, _ = made()
    for _ in range(2_000):
        outbox.add(message("answer"))
    with pytest.raises(BusyError):
        outbox.add(message("answer"))
    for _ in range(250):
        outbox.add(message("load", qos=0))
        outbox.add(Outgoing("state", b"ready", retain=True))
    with pytest.raises(BusyError):
        outbox.add(message("load", qos=0))


def retained(topic: str, payload: bytes = b"x") -> Outgoing:
    return Outgoing(topic, payload, retain=True)


def test_retained_documents_beyond_the_bound_wait_and_follow_as_others_are_acknowledged() -> None:
    outbox, _ = made()
    wire = Wire()
    topics = [f"plan/{number}" for number in range(6_000)]
    for topic in topics:
        outbox.add(retained(topic))
        outbox.flush(wire.publish, connected=True, now=0.0)
    assert (len(outbox), outbox.nbytes, outbox.waits, outbox.has_room) == (6_000, 6_000, True, False)
    assert len(wire.sent) == 2_500
    with pytest.raises(BusyError):
        outbox.add(message("answer"))
    for mid in range(1, 6_001):
        outbox.acknowledged(mid, None, has_subscribers=True)
        outbox.flush(wire.publish, connected=True, now=0.0)
        assert len(wire.sent) <= max(2_500, mid + 2_000)
    assert wire.topics == topics
    assert (len(outbox), outbox.nbytes, outbox.waits, outbox.has_room) == (0, 0, False, True)


def test_of_a_topic_that_waits_the_newest_document_is_sent_behind_what_was_added_before_it() -> None:
    outbox, _ = made()
    wire, calls = Wire(), list[str]()
    for number in range(2_500):
        outbox.add(retained(f"t{number}"))
    outbox.add(retained("route", b"first"), told(calls, "first"))
    outbox.add(retained("plan", b"older"))
    outbox.add(retained("route", b"second!"), told(calls, "second"))
    assert calls == ["first"]
    assert outbox.nbytes == 2_500 + len(b"older") + len(b"second!")
    outbox.flush(wire.publish, connected=True, now=0.0)
    for mid in range(1, 2_503):
        outbox.acknowledged(mid, None, has_subscribers=True)
        outbox.flush(wire.publish, connected=True, now=0.0)
    assert [(one.topic, one.payload) for one in wire.sent[2_500:]] == [("plan", b"older"), ("route", b"second!")]
    assert calls == ["first", "second"]


def test_a_retained_document_goes_to_the_queue_again_once_no_other_waits() -> None:
    outbox, _ = made()
    wire = Wire()
    for number in range(2_501):
        outbox.add(retained(f"t{number}"))
    outbox.flush(wire.publish, connected=True, now=0.0)
    for mid in range(1, 502):
        outbox.acknowledged(mid, None, has_subscribers=True)
    outbox.flush(wire.publish, connected=True, now=0.0)
    assert not outbox.waits
    outbox.add(retained("later"))
    outbox.flush(wire.publish, connected=True, now=0.0)
    assert wire.topics[-2:] == ["t2500", "later"]


def test_what_waits_in_the_backlog_outlives_a_lost_connection_and_goes_behind_what_was_sent() -> None:
    outbox, _ = made()
    wire, again = Wire(), Wire()
    for number in range(2_600):
        outbox.add(retained(f"t{number}"))
    outbox.flush(wire.publish, connected=True, now=0.0)
    outbox.connection_lost(1.0, was_up=False)
    outbox.flush(wire.publish, connected=False, now=1.0)
    outbox.flush(again.publish, connected=True, now=2.0)
    for mid in range(1, 2_601):
        outbox.acknowledged(mid, None, has_subscribers=True)
        outbox.flush(again.publish, connected=True, now=2.0)
    assert again.topics == [f"t{number}" for number in range(2_600)]


def test_documents_of_fifty_thousand_topics_are_the_bound_of_the_backlog() -> None:
    backlog = RetainedBacklog[int]()
    for number in range(50_000):
        assert backlog.put(f"t{number}", number, 2) is None
    with pytest.raises(BusyError, match="50000 retained messages"):
        backlog.put("one more", 0, 2)
    assert backlog.put("t7", 70, 5) == 7
    assert (len(backlog), backlog.nbytes) == (50_000, 100_003)
    assert backlog.take() == 0
    assert (len(backlog), backlog.nbytes) == (49_999, 100_001)
    assert list(iter(backlog.take, None))[-1] == 70
    assert (backlog.take(), backlog.nbytes) == (None, 0)
