"""Sleeping nodes: which are wanted, when a magic packet is due and by whom it is sent, when one is given up."""

from collections.abc import Mapping

import pytest

from s2m3.planner.site.awake import with_wanted_sleepers
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.placement import Placement, place
from s2m3.planner.site.placer import placer
from s2m3.planner.site.waking import Waking, helpers
from s2m3.schemas.instance import Instance
from s2m3.schemas.messages import NodeState
from s2m3.schemas.sleep import NodeSettings
from tests.planner_service.site import hold, join, lose, make_facts
from tests.planner_service.test_stand_ins import porch

MAC = "52:54:00:12:34:56"


def solve(instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    return placer(60.0)(False)(instance, current)  # noqa: FBT003  # Placer's one argument


def placed(cluster: ClusterState) -> Placement:
    return with_wanted_sleepers(cluster, place(cluster, solve, 0.0), solve, 0.0)


def sleeper(cluster: ClusterState, node: str, memory: float = 1000.0, *, prefer: float = 1.0) -> None:
    join(cluster, node, memory)
    lose(cluster, node, left=True)
    cluster.settings[node] = NodeSettings(wake=MAC, prefer=prefer)


# ---- who sleeps and is wanted --------------------------------------------------------------------------------------


def test_a_node_sleeps_if_it_left_in_order_and_has_a_wake_address() -> None:
    cluster = make_facts(nodes={"a": 1.0})
    for node in ("in-order", "crashed", "no-address", "back"):
        sleeper(cluster, node)
    cluster.settings["no-address"] = NodeSettings(prefer=2.0)
    lose(cluster, "crashed")  # its last will: the power is gone
    cluster.nodes.update("back", NodeState(state="ready", boot="2"))
    assert cluster.sleeping() == ["in-order"]
    assert not cluster.nodes.has_left("nobody")


def test_a_task_that_fits_only_on_a_sleeping_node_wants_it_and_its_route_says_so() -> None:
    cluster = make_facts("transcription", "classification", nodes={"small": 60.0})
    sleeper(cluster, "desktop")
    found = placed(cluster)
    assert found.asleep == {"transcription": ["desktop"]}
    route = decide(cluster, found).routes["transcription"]
    assert route.asleep == ["desktop"]
    assert route.error is not None
    assert route.error.code == "no_capacity"
    assert route.error.detail.endswith("; it would fit on desktop, asleep: `s2m3 status` says what is done about it")
    assert decide(cluster, found).routes["classification"].asleep == []


def test_nothing_is_wanted_awake_where_all_is_served_or_where_it_would_not_help() -> None:
    served = make_facts("transcription")
    sleeper(served, "desktop")
    assert placed(served).asleep == {}
    too_small = make_facts("transcription", nodes={"small": 60.0})
    sleeper(too_small, "tablet", 60.0)
    assert placed(too_small).asleep == {}


def test_of_several_sleeping_nodes_the_heavier_is_wanted_and_both_only_where_one_is_not_enough() -> None:
    cluster = make_facts("transcription", nodes={"small": 1.0})
    sleeper(cluster, "attic")
    sleeper(cluster, "desktop", prefer=2.0)
    assert placed(cluster).asleep == {"transcription": ["desktop"]}
    both = make_facts("transcription", nodes={"small": 1.0})
    sleeper(both, "attic", 220.0)
    sleeper(both, "desktop", 220.0)
    assert placed(both).asleep == {"transcription": ["attic", "desktop"]}


def test_a_task_on_a_stand_in_wants_the_node_that_brings_its_best_model() -> None:
    cluster = porch(pi=20.0)  # the smallest of three models
    assert placed(cluster).asleep == {}
    sleeper(cluster, "laptop", 50.0, prefer=2.0)  # of the middle one
    assert placed(cluster).asleep == {"porch": ["laptop"]}
    sleeper(cluster, "desktop", 500.0)
    found = placed(cluster)
    assert found.asleep == {"porch": ["desktop"]}
    route = decide(cluster, found).routes["porch"]
    assert (route.asleep, route.error) == (["desktop"], None)


def test_going_to_sleep_is_no_flapping_and_nobody_hopes_for_its_return() -> None:
    cluster = make_facts("transcription", nodes={"a": 1000.0})
    for now in (0.0, 1.0, 2.0, 3.0):
        cluster.flapping.came("a", now)
        cluster.note_sleep("a", now + 0.5)
    assert cluster.flapping.held(4.0) == {}
    assert not cluster.hopes("transcription", 4.0)
    cluster.note_loss("a", 4.0)
    assert cluster.hopes("transcription", 4.0)


def test_what_a_sleeping_node_held_does_not_keep_its_task_ready() -> None:
    cluster = make_facts("transcription", nodes={"small": 60.0})
    sleeper(cluster, "desktop")
    hold(cluster, "desktop", "whisper-tiny-en-encoder", "whisper-tiny-en-decoder")
    found = placed(cluster)
    assert found.asleep == {"transcription": ["desktop"]}
    assert all(not step.replicas for step in decide(cluster, found).routes["transcription"].steps.values())


# ---- when -----------------------------------------------------------------------------------------------------------


def test_one_packet_is_due_at_once_and_then_one_each_interval_until_it_is_given_up() -> None:
    waking = Waking(interval_s=60.0)
    sent = []
    for now in range(1000):
        waking.want("desktop", "the task porch", now)  # a request each second
        for node in waking.due(now):
            waking.sent(node, "pi", now)
            sent.append(now)
    assert sent == [0, 60, 120]
    assert waking.text("desktop").startswith(
        "given up: wanted for the task porch, 3 magic packets 60 s apart, the last sent by pi, and it did not come"
    )


def test_who_was_given_up_is_tried_again_after_an_hour_or_when_somebody_says_so() -> None:
    waking = Waking(interval_s=1.0)
    now = 0.0
    while not waking.text("desktop").startswith("given up"):
        waking.want("desktop", "t", now)
        for node in waking.due(now):
            waking.sent(node, "pi", now)
        now += 1.0
    waking.want("desktop", "t", now + 3590.0)
    assert waking.due(now + 3590.0) == []
    waking.want("desktop", "t", now + 3600.0)
    assert waking.due(now + 3600.0) == ["desktop"]
    waking.want("desktop", "somebody", now + 10.0, afresh=True)
    assert waking.due(now + 10.0) == ["desktop"]


def test_a_node_that_came_and_sleeps_again_gets_no_second_packet_within_the_interval() -> None:
    waking = Waking(interval_s=60.0)
    waking.want("desktop", "t", 0.0)
    waking.sent("desktop", "pi", 0.0)
    waking.forget("desktop")
    assert waking.nodes == []
    waking.want("desktop", "t", 30.0)
    assert waking.due(30.0) == []
    assert waking.text("desktop") == "asleep; it is woken when a request wants it"
    assert waking.due(60.0) == ["desktop"]


def test_without_a_node_that_could_send_it_the_packet_counts_and_the_reason_says_so() -> None:
    waking = Waking(interval_s=1.0)
    waking.want("desktop", "t", 0.0)
    for now in (0.0, 1.0, 2.0, 3.0):
        for node in waking.due(now):
            waking.sent(node, None, now)
    assert "and no node is there that could send one" in waking.text("desktop")
    assert waking.text("desktop").startswith("given up")


@pytest.mark.parametrize(
    ("network", "order"), [("192.168.1.0/24", ["c", "a", "b"]), ("", ["a", "b", "c"]), ("10.0.0.0/8", ["a", "b", "c"])]
)
def test_nodes_of_its_own_network_wake_a_node_first(network: str, order: list[str]) -> None:
    cluster = make_facts(nodes={"a": 1.0, "b": 1.0, "c": 1.0, "gone": 1.0, "desktop": 1.0})
    lose(cluster, "gone")
    lose(cluster, "desktop", left=True)
    for node, where in (("c", "192.168.1.0/24"), ("b", "172.17.0.0/16"), ("desktop", network)):
        cluster.profiles[node] = cluster.profiles[node].model_copy(update={"network": where})
    assert helpers(cluster, "desktop") == order
