"""One link on a real broker of each kind: delivery, loss, return, takeover, refusal, bounds."""

import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from queue import Queue
from typing import Any
from unittest import mock

import paho.mqtt.client as paho
import psutil
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing, Will
from s2m3.broker.mqtt.properties import KEPT_BYTES
from s2m3.broker.servers.launch import Broker, BrokerKind, find_mosquitto, free_port
from s2m3.schemas.errors import BusyError, S2M3Error, TooLargeError, UnauthorisedError
from s2m3.schemas.sessions import node_client_id
from s2m3.schemas.settings import BrokerSettings
from tests.chaos.proxy import Proxy
from tests.conftest import WAIT_S, has_mosquitto
from tests.others import others_answered


@contextmanager
def linked(settings: BrokerSettings, loop: Loop, client_id: str, **options: Any) -> Iterator[Link]:
    link = Link(settings, client_id, loop, **options)
    link.start()
    try:
        yield link
    finally:
        link.stop()


def reached(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + WAIT_S
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def heard(link: Link, topic_filter: str) -> "Queue[Message]":
    messages: Queue[Message] = Queue()
    confirmed = threading.Event()
    link.subscribe(topic_filter, messages.put, on_subscribed=confirmed.set)
    assert confirmed.wait(WAIT_S)
    return messages


def test_all_documents_of_a_large_site_arrive_though_they_are_published_at_once(
    settings: BrokerSettings, loop: Loop
) -> None:
    with linked(settings, loop, "many-documents") as link, linked(settings, loop, "many-documents-read") as other:
        messages = heard(other, f"{settings.root}/many/+")
        published = threading.Event()

        def waits() -> None:
            published.wait(WAIT_S)

        loop.call(waits)  # nothing is acknowledged before all are added
        for number in range(5_000):
            link.publish(Outgoing(f"{settings.root}/many/{number}", b"document", retain=True))
        published.set()
        topics = [messages.get(timeout=WAIT_S).topic for _ in range(5_000)]
        assert topics == [f"{settings.root}/many/{number}" for number in range(5_000)]
        assert reached(lambda: link.has_room)


def test_a_message_arrives_with_its_properties(settings: BrokerSettings, loop: Loop) -> None:
    sent = Outgoing(
        f"{settings.root}/a",
        b"hello",
        reply_to="somewhere/else",
        correlation=b"1234",
        content_type="text/plain",
        expiry_s=9.2,
        user=(("step", "vision"), ("attempt", "1")),
    )
    with linked(settings, loop, "props-a") as a, linked(settings, loop, "props-b") as b:
        messages = heard(b, f"{settings.root}/+")
        a.publish(sent)
        got = messages.get(timeout=WAIT_S)
    assert (got.payload, got.reply_to, got.correlation, got.content_type) == (
        b"hello",
        "somewhere/else",
        b"1234",
        "text/plain",
    )
    assert got.user == {"step": "vision", "attempt": "1"}
    assert got.expiry_s is not None
    assert 0 < got.expiry_s <= 10


def test_a_document_without_properties_reaches_3_1_1_clients_who_stay_connected(
    shared_broker: Broker, settings: BrokerSettings, loop: Loop
) -> None:
    """On the embedded broker a message with properties would throw every 3.1.1 client off (docs/protocol.md)."""
    old: Queue[bytes] = Queue()
    subscribed = threading.Event()
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv311)
    client.on_message = lambda _c, _u, message: old.put(bytes(message.payload))
    client.on_subscribe = lambda *_: subscribed.set()
    client.connect("127.0.0.1", shared_broker.port_v3)
    client.loop_start()
    client.subscribe(f"{settings.root}/doc", qos=1)
    assert subscribed.wait(WAIT_S)
    with linked(settings, loop, "plain-doc") as link:
        for i in range(3):
            link.publish(Outgoing(f"{settings.root}/doc", b"%d" % i, retain=True))
        assert [old.get(timeout=WAIT_S) for _ in range(3)] == [b"0", b"1", b"2"]
    client.disconnect()
    client.loop_stop()


