"""Two planners at once, a planner that was away, wills that come late: one plans, and nobody obeys an old one."""

import json
import time
from typing import Any

import paho.mqtt.client as paho
import pytest

from s2m3.client import Client
from s2m3.cluster import Cluster
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.snapshot import Site
from tests.conftest import WAIT_S
from tests.frozen import freeze, thaw
from tests.system.plain import PlainCaller

#: A frozen planner is noticed by Mosquitto after 1.5 times its keepalive, by the standby after 25 s of silence.
FROZEN_S = 25 + 2 * WAIT_S


def start_planners(cluster: Cluster, *names: str) -> None:
    for name in names:
        cluster._spawn(name, "planner")  # noqa: SLF001  # a cluster has one planner; these tests need two


def is_online(site: Site, above: int = 0) -> bool:
    return site.planner is not None and site.planner.state == "online" and site.planner.epoch > above


def epochs(listener: PlainCaller) -> list[tuple[str, int]]:
    """(topic, epoch) of every plan and route that came, in order."""
    found: list[tuple[str, int]] = []
    while not listener.answers.empty():
        message = listener.answers.get()
        if message.payload:
            document: dict[str, Any] = json.loads(message.payload)
            found.append((message.topic, document["epoch"]))
    return found


def acts(cluster: Cluster, name: str) -> bool:
    """Whether a planner's last word is that it plans, and not that it stands by."""
    log = cluster.log(name)
    return log.rfind("event=planner_up") > log.rfind("event=standing_by")


def only_one_acts(cluster: Cluster, *names: str) -> bool:
    stood_by = any("event=standing_by" in cluster.log(name) for name in names)
    return stood_by and sum(acts(cluster, name) for name in names) == 1


def wait_for_one(cluster: Cluster, site: Site, *names: str) -> str:
    assert site.wait(lambda _: only_one_acts(cluster, *names), 2 * WAIT_S), [cluster.log(name) for name in names]
    return next(name for name in names if acts(cluster, name))


@pytest.mark.short_on("mosquitto")
def test_of_two_planners_started_at_once_one_plans_and_the_other_takes_over_when_it_dies(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    noop_cluster.kill("planner")
    assert noop_site.wait(lambda s: s.planner is not None and s.planner.state == "offline", WAIT_S)
    before = noop_site.planner.epoch if noop_site.planner else 0
    start_planners(noop_cluster, "one", "two")
    assert noop_site.wait(lambda s: is_online(s, before), WAIT_S)
    acting = wait_for_one(noop_cluster, noop_site, "one", "two")
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]
    assert noop_site.wait(lambda s: len({plan.epoch for plan in s.plans.values()}) == 1, WAIT_S)
    epoch = noop_site.planner.epoch if noop_site.planner else 0
    noop_cluster.kill(acting)
    assert noop_site.wait(lambda s: is_online(s, epoch), 2 * WAIT_S)
    assert noop_client.ask("noop", left=3, right=4).value == [3, 4]


@pytest.mark.short_on("mosquitto")
def test_a_planner_that_was_frozen_and_the_one_that_took_over_do_not_plan_both(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    old = noop_site.planner.epoch if noop_site.planner else 0
    start_planners(noop_cluster, "standby")
    assert noop_site.wait(lambda _: "standing_by" in noop_cluster.log("standby"), WAIT_S)
    freeze(noop_cluster.processes["planner"])
    assert noop_site.wait(lambda s: is_online(s, old), FROZEN_S)
    new = noop_site.planner.epoch if noop_site.planner else 0
    assert noop_site.wait(lambda s: {plan.epoch for plan in s.plans.values()} == {new}, WAIT_S)
    assert noop_site.wait(lambda s: {route.epoch for route in s.routes.values()} == {new}, WAIT_S)
    heard = ("s2m3/v1/plan/+", "s2m3/v1/route/+")
    with PlainCaller(noop_cluster.broker.port, paho.MQTTv5, heard) as listener:
        thaw(noop_cluster.processes["planner"])
        assert noop_site.wait(lambda _: "superseded" in noop_cluster.log("planner"), 2 * WAIT_S)
        wait_for_one(noop_cluster, noop_site, "planner", "standby")
        assert [told for told in epochs(listener) if told[1] < new] == []
    assert noop_site.wait(lambda s: is_online(s, old), WAIT_S)  # a late will of the old one is contradicted
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]


@pytest.mark.short_on("embedded")
def test_a_planner_whose_clock_is_behind_one_that_the_broker_forgot_is_obeyed(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    ahead = (noop_site.planner.epoch if noop_site.planner else 0) + 3_600_000
    for node, plan in noop_site.plans.items():  # as that one left them
        noop_site.publish(topics.PLAN, plan.model_copy(update={"epoch": ahead}).encode(), node=node)
    assert noop_site.wait(lambda s: is_online(s, ahead), WAIT_S), noop_cluster.log("planner")
    assert noop_site.wait(lambda s: all(reported.epoch > ahead for reported in s.reported.values()), WAIT_S)
    assert noop_cluster.processes["planner"].poll() is None
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]


@pytest.mark.short_on("embedded")
def test_a_will_of_a_process_before_that_comes_late_takes_nobody_down(
    noop_cluster: Cluster, noop_client: Client, noop_site: Site
) -> None:
    old = noop_site.nodes.boot("a") or ""
    joined = noop_cluster.log("planner").count("event=node_joined node=a")
    noop_cluster.kill("a")
    noop_cluster.start_agent("a")
    back = noop_site.wait(lambda s: s.nodes.state("a") == "ready" and s.nodes.boot("a") != old, WAIT_S)
    assert back, noop_cluster.log("a")
    heard = noop_site.wait(lambda _: noop_cluster.log("planner").count("event=node_joined node=a") > joined, WAIT_S)
    assert heard, noop_cluster.log("planner")
    lost = noop_cluster.log("planner").count("event=node_lost node=a")
    noop_site.publish(topics.NODE_STATE, m.NodeState(state="lost", boot=old).encode(), node="a")
    assert noop_client.ask("noop", left=1, right=2).value == [1, 2]
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:  # whoever comes now finds the node, not the will
        with Site(noop_cluster.settings) as new:
            if new.nodes.state("a") == "ready":
                break
    assert new.nodes.state("a") == "ready"
    assert noop_site.wait(lambda s: s.nodes.state("a") == "ready", WAIT_S)
    assert noop_cluster.log("planner").count("event=node_lost node=a") == lost


@pytest.mark.short_on("mosquitto")
def test_a_planners_own_will_that_comes_late_is_contradicted(noop_cluster: Cluster, noop_site: Site) -> None:
    epoch = noop_site.planner.epoch if noop_site.planner else 0
    start_planners(noop_cluster, "standby")
    assert noop_site.wait(lambda _: "standing_by" in noop_cluster.log("standby"), WAIT_S)
    late = m.PlannerState(state="offline", epoch=epoch - 1)
    with PlainCaller(noop_cluster.broker.port, paho.MQTTv5, (topics.PLANNER_STATE.at(noop_site.root),)) as listener:
        noop_site.publish(topics.PLANNER_STATE, late.encode())
        while listener.answer()["state"] != "offline":  # what is retained comes first
            pass
        contradicted = listener.answer()
    assert (contradicted["state"], contradicted["epoch"]) == ("online", epoch)
    assert noop_site.wait(is_online, WAIT_S)
    assert "planner_up" not in noop_cluster.log("standby")
