"""A message of the planner's own comes back after all that the broker retains: only then are absent tasks gone."""

import secrets
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.servers.launch import BrokerKind
from s2m3.planner.desired_documents import DesiredDocuments
from s2m3.planner.health import Health
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.published_documents import Documents
from s2m3.schemas import topics
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import BusyError, UnauthorisedError
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.settings import BrokerSettings
from tests.conftest import WAIT_S
from tests.recorders import ManualLoop, RecordedLink

TOPIC = "home/planner/health"
#: More retained messages than this at once the embedded broker does not send to a newcomer.
_MOST = {"mosquitto": 2_000, "embedded": 90}


class Heard:
    """The health of a planner on a recorded link."""

    def __init__(self) -> None:
        self.loop, self.ends = ManualLoop(), 0
        self.link = RecordedLink(BrokerSettings(root="home"), "planner", self.loop)
        documents = Documents("home", 1)
        cluster = ClusterState(shipped_catalogue())
        self.health = Health(self.link, self.loop, cluster, documents, self._end)  # type: ignore[arg-type]
        self.link.options["on_connected"] = self.health.on_connected
        self.health.start()

    def _end(self) -> None:
        self.ends += 1

    def marked(self) -> Outgoing:
        """Returns the newest marker."""
        return next(p.message for p in reversed(self.link.published) if p.message.correlation is not None)

    def come_back(self) -> None:
        """The broker delivers the newest marker."""
        self.link.deliver(TOPIC, self.marked().payload, correlation=self.marked().correlation)


@pytest.fixture
def heard() -> Heard:
    found = Heard()
    found.link.connect()
    return found


def test_all_has_come_when_the_marker_has_gone_round_twice(heard: Heard) -> None:
    marker = heard.marked()
    assert (marker.topic, marker.qos, marker.retain) == (TOPIC, 1, False)
    heard.link.deliver(TOPIC, marker.payload)  # of another planner, or an earlier one of ours
    heard.come_back()
    assert (heard.health.have_all_come, heard.ends) == (False, 0)
    heard.link.deliver(TOPIC, marker.payload, correlation=marker.correlation)  # once more: it went its round
    assert (heard.health.have_all_come, heard.ends) == (False, 0)
    heard.come_back()
    heard.come_back()
    assert (heard.health.have_all_come, heard.ends) == (True, 1)


def test_a_marker_of_an_earlier_connection_counts_nothing(heard: Heard) -> None:
    heard.come_back()
    heard.health.on_connected()
    heard.come_back()
    assert (heard.health.have_all_come, heard.ends) == (False, 0)
    for callback in heard.link._on_reconnect:  # noqa: SLF001  # the subscriptions are confirmed
        callback()
    heard.come_back()
    heard.come_back()
    assert (heard.health.have_all_come, heard.ends) == (True, 1)


def test_who_waits_is_called_after_all_that_the_broker_was_asked_before(heard: Heard) -> None:
    back: list[int] = []
    for number in range(2):
        heard.health.probe(partial(back.append, number))
        heard.come_back()
        heard.come_back()
    assert back == [0, 1]
    heard.health.probe(partial(back.append, 2))
    heard.health.on_connected()
    heard.come_back()
    assert back == [0, 1]


def test_where_no_marker_may_pass_the_wait_has_an_end() -> None:
    for way in ("silence", "refused", "busy"):
        heard = Heard()
        if way == "busy":
            heard.link.error = BusyError("full")
        heard.link.connect()
        if way == "refused":
            refused = heard.link.published[-1].on_refused
            assert refused is not None
            refused(UnauthorisedError("no"))
        assert heard.health.have_all_come == (way == "refused"), way
        heard.loop.advance(60.0)
        assert (heard.health.have_all_come, heard.ends) == (True, 1), way


def test_the_counters_are_told_each_ten_seconds(heard: Heard) -> None:
    heard.link.published.clear()
    heard.loop.advance(30.0)
    told = [published.message for published in heard.link.published]
    assert [(message.topic, message.qos, message.correlation) for message in told] == [(TOPIC, 0, None)] * 3


