"""What stays on the broker of pictures and answers, and for how long, on both brokers."""

import json
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.others import others_answered
from tests.system.plain import PlainCaller, retained
from tests.system.test_bindings import V3, _bridge_is

MODELS = Path(__file__).parent / "models"
PICTURE, ANSWER, RESULT = "s2m3/v1/bridge/picture/porch", "s2m3/v1/bridge/answer/porch", "home/front/caption"
ALL = {PICTURE, ANSWER, RESULT}
FILE = b"\xff\xd8\xff\xe0 the picture of somebody at the door"


class _House(Cluster):
    """A planner that knows the task of a house; the bridge is started by each test."""

    def start_planner(self) -> None:
        self._spawn("planner", "planner", "--models", str(MODELS))


@pytest.fixture(scope="module")
def cluster(kind: BrokerKind) -> Iterator[Cluster]:
    with _House({"a": 150.0}, kind=kind, threads=1) as cluster:
        yield cluster


@pytest.fixture
def house(cluster: Cluster) -> Iterator[Cluster]:
    """The task `porch`; at the end no bridge runs, and nothing is left."""
    with Site(cluster.settings) as site:
        add_task(site, "porch", m.TaskSpec(model="seen", inputs={"text": "who is there?"}, deadline_s=10))
        assert site.wait(lambda s: s.ready("porch"), WAIT_S), cluster.log("planner")
        yield cluster
        for name in list(site.bindings):
            site.publish(topics.BIND, b"", binding=name)
        site.publish(topics.TASK, b"", task="porch")
        assert site.wait(lambda s: "porch" not in s.routes, WAIT_S), cluster.log("planner")
    if cluster.processes["bridge"].poll() is None:
        cluster.kill("bridge")
    with PlainCaller(cluster.broker.port_v3, V3, ("none",)) as caller:
        for topic in _left(cluster):
            caller.client.publish(topic, b"", qos=1, retain=True).wait_for_publish(WAIT_S)


def _start(house: Cluster, *flags: str, bound: bool = True) -> None:
    """Starts a bridge, and has it answer a picture of a camera."""
    with Site(house.settings) as site:
        before = site.bridge.epoch if site.bridge is not None else 0
        house.start_bridge(*flags)
        up = site.wait(lambda s: _bridge_is(s, "online") and s.bridge is not None and s.bridge.epoch > before, WAIT_S)
        assert up, house.log("bridge")
        if bound:
            binding = Binding(source="cam/+", task="porch", input="image", publish="home/{1}/caption", retain=True)
            site.reports.pop("cam", None)  # of the bridge of the test before
            site.publish(topics.BIND, binding.encode(), binding="cam")
            assert site.wait(lambda s: "cam" in s.reports, WAIT_S)


def _show(house: Cluster) -> None:
    with PlainCaller(house.broker.port_v3, V3, (RESULT, "s2m3/v1/bridge/answered/porch")) as caller:
        caller.send("cam/front", FILE)
        found: list[Any] = []
        while len(found) < 2:
            if not (message := caller.message()).retain and message.payload:
                found.append(_status(json.loads(message.payload)))
        assert sorted(found) == ["answered", "ok"]


def _components(house: Cluster, topic: str) -> dict[str, Any]:
    """What a discovery document names, once it is there."""
    found: dict[str, Any] = json.loads(retained(house.broker.port_v3, topic).get(topic, b'{"cmps": {}}'))["cmps"]
    return found


def _status(document: dict[str, Any]) -> Any:
    return document.get("status", document.get("event_type"))


def _left(house: Cluster) -> set[str]:
    return set(retained(house.broker.port_v3, "s2m3/v1/bridge/picture/+", "s2m3/v1/bridge/answer/+", "home/#"))


