"""Which documents the broker owes us: those that other documents name and that never came."""

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.missing_documents import MissingDocuments
from s2m3.schemas.messages import NodeProfile, NodeState, Replica, Reported, RouteDoc, RouteStep
from tests.planner_service.site import hold, join, lose, make_facts


def route(*nodes: str) -> RouteDoc:
    step = RouteStep(
        module="m", inputs={"x": "input.x"}, outputs=["y"], replicas=[Replica(node=n, ms=1) for n in nodes]
    )
    return RouteDoc(epoch=1, revision=1, model="noop", inputs={}, answer=["y"], deadline_s=1, steps={"s": step})


@pytest.fixture
def cluster() -> ClusterState:
    """The nodes a and b, with all their documents."""
    made = make_facts()
    for node in ("a", "b"):
        hold(made, node)
    return made


def test_where_each_node_has_its_documents_nothing_is_missing(cluster: ClusterState) -> None:
    missing = MissingDocuments()
    for node in ("a", "b"):
        missing.on_plan(node)
        missing.on_load(node)
    missing.on_route("t", route("a", "b"))
    assert missing.find(cluster) == frozenset()


def test_the_state_of_each_node_is_missing_that_another_document_names(cluster: ClusterState) -> None:
    missing = MissingDocuments()
    missing.on_plan("p")
    missing.on_plan("q")
    missing.on_route("t", route("r"))
    missing.on_load("l")
    cluster.profiles["f"] = cluster.profiles["a"]
    cluster.reported["g"] = cluster.reported["a"]
    assert missing.find(cluster) == {f"node/{node}/state" for node in "pqrlfg"}


def test_a_later_route_names_other_nodes_and_our_own_documents_name_none(cluster: ClusterState) -> None:
    missing = MissingDocuments()
    missing.on_route("t", route("old"))
    missing.on_route("t", route("new"))
    missing.on_route("u", route("other"))
    assert missing.find(cluster) == {"node/new/state", "node/other/state"}
    missing.on_plan("p")
    missing.on_planned()
    assert missing.find(cluster) == frozenset()


def test_a_node_that_sent_telemetry_is_asked_for_until_its_state_is_there(cluster: ClusterState) -> None:
    missing = MissingDocuments()
    missing.on_load("l")
    assert missing.find(cluster) == {"node/l/state"}
    assert missing.find(cluster) == {"node/l/state"}
    join(cluster, "l")
    hold(cluster, "l")
    assert missing.find(cluster) == frozenset()
    cluster.nodes.update("l", None)
    cluster.profiles.pop("l")
    cluster.reported.pop("l")
    assert missing.find(cluster) == frozenset(), "what it sent before is no word that it is there now"


def test_a_lost_node_that_sends_telemetry_is_asked_for_its_state_once_for_each_time(cluster: ClusterState) -> None:
    missing = MissingDocuments()
    missing.on_load("a")
    lose(cluster, "a")
    missing.on_lost("a")
    assert missing.find(cluster) == frozenset(), "what it sent before it was lost"
    missing.on_load("a")
    missing.on_load("unknown")
    assert missing.find(cluster) == {"node/a/state", "node/unknown/state"}
    assert missing.find(cluster) == {"node/a/state", "node/unknown/state"}
    missing.on_asked(cluster)
    assert missing.find(cluster) == {"node/unknown/state"}
    missing.on_load("a")
    join(cluster, "a")
    assert missing.find(cluster) == {"node/unknown/state"}


def test_a_profile_and_a_report_of_another_process_are_missing(cluster: ClusterState) -> None:
    missing = MissingDocuments()
    cluster.nodes.update("a", NodeState(state="ready", boot="2"))
    assert missing.find(cluster) == {"node/a/profile", "node/a/reported"}
    cluster.profiles.pop("b")
    assert missing.find(cluster) == {"node/a/profile", "node/a/reported", "node/b/profile"}
    cluster.reported["a"] = Reported(boot="2")
    assert missing.find(cluster) == {"node/a/profile", "node/b/profile"}
    lose(cluster, "a", boot="2")
    assert missing.find(cluster) == {"node/b/profile"}, "a lost node is not asked"


def test_a_profile_is_news_once_and_again_when_it_changes_or_goes(cluster: ClusterState) -> None:
    profile: NodeProfile = cluster.profiles["a"]
    assert not cluster.take_profile("a", profile)
    assert cluster.take_profile("a", profile.model_copy(update={"gflops": 7.0}))
    assert cluster.profiles["a"].gflops == 7.0
    assert cluster.take_profile("a", None)
    assert "a" not in cluster.profiles
    assert not cluster.take_profile("a", None)