def test_subscriptions_and_unsent_messages_survive_a_restart_of_the_broker(kind: BrokerKind, loop: Loop) -> None:
    broker = Broker(kind).start()
    settings = BrokerSettings(port=broker.port)
    returned, left = threading.Event(), threading.Event()
    with linked(settings, loop, "back", on_connected=returned.set) as link:
        messages = heard(link, "a/+")
        broker.kill()
        loop.every(0.01, lambda: left.set() if not link.connected else None)
        assert left.wait(WAIT_S)
        returned.clear()
        link.publish(Outgoing("kept", b"published while it was away", retain=True))
        with Broker(kind, port=broker.port, port_v3=broker.port_v3 if kind == "embedded" else 0):
            assert returned.wait(WAIT_S)
            link.publish(Outgoing("a/c", b"after"))
            assert messages.get(timeout=WAIT_S).payload == b"after"
            assert heard(link, "kept").get(timeout=WAIT_S).payload == b"published while it was away"


def test_each_loss_is_told_and_each_return_once_messages_arrive_again(kind: BrokerKind, loop: Loop) -> None:
    told: Queue[str] = Queue()
    broker = Broker(kind).start()
    with linked(BrokerSettings(port=broker.port), loop, "watched") as link:
        messages = heard(link, "a/+")

        def up() -> None:
            told.put("up")
            link.publish(Outgoing("a/b", b"to ourselves"))

        link.on_connection_change(on_reconnect=up, on_disconnect=lambda: told.put("down"))
        for _ in range(2):
            broker.kill()
            assert told.get(timeout=WAIT_S) == "down"
            broker.start()
            assert told.get(timeout=WAIT_S) == "up"
            assert messages.get(timeout=WAIT_S).payload == b"to ourselves"
    broker.stop()
    assert told.empty()


def test_a_broker_with_persistence_remembers_over_a_restart(loop: Loop) -> None:
    if not has_mosquitto():
        pytest.skip("mosquitto is not installed")
    with Broker("mosquitto", persistence=True) as broker, linked(BrokerSettings(port=broker.port), loop, "p") as link:
        told = threading.Event()
        link.publish(Outgoing("kept", b"remembered", retain=True), on_delivered=told.set)
        assert told.wait(WAIT_S)
        broker.stop()
        broker.start()
        assert heard(link, "kept").get(timeout=WAIT_S).payload == b"remembered"


def test_the_embedded_broker_has_no_persistence() -> None:
    with pytest.raises(S2M3Error, match="mosquitto"):
        Broker("embedded", persistence=True)


def test_a_crash_leaves_the_last_will_and_a_goodbye_does_not(settings: BrokerSettings, loop: Loop) -> None:
    topic = f"{settings.root}/will"
    with linked(settings, loop, "will-watcher") as watcher:
        messages = heard(watcher, topic)
        with linked(settings, loop, "will-polite", will=Will(topic, b"polite")):
            pass
        crashed = Link(settings, "will-crash", loop, will=Will(topic, b"crashed"))
        crashed.start()
        crashed.abort()
        assert messages.get(timeout=WAIT_S).payload == b"crashed"


def test_what_was_not_acknowledged_goes_to_the_next_with_the_same_session(
    settings: BrokerSettings, loop: Loop, kind: BrokerKind
) -> None:
    topic = f"{settings.root}/work"
    session: dict[str, Any] = {"session_expiry_s": 60, "manual_ack": True, "reconnect": False}
    first = Link(settings, f"session-{kind}", loop, **session)
    first.start()
    held = heard(first, topic)
    with linked(settings, loop, "session-sender") as sender:
        for i in range(5):
            sender.publish(Outgoing(topic, b"%d" % i))
        first.ack(held.get(timeout=WAIT_S))
        unacknowledged = {held.get(timeout=WAIT_S).payload for _ in range(4)}
        first.abort()
        second = Link(settings, f"session-{kind}", loop, **session)
        again: Queue[Message] = Queue()
        second.subscribe(topic, again.put)
        second.start()
        missing = set(unacknowledged)
        while missing:
            missing.discard(again.get(timeout=WAIT_S).payload)
        second.stop()
    assert unacknowledged == {b"1", b"2", b"3", b"4"}


