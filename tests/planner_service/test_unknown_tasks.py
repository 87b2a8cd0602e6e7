"""Plain requests to tasks that nobody has added: who answers, once, and within which bounds."""

import json
import queue
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.broker.mqtt.message import Message
from s2m3.broker.servers.launch import Broker
from s2m3.planner import unknown_tasks as unknown_tasks_module
from s2m3.planner.service import Planner
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placer import placer
from s2m3.planner.unknown_tasks import UnknownTasks
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import UnauthorisedError
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.settings import BrokerSettings, PlannerSettings
from tests.recorders import LinkFactory, ManualLoop, RecordedLink
from tests.system.plain import PlainCaller, properties_of, reply_to


@pytest.fixture
def root(settings: BrokerSettings, shared_broker: Broker) -> Iterator[str]:
    """The root of a site that has a planner and no agent."""
    planner = Planner(PlannerSettings(port=settings.port, root=settings.root), shipped_catalogue(), placer=placer(0.1))
    planner.start()
    with PlainCaller(shared_broker.port_v3, paho.MQTTv311, (f"{settings.root}/response/probe",)) as caller:
        answered = False
        while not answered:  # nothing tells that the planner's connection for requests is there
            caller.send(f"{settings.root}/request/probe", b"{}")
            with suppress(queue.Empty):
                answered = caller.answers.get(timeout=3.0) is not None
    yield settings.root
    planner.stop()


class _Device(PlainCaller):
    """Hears every answer but those to the probes of `root`: of several that were sent some may be answered late."""

    def __init__(self, port: int, topics: tuple[str, ...]) -> None:
        super().__init__(port, paho.MQTTv311, topics)
        self.client.on_message = lambda _c, _u, message: self._take(message)

    def _take(self, message: paho.MQTTMessage) -> None:
        if not message.topic.endswith("/response/probe"):
            self.answers.put(message)


def asking(transaction: int) -> bytes:
    return json.dumps({"transaction": transaction, "inputs": {"x": 1}}).encode()


def test_5_every_kind_of_plain_request_to_an_unknown_task_is_answered_once(root: str, shared_broker: Broker) -> None:
    mine = f"elsewhere/{root}"
    with (
        _Device(shared_broker.port_v3, (f"{root}/response/+",)) as device,
        PlainCaller(shared_broker.port, paho.MQTTv5, (mine,)) as newer,
    ):
        device.send(f"{root}/request/ghost", asking(1))
        device.send(f"{root}/request/ghost/image/2", b"\xff\xd8" * 600_000)
        device.send(f"{root}/request/Ghost", asking(3))
        newer.send(f"{root}/request/ghost", asking(4), reply_to(mine, b"four"))
        newer.send(f"{root}/request/ghost/x", b"a", reply_to(f"{root}/plan/a", b"five"))
        for topic in ("ghost", "ghost/x", "ghost/x/empty"):
            device.client.publish(f"{root}/request/{topic}", b"", qos=1, retain=True)
        messages = [device.message() for _ in range(4)]
        answers = [json.loads(message.payload) for message in messages]
        assert [message.topic.split("/")[-1] for message in messages] == ["ghost", "ghost", "Ghost", "ghost"]
        assert [answer["transaction"] for answer in answers] == [1, "2", 3, None]
        assert {answer["error"]["code"] for answer in answers} == {"unknown_task"}
        own = newer.message()
        assert (json.loads(own.payload)["transaction"], properties_of(own).CorrelationData) == (4, b"four")
        device.send(f"{root}/request/last", asking(6))
        assert device.answer()["transaction"] == 6
        assert newer.answers.empty()


