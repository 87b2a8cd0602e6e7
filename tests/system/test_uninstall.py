"""`s2m3 uninstall` on both brokers: what a site has left is cleared, and nothing else."""

import json
import queue
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.cluster import Cluster
from s2m3.commands.tasks import add_task
from s2m3.homeassistant.discovery import Devices
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.bridge import Binding
from s2m3.snapshot import Site
from s2m3.uninstall import is_own_device, is_own_topic
from tests import command
from tests.conftest import WAIT_S
from tests.system.plain import PlainCaller, retained
from tests.system.test_bindings import V3, _bridge_is

#: Others' things, some of them near ours: another site's device, another program's, a topic below our root.
OTHERS = {
    "home/front/caption-of-another": b"x",
    "homeassistant/device/another/config": b"{}",
    "homeassistant/device/s2m3-planner-of-somebody/config": b'{"o": {"name": "other"}, "cmps": {}}',
    Devices("cabin/s2m3", "homeassistant", "1").topic("planner"): json.dumps(
        Devices("cabin/s2m3", "homeassistant", "1").planner()
    ).encode(),
    "s2m3/v1/stranger/thing": b"y",
}


def _furnish(house: Cluster) -> None:
    """A task, and a binding whose answer is retained; and others on the broker."""
    with Site(house.settings) as site:
        add_task(site, "noop", m.TaskSpec(model="noop", deadline_s=10))
        assert site.wait(lambda s: s.ready("noop") and _bridge_is(s, "online"), 3 * WAIT_S), house.log("bridge")
        binding = Binding(
            source="in/+", task="noop", input="left", inputs={"right": "r"}, publish="out/{1}", retain=True
        )
        site.publish(topics.BIND, binding.encode(), binding="keep")
        assert site.wait(lambda s: "keep" in s.reports, WAIT_S)
        with PlainCaller(house.broker.port_v3, V3, ("out/+",)) as caller:
            _ring(caller)
            for topic, payload in OTHERS.items():
                caller.client.publish(topic, payload, qos=1, retain=True).wait_for_publish(WAIT_S)
        assert site.wait(lambda s: s.reports["keep"].retained == ["out/door"], WAIT_S)


def _ring(caller: PlainCaller) -> None:
    """Rings until that is answered: the report of a binding may be of the one of its name that was removed."""
    deadline, is_answered = time.monotonic() + WAIT_S, False
    while not is_answered:
        assert time.monotonic() < deadline
        caller.send("in/door", b"x")
        with suppress(queue.Empty):
            while not is_answered:
                is_answered = not caller.answers.get(timeout=1.0).retain


@pytest.fixture
def house(kind: BrokerKind) -> Iterator[Cluster]:
    """A site that has been used, and others on its broker."""
    with Cluster({"a": 150.0}, kind=kind, threads=1, bridge=True) as cluster:
        _furnish(cluster)
        yield cluster


def _everything(house: Cluster) -> dict[str, bytes]:
    return retained(house.broker.port_v3, "#")


def _stop(house: Cluster) -> None:
    """The agent by SIGINT: by SIGTERM it would wait for somebody to take its modules, and nobody is left."""
    for name, process in house.processes.items():
        process.send_signal(signal.SIGINT if name == "a" else signal.SIGTERM)
    for process in house.processes.values():
        process.wait(WAIT_S)


@pytest.mark.short_on("mosquitto")
def test_25_after_uninstall_nothing_of_the_site_is_left(house: Cluster) -> None:
    running = _everything(house).keys()
    refused = command.s2m3("uninstall", port=house.settings.port)
    assert refused.returncode == 1
    assert "still running, they would tell it again: bridge, node a, planner" in refused.stderr
    assert running <= _everything(house).keys()
    _stop(house)
    before = _everything(house)
    assert {"s2m3/v1/planner/state", "s2m3/v1/bridge/state", "s2m3/v1/bridge/planner"} <= before.keys()
    assert "homeassistant/device/s2m3-planner/config" in before
    listed = command.s2m3_here("uninstall", "--dry-run", port=house.settings.port)
    assert listed.returncode == 0, listed.stderr
    assert set(listed.stdout.split()) == before.keys() - OTHERS.keys()
    assert "s2m3/v1/stranger/thing" in listed.stderr
    assert _everything(house) == before
    done = command.s2m3_here("uninstall", "--yes", "--json", port=house.settings.port)
    assert done.returncode == 0, done.stderr
    assert set(json.loads(done.stdout)["cleared"]) == before.keys() - OTHERS.keys()
    assert _everything(house) == OTHERS
    again = command.s2m3_here("uninstall", "--yes", port=house.settings.port)
    assert again.returncode == 0
    assert "nothing is left" in again.stdout


@pytest.mark.short_on("embedded")
def test_25_what_still_runs_tells_again_and_answers_of_a_bridge_that_was_killed_are_cleared(house: Cluster) -> None:
    forced = command.s2m3_here("uninstall", "--yes", port=house.settings.port)
    assert forced.returncode == 1
    assert "still running, they would tell it again: bridge, node a, planner" in forced.stderr
    assert "topics are told again by what still runs" in forced.stderr
    _furnish(house)
    for name in list(house.processes):
        house.kill(name)
    assert "out/door" in _everything(house)
    assert command.s2m3_here("uninstall", "--yes", port=house.settings.port).returncode == 0
    assert _everything(house) == OTHERS


@pytest.mark.parametrize("root", ["s2m3/v1", "cabin/s2m3"])
def test_25_a_device_is_known_by_its_own_topics(root: str) -> None:
    ours, other = (Devices(r, "homeassistant", "1") for r in (root, "attic/s2m3"))
    for document, topic in (
        (ours.planner(), ours.topic("planner")),
        (ours.node("pi", "1"), ours.topic("node", "pi")),
        (ours.gone("task", "porch"), ours.topic("task", "porch")),
    ):
        assert is_own_device(topic, json.dumps(document).encode(), root)
        assert not is_own_device(topic, json.dumps(document).encode(), "attic/s2m3")
    assert not is_own_device(ours.topic("planner"), json.dumps(other.planner()).encode(), root)
    assert not is_own_device(ours.topic("planner"), b'{"cmps": []}', root)
    assert is_own_topic(f"{root}/task/My Task", root)
    assert not is_own_topic(f"{root}-other/task/x", root)
    assert not is_own_topic(f"{root}/unheard/x", root)