def test_a_message_of_a_subscription_that_the_link_does_not_know_holds_up_no_other(
    settings: BrokerSettings, loop: Loop, kind: BrokerKind
) -> None:
    """A newer release has subscribed the session to one topic more."""
    known, unknown = f"{settings.root}/known", f"{settings.root}/unknown"
    session: dict[str, Any] = {"session_expiry_s": 60, "manual_ack": True, "receive_maximum": 1, "reconnect": False}
    newer = Link(settings, f"topics-{kind}", loop, **session)
    newer.start()
    heard(newer, known)
    heard(newer, unknown)
    newer.abort()
    older = Link(settings, f"topics-{kind}", loop, **session)
    messages: Queue[Message] = Queue()
    older.subscribe(known, messages.put)
    with linked(settings, loop, "topics-sender") as sender:
        for n in range(3):
            sender.publish(Outgoing(unknown, b"%d" % n))
        sender.publish(Outgoing(known, b"after"))
        older.start()
        assert messages.get(timeout=WAIT_S).payload == b"after"
    older.stop()


def test_the_loser_of_a_takeover_is_told_and_does_not_fight(settings: BrokerSettings, loop: Loop) -> None:
    ended = threading.Event()
    loser = Link(settings, "taken-over", loop, on_ended=ended.set, reconnect=False)
    loser.start()
    with linked(settings, loop, "taken-over") as winner:
        assert ended.wait(WAIT_S)
        assert not loser.connected
        messages = heard(winner, f"{settings.root}/x")
        winner.publish(Outgoing(f"{settings.root}/x", b"mine"))
        assert messages.get(timeout=WAIT_S).payload == b"mine"


def test_a_payload_over_the_limit_is_refused_before_it_is_sent(settings: BrokerSettings, loop: Loop) -> None:
    small = settings.model_copy(update={"max_message_mb": 0.001})
    with linked(small, loop, "too-large") as link:
        with pytest.raises(TooLargeError) as caught:
            link.publish(Outgoing("a/b", bytes(1001)))
        assert (caught.value.size, caught.value.limit) == (1001, 1000)
        assert link.connected


def test_29_a_message_that_ends_each_connection_is_dropped_and_told_and_the_others_arrive(
    kind: BrokerKind, loop: Loop
) -> None:
    """Mosquitto cuts who publishes on more than 200 levels, the embedded broker who sends more than it takes."""
    poison = {"mosquitto": Outgoing("/".join("a" * 300), b"x"), "embedded": Outgoing("good/x", bytes(100_000))}[kind]
    dropped: Queue[S2M3Error] = Queue()
    delivered: Queue[int] = Queue()
    with Broker(kind, max_message_bytes=10_000) as broker:
        settings = BrokerSettings(port=broker.port)
        with linked(settings, loop, "hears") as hears, linked(settings, loop, "sends") as link:
            messages = heard(hears, "good/+")
            link.publish(Outgoing("good/before", b""))
            link.publish(poison, on_dropped=dropped.put)
            for n in range(20):
                link.publish(Outgoing(f"good/{n}", b""), on_delivered=lambda n=n: delivered.put(n))  # type: ignore[misc]
            error = dropped.get(timeout=WAIT_S)
            assert error.code == "bad_input"
            assert {delivered.get(timeout=WAIT_S) for _ in range(20)} == set(range(20))
            link.publish(Outgoing("good/after", b""))
            found: set[str] = set()
            while "good/after" not in found:
                found.add(messages.get(timeout=WAIT_S).topic)
            assert found == {"good/before", "good/after", *(f"good/{n}" for n in range(20))}
            assert link.connected


def test_a_queue_that_nobody_empties_is_busy_at_its_bound(kind: BrokerKind, loop: Loop) -> None:
    broker = Broker(kind).start()
    link = Link(BrokerSettings(port=broker.port), "full", loop)
    link.start()
    broker.kill()
    assert 1000 <= _publish_until_busy(link) <= 10_000
    link.stop(timeout_s=0.2)


