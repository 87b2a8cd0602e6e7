"""Messages over which every connection is lost are found, dropped and told; the restarts of a broker make none so."""

import random
from dataclasses import dataclass, field

import pytest

from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.mqtt.outbox import Outbox
from s2m3.schemas.errors import S2M3Error, TooLargeError


@dataclass
class Broker:
    """A broker and a link's clock: takes what is sent, and ends the connection over a topic that it does not bear."""

    hates: set[str] = field(default_factory=set)
    now: float = 0.0
    taken: list[str] = field(default_factory=list)
    dropped: list[tuple[str, S2M3Error]] = field(default_factory=list)
    losses: int = 0

    def __post_init__(self) -> None:
        self.outbox = Outbox("client-7", 100_000, lambda _: None)
        self._wire: list[Outgoing] = []

    def add(self, topic: str, *, qos: int = 1, retain: bool = False, payload: bytes = b"x") -> None:
        def told(error: S2M3Error) -> None:
            self.dropped.append((topic, error))

        self.outbox.add(Outgoing(topic, payload, qos=qos, retain=retain), None, None, told)

    def send(self, message: Outgoing) -> int:
        self._wire.append(message)
        return len(self._wire)

    def flush(self) -> list[str]:
        """Returns what was sent and is not acknowledged."""
        before = len(self._wire)
        self.outbox.flush(self.send, connected=True, now=self.now)
        return [message.topic for message in self._wire[before:]]

    def lose(self) -> None:
        self.losses += 1
        self.outbox.connection_lost(self.now, was_up=True)
        self._wire.clear()

    def connection(self, seconds: float = 1.0) -> bool:
        """One connection; returns whether it lasts. The suspects are sent after half of its time."""
        self.now += 0.1
        for at in (0.0, seconds / 2):
            self.now += at
            if at:
                self.outbox.isolate()
            while topics := self.flush():
                first = len(self._wire) - len(topics) + 1
                for mid, topic in enumerate(topics, first):
                    if topic in self.hates:
                        self.lose()
                        return False
                    self.taken.append(topic)
                    self.outbox.acknowledged(mid, None, has_subscribers=True)
        self.outbox.resume()
        return True


def test_29_a_message_that_ends_every_connection_is_dropped_told_and_the_others_arrive() -> None:
    broker = Broker(hates={"poison"})
    for topic in ("a", "poison", "b", "c"):
        broker.add(topic)
    while not broker.connection():
        assert broker.losses < 10
    ((topic, error),) = broker.dropped
    assert (topic, error.code, error.retriable) == ("poison", "bad_input", False)
    assert "each time" in error.detail
    assert set(broker.taken) == {"a", "b", "c"}
    assert broker.losses == 4
    assert len(broker.outbox) == 0


def test_29_many_such_messages_are_each_found_while_others_arrive() -> None:
    broker = Broker(hates={f"poison {n}" for n in range(10)})
    for n in range(10):
        broker.add(f"good {n}")
        broker.add(f"poison {n}")
    while not broker.connection():
        broker.add(f"later {broker.losses}")
        assert broker.losses < 100
    assert sorted(topic for topic, _ in broker.dropped) == sorted(broker.hates)
    assert {f"good {n}" for n in range(10)} <= set(broker.taken)
    assert f"later {broker.losses}" in broker.taken


def test_a_message_in_flight_at_one_loss_is_sent_again_at_once() -> None:
    broker = Broker()
    broker.add("a")
    assert broker.flush() == ["a"]
    broker.lose()
    assert broker.outbox.suspects == 0
    assert broker.flush() == ["a"]


def test_a_message_in_flight_at_two_losses_waits_until_the_connection_has_lasted_and_goes_alone() -> None:
    broker = Broker()
    for topic in ("a", "b"):
        broker.add(topic)
    for _ in range(2):
        assert broker.flush() == ["a", "b"]
        broker.lose()
    broker.add("c")
    assert broker.flush() == ["c"]
    broker.outbox.isolate()
    assert broker.flush() == []  # the acknowledgement of c is awaited: alone means alone
    broker.outbox.acknowledged(1, None, has_subscribers=True)
    assert broker.flush() == ["a"]
    assert broker.flush() == []
    broker.outbox.acknowledged(2, None, has_subscribers=True)
    assert broker.flush() == ["b"]
    broker.add("d")
    assert broker.flush() == []
    broker.outbox.acknowledged(3, None, has_subscribers=True)
    assert broker.flush() == ["d"]
    assert broker.dropped == []


def test_an_acknowledgement_that_does_not_come_holds_the_others_back_for_a_bounded_time() -> None:
    broker = Broker()
    for topic in ("a", "b"):
        broker.add(topic)
    for _ in range(2):
        broker.flush()
        broker.lose()
    broker.outbox.isolate()
    assert broker.flush() == ["a"]
    broker.add("c")
    broker.outbox.resume()
    assert broker.flush() == ["b", "c"]


def test_a_broker_that_restarts_again_and_again_drops_nothing() -> None:
    """Every connection is lost, at any moment, whatever is in flight; nothing is acknowledged until the end."""
    for seed in range(50):
        chance, broker = random.Random(seed), Broker()  # noqa: S311  # a test's chance
        for n in range(20):
            broker.add(f"t{n}")
        for _ in range(50):
            broker.now += chance.uniform(0.0, 2.0)
            if chance.random() < 0.8:
                broker.flush()
            broker.lose()
        while not broker.connection():
            pass
        assert broker.dropped == []
        assert {f"t{n}" for n in range(20)} == set(broker.taken)