def _until(what: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
    """Looks again and again; each look is a connection of its own."""
    deadline = time.monotonic() + timeout_s
    while not what():
        if time.monotonic() > deadline:
            return False
    return True


def _end(house: Cluster) -> None:
    house.processes["bridge"].send_signal(signal.SIGTERM)
    assert house.processes["bridge"].wait(WAIT_S) == 0


def _unbind(house: Cluster) -> None:
    with Site(house.settings) as site:
        site.publish(topics.BIND, b"", binding="cam")
        assert site.wait(lambda s: not s.bindings and not s.reports, WAIT_S)


def test_43_what_a_binding_brought_goes_with_it(house: Cluster) -> None:
    _start(house)
    with (
        Client(settings=house.settings) as other,
        others_answered(lambda: other.ask("porch", image=FILE, deadline_s=WAIT_S)),
    ):
        _show(house)
        assert _until(lambda: _left(house) == ALL), _left(house)
        _unbind(house)
        assert _until(lambda: _left(house) == set()), _left(house)


@pytest.mark.short_on("mosquitto")
def test_43_what_a_binding_brought_goes_with_its_task(house: Cluster) -> None:
    _start(house)
    _show(house)
    assert _until(lambda: _left(house) == ALL), _left(house)
    with Site(house.settings) as site:
        site.publish(topics.TASK, b"", task="porch")
    assert _until(lambda: _left(house) == set()), _left(house)


@pytest.mark.short_on("embedded")
def test_43_what_others_asked_stays_when_a_binding_goes(house: Cluster) -> None:
    _start(house)
    _show(house)
    with PlainCaller(house.broker.port_v3, V3, ("s2m3/v1/bridge/answered/porch",)) as caller:
        caller.send("s2m3/v1/request/porch", json.dumps({"inputs": {"image": {"base64": "/9j/"}}}).encode())
        assert caller.answer()["source"] == "plain"
    _unbind(house)
    assert _until(lambda: _left(house) == {ANSWER}), _left(house)


@pytest.mark.short_on("mosquitto")
def test_43_an_answer_to_a_question_about_a_binding_s_picture_goes_with_the_binding(house: Cluster) -> None:
    _start(house)
    _show(house)
    with PlainCaller(house.broker.port_v3, V3, ("s2m3/v1/bridge/answered/porch",)) as caller:
        caller.send("s2m3/v1/bridge/ask/porch", b"is it a cat?")
        assert caller.answer()["answer"][0] == {"base64": "/9j/4A=="}
    _unbind(house)
    assert _until(lambda: _left(house) == set()), _left(house)


def test_43_nothing_outlives_a_bridge_that_ends(house: Cluster) -> None:
    _start(house)
    _show(house)
    assert _until(lambda: _left(house) == ALL), _left(house)
    _end(house)
    assert _left(house) == set()


def test_43_kept_answers_outlive_it_and_go_with_the_binding_by_the_next_bridge(house: Cluster) -> None:
    _start(house, "--answers", "keep")
    _show(house)
    assert _until(lambda: _left(house) == ALL), _left(house)
    _end(house)
    assert _left(house) == {ANSWER, RESULT}
    _start(house, "--answers", "keep", bound=False)
    with Site(house.settings) as site:
        assert site.wait(lambda s: "cam" in s.reports and s.reports["cam"].retained == [RESULT], WAIT_S)
    assert _left(house) == {ANSWER, RESULT}
    _unbind(house)
    assert _until(lambda: _left(house) == set()), _left(house)


@pytest.mark.short_on("embedded")
def test_43_a_binding_that_is_removed_while_no_bridge_runs_leaves_nothing_to_the_next(house: Cluster) -> None:
    _start(house)
    _show(house)
    house.kill("bridge")
    with Site(house.settings) as site:
        site.publish(topics.BIND, b"", binding="cam")
    _start(house, "--forget-s", "1", bound=False)
    assert _until(lambda: _left(house) == set()), _left(house)


@pytest.mark.short_on("mosquitto")
def test_43_off_keeps_nothing_and_announces_no_picture(house: Cluster) -> None:
    _start(house, "--pictures", "off", "--answers", "off")
    _show(house)
    assert _left(house) == set()
    device = "homeassistant/device/s2m3-task-porch/config"
    assert _until(lambda: "picture" in _components(house, device))
    assert _components(house, device)["picture"] == {"p": "image"}


@pytest.mark.short_on("mosquitto")
def test_43_after_so_many_seconds_nothing_is_left_though_the_bridge_runs(house: Cluster) -> None:
    _start(house, "--pictures", "2", "--answers", "2")
    began = time.monotonic()
    _show(house)
    assert _until(lambda: _left(house) == set())
    assert time.monotonic() - began >= 2
    with Site(house.settings) as site:
        assert site.wait(lambda s: "cam" in s.reports and s.reports["cam"].retained == [], WAIT_S)


def test_43_after_so_many_seconds_nothing_is_left_of_a_bridge_that_was_killed(house: Cluster) -> None:
    """Mosquitto lets it expire. On the embedded broker, where none may be given, the next bridge clears."""
    _start(house, "--pictures", "2", "--answers", "2")
    _show(house)
    house.kill("bridge")
    if house.broker.kind == "embedded":
        _start(house, "--pictures", "2", "--answers", "2", bound=False)
    assert _until(lambda: _left(house) == set()), _left(house)


def test_43_an_expiry_is_given_only_to_a_broker_that_can_bear_it(house: Cluster) -> None:
    """Every 3.1.1 client of rumqttd would be thrown off: this test's own are 3.1.1 (docs/protocol.md)."""
    _start(house)
    ended: list[object] = []
    with PlainCaller(house.broker.port_v3, V3, ("home/#", "homeassistant/#", "s2m3/v1/bridge/#")) as caller:
        caller.client.on_disconnect = lambda *found: ended.append(found)
        for _ in range(3):
            _show(house)
        assert caller.client.is_connected()
        assert not ended


@pytest.mark.short_on("embedded")
def test_43_settings_say_what_they_take(house: Cluster) -> None:
    _start(house)
    for flag, value in (("--pictures", "keep"), ("--pictures", "-1"), ("--answers", "often"), ("--answers", "nan")):
        house.start_bridge(flag, value)
        assert house.processes["bridge"].wait(WAIT_S) == 2
        assert f"setting {flag[2:]}: " in house.log("bridge").splitlines()[-1]