@pytest.mark.parametrize("kind", ["embedded"], scope="session")
def test_the_embedded_broker_keeps_a_bounded_log_of_what_was_read(broker: Broker, loop: Loop) -> None:
    process = psutil.Process(broker.pid)
    used = []
    with linked(BrokerSettings(port=broker.port), loop, "reader") as link:
        messages = heard(link, "log/+")
        for round_ in range(3):
            for i in range(40):
                link.publish(Outgoing(f"log/{round_}", bytes(1_000_000)))
                assert len(messages.get(timeout=WAIT_S).payload) == 1_000_000, i
            used.append(process.memory_info().rss / 1e6)
    assert used[2] - used[0] < 20, used


@pytest.mark.skipif(not has_mosquitto(), reason="mosquitto is not installed")
def test_a_refused_login_is_reported_and_not_tried_for_ever(tmp_path: Path, loop: Loop) -> None:
    passwords, config, port = tmp_path / "passwords", tmp_path / "mosquitto.conf", free_port()
    passwords.write_text("")
    subprocess.run(["mosquitto_passwd", "-b", str(passwords), "right", "secret"], check=True)
    passwords.chmod(0o644)
    tmp_path.chmod(0o755)
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous false\npassword_file {passwords}\nuser root\n")
    path = find_mosquitto()
    assert path is not None
    with subprocess.Popen([path, "-c", str(config)], stderr=subprocess.DEVNULL) as process:
        try:
            _wait_for(port)
            wrong = BrokerSettings.load(port=port, username="right", password="wrong")  # noqa: S106
            with pytest.raises(UnauthorisedError):
                Link(wrong, "refused", loop).start(WAIT_S)
            right = BrokerSettings.load(port=port, username="right", password="secret")  # noqa: S106
            with linked(right, loop, "welcome") as link:
                assert link.connected
        finally:
            process.kill()


def test_a_listener_that_closes_without_a_word_counts_as_a_refusal(loop: Loop) -> None:
    """As rumqttd does on a refused login: no reason code, the socket is closed."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        stop = threading.Event()

        def hang_up() -> None:
            server.settimeout(0.1)
            while not stop.is_set():
                try:
                    server.accept()[0].close()
                except TimeoutError:
                    continue

        thread = threading.Thread(target=hang_up)
        thread.start()
        try:
            with pytest.raises(UnauthorisedError, match="3 times"):
                Link(BrokerSettings(port=port), "hung-up", loop).start(WAIT_S)
        finally:
            stop.set()
            thread.join()


def test_a_login_that_was_taken_once_is_not_refused_by_connections_that_are_cut(
    settings: BrokerSettings, loop: Loop
) -> None:
    """Nor is that of another link with the same login: a gateway's, which the agent opens while its cable is bad."""
    with Proxy(settings.port) as proxy:
        through = settings.model_copy(update={"port": proxy.port})
        with linked(through, loop, "cut") as link:
            proxy.cut()
            second = Link(through, "second", loop)
            second.begin()
            assert reached(lambda: proxy.refused >= 8)  # each waits longer before it tries again
            assert (link.refused, second.refused) == (None, None)
            proxy.mend()
            assert reached(lambda: link.connected and second.connected)
            second.stop()


def test_nobody_listening_is_said_within_the_time_given(loop: Loop) -> None:
    with pytest.raises(S2M3Error, match="no MQTT v5 broker answers"):
        Link(BrokerSettings(port=free_port()), "nobody", loop).start(timeout_s=0.5)


def test_mosquitto_tells_when_nobody_is_subscribed(kind: BrokerKind, settings: BrokerSettings, loop: Loop) -> None:
    told: Queue[str] = Queue()
    with linked(settings, loop, "unheard") as link:
        link.publish(
            Outgoing(f"{settings.root}/nobody", b"x"),
            on_delivered=lambda: told.put("delivered"),
            on_no_subscribers=lambda: told.put("unheard"),
        )
        assert told.get(timeout=WAIT_S) == ("unheard" if kind == "mosquitto" else "delivered")


