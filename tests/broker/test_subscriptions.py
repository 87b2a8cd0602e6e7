"""Which handler gets a message, and in which order messages may be acknowledged."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from s2m3.broker.mqtt.message import Message
from s2m3.broker.mqtt.subscriptions import Acknowledgements, Handlers


class Heard:
    """Handlers that note which filter a message came by."""

    def __init__(self, *filters: str) -> None:
        self.handlers = Handlers()
        self.by: list[str] = []
        for name in filters:
            self.handlers.add(name, lambda _, name=name: self.by.append(name), 1)  # type: ignore[misc]

    def filters_of(self, topic: str) -> list[str]:
        self.by.clear()
        self.handlers.handle(Message(topic, b""))
        return list(self.by)


@pytest.mark.parametrize(
    ("topic_filter", "topic", "fits"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/c", False),
        ("a/b", "a", False),
        ("a", "a/b", False),
        ("+", "a", True),
        ("+", "a/b", False),
        ("+/b", "a/b", True),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/", True),
        ("a/+/c", "a/b/c", True),
        ("a/+/c", "a/b/d", False),
        ("a/+/c", "a/b/c/d", False),
        ("#", "a/b/c", True),
        ("a/#", "a/b/c", True),
        ("a/#", "a", True),
        ("a/#", "b/c", False),
        ("a/+/#", "a/b", True),
    ],
)
def test_a_filter_takes_the_topics_that_mqtt_says_it_does(topic_filter: str, topic: str, *, fits: bool) -> None:
    assert Heard(topic_filter).filters_of(topic) == ([topic_filter] if fits else [])


def test_the_handler_of_a_topic_itself_comes_before_those_of_wider_filters() -> None:
    heard = Heard("a/+", "a/b", "#")
    assert heard.filters_of("a/b") == ["a/b"]
    assert heard.filters_of("a/c") == ["a/+", "#"]


def test_a_handler_gets_the_message_itself() -> None:
    handlers, found = Handlers(), list[Message]()
    handlers.add("a/+", found.append, 1)
    message = Message("a/b", b"payload")
    handlers.handle(message)
    assert found == [message]


def test_it_is_said_whether_a_message_had_a_handler() -> None:
    handlers = Heard("a/b", "c/+").handlers
    assert handlers.handle(Message("a/b", b""))
    assert handlers.handle(Message("c/d", b""))
    assert not handlers.handle(Message("c/d/e", b""))


def test_a_second_handler_of_the_same_filter_replaces_the_first() -> None:
    handlers, found = Handlers(), list[str]()
    handlers.add("a", lambda _: found.append("first"), 0)
    handlers.add("a", lambda _: found.append("second"), 1)
    handlers.handle(Message("a", b""))
    assert found == ["second"]
    assert handlers.filters() == {"a": 1}


def test_one_that_was_removed_gets_nothing_and_removing_says_whether_it_was_there() -> None:
    heard = Heard("a", "b")
    assert heard.handlers.remove("a")
    assert not heard.handlers.remove("a")
    assert heard.filters_of("a") == []
    assert heard.handlers.filters() == {"b": 1}


def test_a_handler_may_add_and_remove_handlers() -> None:
    handlers = Handlers()
    found: list[str] = []

    def change(_: Message) -> None:
        handlers.remove("#")
        handlers.add("later/+", lambda _: found.append("later"), 1)

    handlers.add("#", change, 1)
    handlers.handle(Message("later/x", b""))
    handlers.handle(Message("later/x", b""))
    assert found == ["later"]


def test_messages_are_acknowledged_in_the_order_they_came_whenever_each_is_done() -> None:
    acks = Acknowledgements()
    for mid in (5, 3, 9):
        acks.came(mid)
    assert acks.done(9) == []
    assert acks.done(5) == [5]
    assert acks.done(3) == [3, 9]


def test_a_packet_id_may_be_used_again() -> None:
    acks = Acknowledgements()
    acks.came(5)
    assert acks.done(5) == [5]
    acks.came(5)
    acks.came(6)
    assert acks.done(6) == []
    assert acks.done(5) == [5, 6]


def test_another_connection_knows_nothing_of_the_last_ones_messages() -> None:
    acks = Acknowledgements()
    acks.came(1)
    acks.came(2)
    acks.done(2)
    acks.clear()
    acks.came(2)
    acks.came(3)
    assert acks.done(3) == []
    assert acks.done(2) == [2, 3]


@given(st.permutations(range(6)))
def test_whatever_is_done_first_all_are_acknowledged_in_order_in_the_end(order: list[int]) -> None:
    acks = Acknowledgements()
    for mid in range(6):
        acks.came(mid)
    assert [mid for done in order for mid in acks.done(done)] == list(range(6))


def test_a_filter_is_required_unless_its_handler_can_do_without_it() -> None:
    handlers = Handlers()
    handlers.add("needed", print, 1)
    handlers.add("extra", print, 1, required=False)
    assert handlers.is_required("needed")
    assert not handlers.is_required("extra")
