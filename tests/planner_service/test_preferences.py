"""Preferences of the running site: a task's order and nodes' weights, in placements, routes, the choice of copies."""

from collections.abc import Mapping

import pytest

from s2m3.broker.requests.routing import Backlog, Router
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.placement import Placement, place
from s2m3.planner.site.placer import placer
from s2m3.schemas.instance import Instance
from s2m3.schemas.messages import TaskSpec
from s2m3.schemas.sleep import NodeSettings
from tests.planner_service.site import hold, lose, make_facts

MODULES = ("efficientnet-lite0", "imagenet-linear")


def solve(instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
    return placer(60.0)(True)(instance, current)  # noqa: FBT003  # Placer's one argument


def facts(*prefer: str, **weights: float) -> ClusterState:
    """Three nodes of equal speed, and a task of two modules."""
    cluster = make_facts("classification", nodes={"a": 1000.0, "b": 1000.0, "c": 1000.0})
    cluster.tasks["classification"] = TaskSpec(model="classification", prefer=list(prefer))
    for node, weight in weights.items():
        cluster.settings[node] = NodeSettings(prefer=weight)
    return cluster


@pytest.mark.parametrize(
    ("cluster", "node"),
    [
        (facts("c", "b"), "c"),
        (facts("gone", "b"), "b"),
        (facts(c=2.0), "c"),
        (facts("b", c=1.5), "b"),
        (facts("b", c=3.0), "c"),
    ],
)
def test_a_task_is_placed_where_it_is_preferred(cluster: ClusterState, node: str) -> None:
    assert place(cluster, solve, 0.0).modules == {module: [node] for module in MODULES}


def test_without_the_preferred_node_the_next_serves_and_it_serves_again_when_it_is_back() -> None:
    cluster = facts("c", "b")
    lose(cluster, "c")
    found = place(cluster, solve, 0.0).modules
    assert found == {module: ["b"] for module in MODULES}
    hold(cluster, "b", *MODULES)
    back = facts("c", "b")
    hold(back, "b", *MODULES)
    assert place(back, solve, 0.0).modules == {module: ["c"] for module in MODULES}


def test_routes_carry_the_price_of_each_copy_and_requesters_ask_the_preferred_one() -> None:
    cluster = facts("c", "b")
    for node in ("a", "b", "c"):
        hold(cluster, node, *MODULES)
    doc = decide(cluster, Placement({module: ["a", "b", "c"] for module in MODULES})).routes["classification"]
    prices = {replica.node: replica.price_ms for replica in doc.steps["vision"].replicas}
    assert prices == {"c": 0.0, "b": 1000.0, "a": 2000.0}
    router = Router(doc)
    route = router.choose(Backlog())
    assert route is not None
    assert {hop.node for hop in route.values()} == {"c"}
    vision = doc.steps["vision"]
    ms = next(replica.ms for replica in vision.replicas if replica.node == "c")
    queued = {("c", vision.module): int(1500 / ms)}
    busy = router.choose(Backlog(queued=queued))
    assert busy is not None
    assert busy["vision"].node == "b", "the queue is longer than a place is worth, and shorter than two"


def test_a_settings_document_counts_when_it_differs() -> None:
    cluster = facts()
    assert cluster.set_settings("a", NodeSettings(prefer=2.0))
    assert not cluster.set_settings("a", NodeSettings(prefer=2.0))
    assert cluster.weight("a") == 2.0
    assert cluster.set_settings("a", None)
    assert not cluster.set_settings("a", None)
    assert cluster.weight("a") == 1.0