def test_a_connection_that_is_lost_with_nothing_in_flight_clears_the_suspects() -> None:
    broker = Broker()
    broker.add("a")
    for _ in range(2):
        broker.flush()
        broker.lose()
    for _ in range(10):
        broker.outbox.isolate()
        assert broker.flush() == ["a"]
        broker.lose()
        broker.lose()  # and once more before the suspect is sent
    assert broker.dropped == []


def test_failed_attempts_to_connect_clear_nobody() -> None:
    broker = Broker(hates={"poison"})
    broker.add("poison")
    while not broker.connection():
        broker.outbox.connection_lost(broker.now, was_up=False)
        assert broker.losses < 10
    assert len(broker.dropped) == 1


def test_late_losses_as_of_a_dead_network_count_less() -> None:
    broker = Broker()
    broker.add("a")
    for _ in range(2):
        broker.flush()
        broker.lose()
    for alone in range(1, 6):
        assert broker.dropped == [], alone
        broker.outbox.isolate()
        assert broker.flush() == ["a"]
        broker.now += 7.0
        broker.lose()
    assert len(broker.dropped) == 1


def test_a_dropped_message_that_its_owner_publishes_on_every_connect_is_not_sent_again_for_a_while() -> None:
    broker = Broker(hates={"poison"})
    broker.add("poison", retain=True)
    while not broker.connection():
        assert broker.losses < 10
    losses = broker.losses
    broker.add("poison", retain=True)
    assert broker.connection()
    assert (len(broker.dropped), broker.losses) == (2, losses)
    broker.add("poison", retain=True, payload=b"another")
    assert not broker.connection()
    broker.now += 601.0
    broker.add("poison", retain=True)
    assert not broker.connection()


def test_an_older_retained_message_never_follows_a_newer_one() -> None:
    broker = Broker()
    broker.add("state", retain=True, payload=b"old")
    for _ in range(2):
        broker.flush()
        broker.lose()
    broker.add("state", retain=True, payload=b"new")
    assert broker.flush() == []
    broker.outbox.isolate()
    assert broker.flush() == ["state"]
    assert broker._wire[-1].payload == b"new"  # noqa: SLF001  # the test's own stand-in
    assert len(broker.outbox) == 1


def test_only_a_retained_message_on_the_same_topic_takes_a_suspects_place() -> None:
    broker = Broker()
    broker.add("state", retain=True, payload=b"old")
    broker.add("load", payload=b"plain")
    for _ in range(2):
        broker.flush()
        broker.lose()
    assert broker.outbox.nbytes == 8
    broker.add("other", retain=True, payload=b"other")
    broker.add("load", retain=True, payload=b"retained")
    assert broker.flush() == ["other", "load"]
    assert broker.outbox.suspects == 2
    broker.add("state", retain=True, payload=b"much newer")
    assert broker.flush() == []
    assert broker.outbox.nbytes == len(b"much newer") + len(b"plain") + len(b"other") + len(b"retained")


def test_what_follows_a_dropped_message_is_sent_at_once() -> None:
    broker = Broker(hates={"poison"})
    broker.add("poison")
    while not broker.connection():
        assert broker.losses < 10
    broker.add("poison")
    broker.add("after")
    assert broker.flush() == ["after"]
    assert len(broker.dropped) == 2


def test_that_a_message_was_dropped_is_told_to_who_asks_for_just_that() -> None:
    told: list[str] = []
    broker = Broker(hates={"poison"})
    broker.outbox.add(
        Outgoing("poison", b"x"), on_refused=lambda _: told.append("refused"), on_dropped=lambda _: told.append("drop")
    )
    while not broker.connection():
        assert broker.losses < 10
    assert told == ["drop"]


def test_nothing_is_isolated_before_and_after() -> None:
    broker = Broker()
    assert not broker.outbox.waits
    broker.add("a")
    for _ in range(2):
        broker.flush()
        broker.lose()
    assert not broker.outbox.waits
    broker.outbox.isolate()
    assert broker.outbox.waits
    assert broker.flush() == ["a"]
    broker.outbox.acknowledged(1, None, has_subscribers=True)
    broker.flush()
    assert not broker.outbox.waits
    broker.outbox.isolate()
    assert not broker.outbox.waits


def test_a_message_that_nobody_asks_after_counts_as_delivered_when_it_is_dropped() -> None:
    delivered: list[str] = []
    broker = Broker(hates={"poison"})
    broker.outbox.add(Outgoing("poison", b"x"), lambda: delivered.append("poison"))
    while not broker.connection():
        assert broker.losses < 10
    assert delivered == ["poison"]


def test_topic_and_properties_count_in_the_size_where_they_exceed_what_is_reserved_for_them() -> None:
    outbox = Outbox("client-7", 2_000, lambda _: None)
    outbox.add(Outgoing("t", bytes(2_000), correlation=bytes(1_000)))
    with pytest.raises(TooLargeError):
        outbox.add(Outgoing("t", bytes(2_000), correlation=bytes(1_100)))
    with pytest.raises(TooLargeError):
        outbox.add(Outgoing("t", b"", user=(("name", "x" * 4_000),)))