def test_a_broken_handler_does_not_end_the_link(settings: BrokerSettings, loop: Loop) -> None:
    messages: Queue[Message] = Queue()

    def fails_once(message: Message) -> None:
        messages.put(message)
        if message.payload == b"bad":
            raise ValueError("a bug")

    with linked(settings, loop, "handler-bug") as link:
        confirmed = threading.Event()
        link.subscribe(f"{settings.root}/x", fails_once, on_subscribed=confirmed.set)
        assert confirmed.wait(WAIT_S)
        for payload in (b"bad", b"good"):
            link.publish(Outgoing(f"{settings.root}/x", payload))
        assert [messages.get(timeout=WAIT_S).payload for _ in range(2)] == [b"bad", b"good"]


def _publish_until_busy(link: Link) -> int:
    for queued in range(100_000):
        try:
            link.publish(Outgoing("a/b", b"%d" % queued))
        except BusyError:
            return queued
    raise AssertionError("the queue has no bound")


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
            threading.Event().wait(0.01)
    raise TimeoutError(f"nobody listens on {port}")


def test_acknowledgements_given_out_of_order_go_out_in_order_and_the_connection_is_kept(
    settings: BrokerSettings, loop: Loop, kind: BrokerKind
) -> None:
    """MQTT 5, section 4.6; rumqttd ends the connection of a client that does otherwise."""
    topic = f"{settings.root}/ordered"
    ended = threading.Event()
    receiver = Link(
        settings, f"ordered-{kind}", loop, session_expiry_s=60, manual_ack=True, reconnect=False, on_ended=ended.set
    )
    receiver.start()
    held = heard(receiver, topic)
    with linked(settings, loop, "ordered-sender") as sender:
        for i in range(20):
            sender.publish(Outgoing(topic, b"%d" % i))
        messages = [held.get(timeout=WAIT_S) for _ in range(20)]
        for message in reversed(messages):
            receiver.ack(message)
        for i in range(20, 40):
            sender.publish(Outgoing(topic, b"%d" % i))
        assert [held.get(timeout=WAIT_S).payload for _ in range(20)] == [b"%d" % i for i in range(20, 40)]
    assert not ended.is_set()
    receiver.stop()


def test_a_message_over_the_limit_arrives_cut_with_its_size_and_the_next_one_whole(
    settings: BrokerSettings, loop: Loop
) -> None:
    """Mosquitto drops what is over a client's Maximum Packet Size, and tells nobody."""
    limit = 100_000
    topic = f"{settings.root}/a"
    with (
        linked(settings, loop, "cut-from") as a,
        linked(settings, loop, "cut-to", cut_over=limit) as b,
    ):
        messages = heard(b, f"{settings.root}/+")
        long = tuple((f"n{n}", "x" * 60_000) for n in range(4))
        longest = f"{settings.root}/{'l' * (65_500 - len(settings.root))}"
        a.publish(Outgoing(longest, b"e" * 1_000_000))  # its topic alone is half of what is kept
        by_name = messages.get(timeout=WAIT_S)
        a.publish(Outgoing(topic, b"a" * 5_000_000, reply_to="r", correlation=b"1"))
        a.publish(Outgoing(topic, b"b" * 300_000, user=long))  # the properties alone are over what is kept
        a.publish(Outgoing(topic, b"c" * (limit + 1)))
        a.publish(Outgoing(topic, b"d" * limit))
        got = [messages.get(timeout=WAIT_S) for _ in range(4)]
    assert [m.oversize for m in got[0::2]] == [5_000_000, limit + 1]
    assert got[1].oversize >= 300_000
    assert (by_name.topic, by_name.oversize) == (longest, 1_000_000)
    assert (got[0].reply_to, got[0].correlation) == ("r", b"1")
    assert all(len(m.payload) <= KEPT_BYTES for m in got[:3])
    assert set(got[0].payload) == set(b"a")
    assert (got[3].oversize, got[3].payload) == (0, b"d" * limit)


