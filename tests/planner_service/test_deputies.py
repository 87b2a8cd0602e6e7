"""Which nodes behind the other brokers of a cluster are deputies of a task's gateway: few, those that can answer."""

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.deputies import deputies
from s2m3.planner.site.placement import Placement
from s2m3.planner.site.published_documents import Documents
from s2m3.schemas.messages import Plan, StandIn, TaskSpec
from tests.planner_service.site import hold, join, lose, make_facts

HEAD = "noop-head"


def at(cluster: ClusterState, **brokers: str) -> None:
    """Notes the broker of each node."""
    for node, broker in brokers.items():
        cluster.profiles[node] = cluster.profiles[node].model_copy(update={"broker": broker})


def clustered(**brokers: str) -> ClusterState:
    """Nodes at brokers, each with the head of noop."""
    cluster = make_facts("noop", nodes=dict.fromkeys(brokers, 4000.0))
    for node in brokers:
        hold(cluster, node, HEAD)
    at(cluster, **brokers)
    return cluster


def test_each_other_broker_has_a_deputy_that_can_answer_and_the_gateways_own_has_none() -> None:
    cluster = clustered(a="one", b="two", c="two", d="three", e="one", f="")
    assert deputies(cluster, {"noop": "a"}) == {"b": {"noop": "a"}, "d": {"noop": "a"}}
    hold(cluster, "b", HEAD, state="loading")
    assert deputies(cluster, {"noop": "a"}) == {"c": {"noop": "a"}, "d": {"noop": "a"}}
    lose(cluster, "c")
    assert deputies(cluster, {"noop": "a"}) == {"d": {"noop": "a"}}
    cluster.profiles["d"] = cluster.profiles["d"].model_copy(update={"gateway": False})
    assert deputies(cluster, {"noop": "a"}) == {}


def test_there_are_two_at_most_and_those_that_there_are_stay() -> None:
    cluster = clustered(a="one", b="two", c="two", d="three", e="four")
    assert deputies(cluster, {"noop": "a"}) == {"b": {"noop": "a"}, "d": {"noop": "a"}}
    cluster.plans = {node: Plan(epoch=1, revision=1, deputies={"noop": "x"}) for node in ("c", "e")}
    assert deputies(cluster, {"noop": "a"}) == {"c": {"noop": "a"}, "e": {"noop": "a"}}


def test_a_deputy_stays_when_the_gateway_comes_to_its_broker_but_those_elsewhere_are_first() -> None:
    cluster = clustered(a="two", b="two", c="two")
    cluster.plans = {"b": Plan(epoch=1, revision=1, deputies={"noop": "a"})}
    assert deputies(cluster, {"noop": "a"}) == {"b": {"noop": "a"}}
    assert deputies(cluster, {"noop": "b"}) == {}  # it is the gateway itself
    cluster = clustered(a="two", b="two", d="three", e="four")
    cluster.plans = {"b": Plan(epoch=1, revision=1, deputies={"noop": "a"})}
    assert deputies(cluster, {"noop": "a"}) == {"d": {"noop": "a"}, "e": {"noop": "a"}}
    lose(cluster, "e")
    assert deputies(cluster, {"noop": "a"}) == {"b": {"noop": "a"}, "d": {"noop": "a"}}


def test_nodes_have_about_as_many_tasks_each() -> None:
    cluster = clustered(a="one", b="two", c="two")
    for task in ("noop-2", "noop-3", "noop-4"):
        cluster.want(task, TaskSpec(model="noop"))
    found = deputies(cluster, dict.fromkeys(cluster.tasks, "a"))
    assert {node: sorted(tasks) for node, tasks in found.items()} == {
        "b": ["noop", "noop-3"],
        "c": ["noop-2", "noop-4"],
    }


def test_where_there_is_one_broker_or_the_gateway_claims_nothing_there_are_none() -> None:
    assert deputies(clustered(a="one", b="one"), {"noop": "a"}) == {}
    assert deputies(clustered(a="", b="two"), {"noop": "a"}) == {}
    assert deputies(clustered(a="", b="two", c="three"), {"noop": "a"}) == {}
    cluster = clustered(a="one", b="one", c="two")
    lose(cluster, "c")
    assert deputies(cluster, {"noop": "a"}) == {}


def test_the_head_of_a_stand_in_will_do() -> None:
    cluster = clustered(a="one", b="two")
    cluster.want("porch", TaskSpec(model="retrieval", stand_ins=[StandIn(model="classification")]))
    assert deputies(cluster, {"porch": "a"}) == {}
    stand_in = cluster.model_of("porch", 1)
    assert stand_in is not None
    hold(cluster, "b", stand_in.steps[stand_in.head].module)
    assert deputies(cluster, {"porch": "a"}) == {"b": {"porch": "a"}}


def test_plans_name_deputies_and_a_removed_task_has_none() -> None:
    cluster = clustered(a="one", b="two")
    for node in ("a", "b"):
        join(cluster, node, boot="1", protocol=1)
        hold(cluster, node, HEAD)
    at(cluster, a="one", b="two")
    decision = decide(cluster, Placement({HEAD: ["a", "b"]}))
    assert decision.assignments["a"].gateways == ("noop",)
    assert decision.assignments["b"].deputies == {"noop": "a"}
    assert decision.without_removed([]).assignments["b"].deputies == {}
    published: dict[str, bytes] = {}
    documents = Documents("r", 1)
    documents.update(decision, published.__setitem__)
    assert documents.plans["b"].deputies == {"noop": "a"}
    assert b'"deputies":{"noop":"a"}' in published["r/plan/b"]