class Reader:
    """A planner's link that hears tasks, and how many it had heard when its marker came back."""

    def __init__(self, settings: BrokerSettings, loop: Loop) -> None:
        self.tasks: set[str] = set()
        self.at_end: list[int] = []
        self.ended = threading.Event()
        self.link = Link(settings, f"s2m3-planner-{secrets.token_hex(4)}", loop, on_connected=self._on_connected)
        cluster, documents = ClusterState(shipped_catalogue()), Documents(settings.root, 1)
        self._health = Health(self.link, loop, cluster, documents, self._on_end)
        self.link.subscribe(topics.TASK.all(settings.root), self._on_task)
        self.link.subscribe(topics.NODE_PROFILE.all(settings.root), self._on_task)
        self._health.start()

    def _on_connected(self) -> None:
        self._health.on_connected()
        self.tasks.clear()

    def _on_task(self, message: Message) -> None:
        self.tasks.add(message.topic)

    def _on_end(self) -> None:
        self.at_end.append(len(self.tasks))
        self.ended.set()


class Writer:
    """Retains documents on a broker, and clears them."""

    def __init__(self, settings: BrokerSettings, loop: Loop) -> None:
        self.link = Link(settings, f"writer-{secrets.token_hex(4)}", loop)

    def publish(self, topic_names: list[str], payload: bytes) -> None:
        """Publishes on each topic, and waits until the broker has all."""
        delivered, left = threading.Event(), [len(topic_names)]

        def count() -> None:
            left[0] -= 1
            if not left[0]:
                delivered.set()

        for topic in topic_names:
            self.link.publish(Outgoing(topic, payload, retain=True), on_delivered=count)
        assert delivered.wait(WAIT_S)


@pytest.fixture
def writer(settings: BrokerSettings, loop: Loop) -> Iterator[Writer]:
    made = Writer(settings, loop)
    made.link.start()
    yield made
    made.link.stop()


def test_on_each_broker_the_marker_comes_after_all_retained_messages(
    settings: BrokerSettings, loop: Loop, kind: BrokerKind, writer: Writer
) -> None:
    """At the first connect, and after a reconnect."""
    names = [
        path.at(settings.root, **{key: f"x{number}"})
        for path, key in ((topics.TASK, "task"), (topics.NODE_PROFILE, "node"))
        for number in range(_MOST[kind] // 2)
    ]
    writer.publish(names, b"x" * 500)
    reader = Reader(settings, loop)
    reader.link.start()
    assert reader.ended.wait(WAIT_S)
    reader.ended.clear()
    loop.call(reader.link._connection.abort)  # noqa: SLF001  # as a lost cable does
    assert reader.ended.wait(WAIT_S)
    reader.link.stop()
    writer.publish(names, b"")
    assert reader.at_end == [_MOST[kind], _MOST[kind]]


def test_on_each_broker_tasks_that_are_asked_for_by_name_come(
    settings: BrokerSettings, loop: Loop, writer: Writer
) -> None:
    """300 tasks, of which the embedded broker sends a newcomer 100."""
    there = [f"t{number}" for number in range(300)]
    writer.publish([topics.TASK.at(settings.root, task=task) for task in there], TaskSpec(model="noop").encode())
    heard: dict[str, TaskSpec | None] = {}
    link = Link(settings, f"s2m3-planner-{secrets.token_hex(4)}", loop)
    come = threading.Event()
    cluster, documents = ClusterState(shipped_catalogue()), Documents(settings.root, 1)
    health = Health(link, loop, cluster, documents, come.set)
    tasks = DesiredDocuments(link, topics.TASK, lambda *_: True, heard.__setitem__, probe=health.probe)
    tasks.start()
    health.start()
    link.start()
    assert come.wait(WAIT_S)
    asked = threading.Event()

    def ask() -> None:
        if tasks.has_asked_for([*there, "gone"]):
            asked.set()
        else:
            loop.after(0.02, ask)

    loop.call(ask)
    assert asked.wait(WAIT_S)
    assert heard.keys() == set(there)
    link.stop()
    writer.publish([topics.TASK.at(settings.root, task=task) for task in there], b"")