def test_5_a_task_that_is_there_or_comes_meanwhile_is_never_called_unknown(root: str, shared_broker: Broker) -> None:
    """Its request waits in the task's session, for a gateway that is being moved or not there yet."""
    spec = TaskSpec(model="noop").encode()
    with _Device(shared_broker.port_v3, (f"{root}/response/+", f"{root}/route/here")) as device:
        device.client.publish(f"{root}/task/here", spec, qos=1, retain=True)
        assert device.message().topic == f"{root}/route/here"  # the planner knows the task
        device.send(f"{root}/request/here", asking(1))
        device.send(f"{root}/request/late", asking(2))
        device.client.publish(f"{root}/task/late", spec, qos=1, retain=True)
        device.send(f"{root}/request/ghost", asking(3))
        while (message := device.message()).topic == f"{root}/route/here":
            continue
        assert json.loads(message.payload)["transaction"] == 3
        assert all(message.topic == f"{root}/route/here" for message in list(device.answers.queue))
        for task in ("here", "late"):
            device.client.publish(f"{root}/task/{task}", b"", qos=1, retain=True).wait_for_publish()


# ---- bounds, on the test's own clock -------------------------------------------------------------------------------


class Desk:
    """An UnknownTasks of a planner that leads, and its link."""

    def __init__(self, links: LinkFactory) -> None:
        self.loop, self.leads = ManualLoop(), True
        self.cluster = ClusterState(shipped_catalogue(), tasks={"known": TaskSpec(model="noop")})
        settings = BrokerSettings(root="home")
        self.known: list[str] = []
        made = UnknownTasks(settings, self.loop, self.cluster, lambda: self.leads, on_known=self.known.append)  # type: ignore[arg-type]
        made.start()
        self.link: RecordedLink = links.made[-1]

    def ask(self, topic: str = "ghost", payload: bytes = b'{"transaction": 7}', **fields: Any) -> Message:
        return self.link.deliver(f"home/request/{topic}", payload, **fields)


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Callable[[], Desk]:
    links = LinkFactory()
    monkeypatch.setattr(unknown_tasks_module, "Link", links)
    return lambda: Desk(links)


def test_5_a_flood_is_answered_up_to_a_bound_and_later_ones_are_answered_again(desk: Callable[[], Desk]) -> None:
    made = desk()
    for _ in range(1_500):
        made.ask()
    made.loop.advance(2.0)
    assert len(made.link.published) == 1_000
    made.ask()
    made.loop.advance(2.0)
    assert len(made.link.published) == 1_001


def test_10_a_name_that_differs_in_underscores_or_capitals_alone_is_offered(desk: Callable[[], Desk]) -> None:
    made = desk()
    made.cluster.tasks["front-door"] = TaskSpec(model="noop")
    for name in ("front_door", "Front Door", "frontdoor"):
        made.ask(name)
    made.loop.advance(2.0)
    details = [json.loads(published.message.payload)["error"]["detail"] for published in made.link.published]
    assert ["did you mean 'front-door'?" in detail for detail in details] == [True, True, False]


def test_5_a_planner_that_does_not_lead_answers_nothing(desk: Callable[[], Desk]) -> None:
    made = desk()
    made.leads = False
    made.ask()
    made.loop.advance(5.0)
    assert made.link.published == []


def test_what_is_retained_or_empty_or_to_a_known_task_is_not_answered(desk: Callable[[], Desk]) -> None:
    made = desk()
    made.ask(retain=True)
    made.ask(payload=b"")
    made.ask("known")
    made.loop.advance(5.0)
    assert made.link.published == []


def test_a_caller_whose_topic_the_broker_refuses_is_answered_where_all_listen(desk: Callable[[], Desk]) -> None:
    made = desk()
    made.ask(reply_to="forbidden/topic", correlation=b"1")
    made.loop.advance(2.0)
    (first,) = made.link.published
    assert (first.message.topic, first.message.correlation) == ("forbidden/topic", b"1")
    assert first.on_refused is not None
    first.on_refused(UnauthorisedError("not yours"))
    second = made.link.published[-1]
    assert (second.message.topic, second.message.plain) == ("home/response/ghost", True)
    assert json.loads(second.message.payload)["transaction"] == 7
    assert second.on_refused is not None
    second.on_refused(UnauthorisedError("not yours either"))
    assert len(made.link.published) == 2


def test_a_name_too_long_for_a_task_is_not_repeated_in_a_topic(desk: Callable[[], Desk]) -> None:
    made = desk()
    made.ask("n" * 65)
    made.ask("")
    made.loop.advance(2.0)
    assert made.link.published == []
