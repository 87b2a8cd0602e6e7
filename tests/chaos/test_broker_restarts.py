"""The broker is killed and comes back, having forgotten everything or not: nothing under way is lost silently."""

import json
import random
import threading
import time
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.broker.servers.launch import BrokerKind
from s2m3.schemas import messages as m
from s2m3.snapshot import Site
from tests.chaos import WAIT_S
from tests.chaos.conftest import Bar, Build, Say
from tests.chaos.history import Verdict
from tests.chaos.load import Direct, Load, Plain, echo
from tests.chaos.rig import Rig, holders_of, seconds_until
from tests.system.plain import PlainCaller

_BACK_S = 5.0
_MARKER = "s2m3/v1/event/marker"


def _retained(rig: Rig) -> dict[str, Any]:
    """What a stranger who comes now is told, by topic."""
    with PlainCaller(rig.broker.port_v3, paho.MQTTv311, ("s2m3/v1/#",)) as stranger:
        stranger.send(_MARKER, b"{}")
        found: dict[str, Any] = {}
        marked, known = False, -1
        while not marked or known < len(found):  # what is retained comes before the marker, or right behind it
            known = len(found)
            threading.Event().wait(0.2)
            while not stranger.answers.empty():
                message = stranger.answers.get()
                marked = marked or message.topic == _MARKER
                if message.retain:
                    found[message.topic] = json.loads(message.payload)
        return found


def test_a_broker_that_forgot_everything_is_told_all_of_it_again(build: Build, say: Say, bar: Bar) -> None:
    rig = build()
    with Site(rig.settings) as site:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        before = _retained(rig)
    assert {topic.split("/")[2] for topic in before} == {"planner", "node", "task", "plan", "route"}
    rig.restart_broker()
    began = time.monotonic()
    after: dict[str, Any] = {}
    # Plans, routes and reports may have gone on meanwhile. A node that comes back late was lost until then.
    kept = {topic: said for topic, said in before.items() if topic.endswith("/state") or "/task/" in topic}
    while not (before.keys() <= after.keys() and kept.items() <= after.items()) and time.monotonic() < began + WAIT_S:
        after = _retained(rig)
    took = time.monotonic() - began
    say(f"{rig.broker.kind}: all {len(before)} retained documents were back {took:.1f} s after the broker")
    assert before.keys() <= after.keys()
    assert {topic: after[topic] for topic in kept} == kept
    assert took < bar(_BACK_S)


def _restart_with_requests_under_way(rig: Rig, *, gently: bool = False) -> Verdict:
    with Site(rig.settings) as site:
        rig.add(site, "slow", m.TaskSpec(model="slow"))
        with (
            Direct(rig.settings, rig.history) as direct,
            Plain(rig.broker.port_v3, rig.settings.root, ["slow"], rig.history) as plain,
            PlainCaller(rig.broker.port, paho.MQTTv5, ("s2m3/v1/module/slow-left/+/in",)) as work,
        ):
            for i in range(80):
                direct.ask(f"direct{i}", echo(i, "slow"))
            for i in range(40):  # as many as a gateway takes at once: others wait in the broker, and are gone with it
                plain.ask(f"plain{i}", echo(i, "slow"))
            taken: set[bytes] = set()
            while len(taken) < 80 + 40:  # what the gateway has not taken is gone with the broker
                taken.add(work.message().properties.CorrelationData)  # type: ignore[union-attr]
            rig.restart_broker(gently=gently)
            rig.history.wait_until_all_answered(WAIT_S)
            verdict = rig.history.verdict()
            plain.wait_until_back()
            direct.ask("after-direct", echo(1, "slow"))
            plain.ask("after-plain", echo(2, "slow"))
            assert rig.history.wait_until_all_answered(WAIT_S), rig.history.verdict()
    return verdict


@pytest.mark.parametrize("how", ["killed", pytest.param("stopped", marks=pytest.mark.long)])
def test_requests_under_way_outlive_a_broker_that_forgets_everything(build: Build, say: Say, how: str) -> None:
    """Mosquitto, when it is told to end, says farewell with everybody's last will."""
    rig = build()
    verdict = _restart_with_requests_under_way(rig, gently=how == "stopped")
    say(f"{rig.broker.kind}, {how}, no persistence: {verdict}")
    assert verdict.holds, verdict


@pytest.mark.long
def test_requests_under_way_outlive_a_broker_that_remembers(build: Build, kind: BrokerKind, say: Say) -> None:
    if kind == "embedded":
        pytest.skip("it keeps everything in memory")
    rig = build(persistence=True)
    verdict = _restart_with_requests_under_way(rig, gently=True)
    say(f"{rig.broker.kind}, persistence: {verdict}")
    assert verdict.holds, verdict
    assert not verdict.plain_duplicates


@pytest.mark.long
def test_a_load_goes_on_over_restarts_of_the_broker(build: Build, rng: random.Random, say: Say) -> None:
    rig = build()
    with Site(rig.settings) as site:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        with (
            Direct(rig.settings, rig.history) as direct,
            Load([direct], [echo(i) for i in range(400)], count=400, per_s=60.0, rng=rng) as load,
        ):
            while load.lasts(1.5):
                rig.restart_broker(away_s=rng.uniform(0.1, 1.0))
            rig.history.wait_until_all_answered(WAIT_S)
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}: {verdict}")
    assert verdict.holds, verdict
    assert not verdict.errors, verdict


@pytest.mark.parametrize("persistence", [pytest.param(False, marks=pytest.mark.long), True])
@pytest.mark.short_on("mosquitto")
def test_a_node_that_died_while_the_broker_was_away_is_lost_all_the_same(
    build: Build, kind: BrokerKind, rng: random.Random, say: Say, *, persistence: bool
) -> None:
    """No broker publishes its last will any more; one that remembers even goes on saying that it is ready."""
    if persistence and kind == "embedded":
        pytest.skip("it keeps everything in memory")
    rig = build(persistence=persistence, spare=False)
    with Site(rig.settings) as site:
        rig.add(site, "noop", m.TaskSpec(model="noop"))
        victim = rng.choice(sorted(holders_of(site, "noop")))
        rig.broker.kill()
        rig.kill(victim)
        rig.broker.start()
    with Site(rig.settings) as site, Direct(rig.settings, rig.history) as direct:
        took = seconds_until(site, lambda s: s.ready("noop") and victim not in holders_of(s, "noop"))
        direct.ask("after", echo(1))
        assert rig.history.wait_until_all_answered(WAIT_S)
        assert victim not in site.nodes.present
    verdict = rig.history.verdict()
    say(f"{rig.broker.kind}, persistence {persistence}: its modules were elsewhere after {took:.1f} s; {verdict}")
    assert verdict.holds, verdict
    assert not verdict.errors, verdict