def test_what_is_retained_is_not_asked_for_where_it_is_not_wanted(
    settings: BrokerSettings, loop: Loop, kind: BrokerKind
) -> None:
    topic = f"{settings.root}/kept"
    with linked(settings, loop, "kept-from") as a, linked(settings, loop, "kept-to") as b:
        delivered = threading.Event()
        a.publish(Outgoing(topic, b"old", retain=True), on_delivered=delivered.set)
        assert delivered.wait(WAIT_S)
        messages: Queue[Message] = Queue()
        confirmed = threading.Event()
        b.subscribe(topic, messages.put, retained=False, on_subscribed=confirmed.set)
        assert confirmed.wait(WAIT_S)
        a.publish(Outgoing(topic, b"new"))
        first = messages.get(timeout=WAIT_S)
        if kind == "embedded" and first.retain:  # rumqttd has no retain handling
            first = messages.get(timeout=WAIT_S)
        assert first.payload == b"new"
        a.publish(Outgoing(topic, b"", retain=True))


def test_23_a_broker_that_says_why_it_disconnects_is_quoted(loop: Loop) -> None:
    """As brokers later than Mosquitto 2.0.11 say it to the loser of a takeover: DISCONNECT with reason code 0x8E."""
    connack, taken_over = b"\x20\x03\x00\x00\x00", b"\xe0\x02\x8e\x00"
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        mock.patch("s2m3.broker.mqtt.connection._log.warning") as warned,
    ):
        link = Link(BrokerSettings(port=server.getsockname()[1]), "loser", loop, reconnect=False)
        link.begin()
        with server.accept()[0] as peer:
            assert peer.recv(1000)[0] == 0x10
            peer.sendall(connack)
            assert reached(lambda: link.connected)
            peer.sendall(taken_over)
            assert reached(lambda: not link.connected and warned.called)
    reason = "Session taken over; another client uses our client id"
    warned.assert_called_once_with("disconnected_by_broker", client="loser", reason=reason)


def test_39_sites_whose_names_run_together_do_not_end_each_other_s_connections(broker: Broker, loop: Loop) -> None:
    sites = [("garage", "pi"), ("s2m3/v1", "garage-pi"), ("a/b", "pi"), ("a-b", "pi")]
    links = []
    for root, node in sites:
        settings = BrokerSettings(port=broker.port, root=root)
        links.append(Link(settings, node_client_id(settings, node), loop, reconnect=False))
    links[0].start()
    messages = heard(links[0], "x")

    def answered() -> None:
        links[0].publish(Outgoing("x", b"mine"))
        assert messages.get(timeout=WAIT_S).payload == b"mine"

    with others_answered(answered):
        for link in links[1:]:
            link.start()
    links[-1].publish(Outgoing("x", b"all are there"))
    assert messages.get(timeout=WAIT_S).payload == b"all are there"
    assert [link.connected for link in links] == [True] * len(sites)
    for link in links:
        link.stop()


@pytest.mark.short_on("embedded")
def test_a_link_goes_on_at_another_broker_of_the_cluster_and_comes_back(loop: Loop, kind: BrokerKind) -> None:
    with Broker(kind) as one, Broker(kind) as other:
        settings = BrokerSettings(port=one.port, fallback=f"127.0.0.1:{other.port}")
        lost, back = threading.Event(), threading.Event()
        with linked(settings, loop, "moves", on_connected=back.set) as link:
            link.on_connection_change(on_disconnect=lost.set)
            back.clear()
            one.kill()
            assert lost.wait(WAIT_S)
            assert back.wait(WAIT_S)
            one.start()
            for event in (lost, back):
                event.clear()
            other.kill()
            assert back.wait(WAIT_S)
            assert link.connected


def test_a_command_finds_the_broker_that_is_left(loop: Loop, shared_broker: Broker) -> None:
    settings = BrokerSettings(port=free_port(), fallback=f"127.0.0.1:{shared_broker.port}")
    link = Link(settings, "finds-the-other", loop)
    link.start(patient=False)
    link.stop()
    nobody = BrokerSettings(port=free_port(), fallback=f"127.0.0.1:{free_port()}")
    with pytest.raises(S2M3Error, match="nothing listens"):
        Link(nobody, "finds-none", loop).start(timeout_s=3_600.0, patient=False)  # at once, not after this time
