"""Nodes of other releases: what is not known excludes only what it is about; older nodes get what they can read."""

import json

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Assignment, Decision, decide
from s2m3.planner.site.missing_documents import MissingDocuments
from s2m3.planner.site.placement import Placement
from s2m3.planner.site.published_documents import Documents
from s2m3.schemas import messages as m
from s2m3.schemas import protocol, topics
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.protocol import Since
from s2m3.schemas.specs import ModuleSpec
from tests.planner_service.site import hold, join, make_facts

NOOP = shipped_catalogue().modules["noop-left"]


@pytest.fixture
def _later(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planner speaks 2, which brought a module's `generates` (needed) and its `gflops` (a hint)."""
    monkeypatch.setattr(protocol, "PROTOCOL", 2)
    monkeypatch.setattr("s2m3.planner.site.cluster_state.PROTOCOL", 2)
    for name, mark in (("generates", Since(2, needed=True)), ("gflops", Since(2))):
        field = ModuleSpec.model_fields[name]
        monkeypatch.setattr(field, "metadata", [*field.metadata, mark])


def later(**more: object) -> ModuleSpec:
    return NOOP.model_copy(update={"gflops": 7.0, **more})


def speaks(cluster: ClusterState, node: str, number: int) -> None:
    cluster.nodes.update(node, m.NodeState(state="ready", boot="1", protocol=number))


def test_a_state_that_is_not_known_is_there_and_gets_no_work() -> None:
    cluster = make_facts("noop")
    cluster.nodes.update("a", topics.NODE_STATE.decode(b'{"state": "napping", "boot": "1"}'))
    assert cluster.nodes.present == {"a", "b"}
    assert cluster.usable() == ["b"]
    assert not cluster.nodes.lost


def test_a_module_in_a_state_that_is_not_known_is_not_ready_and_the_others_are() -> None:
    cluster = make_facts("noop")
    said = {"boot": "1", "modules": {"noop-left": {"state": "thawing"}, "noop-right": {"state": "ready"}}}
    cluster.take_report("a", topics.NODE_REPORTED.decode(json.dumps(said).encode()), 0.0)
    assert cluster.ready_nodes("noop-left") == []
    assert cluster.ready_nodes("noop-right") == ["a"]


def test_a_dtype_that_is_not_known_counts_as_float32_and_the_node_is_used() -> None:
    cluster = make_facts("noop", nodes={"a": 1000.0})
    said = json.loads(cluster.profiles["a"].encode())
    cluster.take_profile("a", topics.NODE_PROFILE.decode(json.dumps({**said, "dtype": "int2"}).encode()))
    assert cluster.usable() == ["a"]
    assert cluster.memory_for_modules("a") == 1000.0
    assert cluster.can_load(NOOP, "a", 0.0)
    assert cluster.memory_of(NOOP) > 0


def test_a_definition_that_cannot_be_read_refuses_its_task_alone() -> None:
    cluster = make_facts("noop")
    module = {**json.loads(NOOP.model_dump_json(by_alias=True)), "id": "newer", "role": "hologram"}
    model = {
        "id": "x",
        "description": "x",
        "inputs": {"a": "text"},
        "steps": {"s": {"module": "newer", "inputs": {"a": "input.a"}}},
    }
    said = {"model": "x", "definition": {"model": {**model, "answer": ["o"]}, "modules": [module]}}
    assert cluster.want("newer", topics.TASK.decode(json.dumps(said).encode()))
    assert cluster.model_of("newer") is None
    assert "modules.0.role" in str(cluster.ranks_of("newer")[0])
    assert cluster.model_of("noop") is not None


@pytest.mark.usefixtures("_later")
def test_a_module_that_needs_a_later_release_is_not_placed_on_an_older_node() -> None:
    cluster = make_facts(nodes={"old": 1000.0, "new": 1000.0})
    speaks(cluster, "old", 1)
    speaks(cluster, "new", 2)
    needy = later(generates="code")
    assert [node for node in ("old", "new") if cluster.can_load(needy, node, 0.0)] == ["new"]
    assert all(cluster.can_load(later(), node, 0.0) for node in ("old", "new"))


@pytest.mark.usefixtures("_later")
def test_a_plan_holds_what_its_node_can_read_and_is_written_again_when_another_release_runs_there() -> None:
    documents, said = Documents("s2m3/v1", 1), list[bytes]()
    for number in (1, 1, 2, 0):
        assignment = Assignment(modules=(later(),), protocol=number)
        documents.update(Decision({"a": assignment}), lambda _, payload: said.append(payload))
    assert [b"gflops" in payload for payload in said] == [False, True, False]
    again: list[bytes] = []
    documents.repeat(lambda _, payload: again.append(payload))
    assert again == said[-1:]


def test_each_plan_is_decided_with_what_its_node_reads() -> None:
    cluster = make_facts("noop")
    speaks(cluster, "b", 1)
    assignments = decide(cluster, Placement()).assignments
    assert {node: assignment.protocol for node, assignment in assignments.items()} == {"a": 0, "b": 1}


def test_a_site_whose_documents_fit_misses_nothing() -> None:
    cluster, missing = make_facts("noop"), MissingDocuments()
    for node in ("a", "b"):
        hold(cluster, node, "noop-left")
        missing.on_load(node)
        missing.on_plan(node)
    assert missing.find(cluster) == set()


def test_documents_that_others_speak_of_are_missed() -> None:
    cluster, missing = make_facts("noop"), MissingDocuments()
    for node in ("a", "b"):
        hold(cluster, node, "noop-left")
    step = m.RouteStep(
        module="noop-left", inputs={"x": "input.x"}, outputs=["code"], replicas=[m.Replica(node="e", ms=1)]
    )
    doc = m.RouteDoc(epoch=1, revision=1, model="noop", answer=["code"], deadline_s=1, steps={"s": step})
    missing.on_plan("c")
    missing.on_load("d")
    missing.on_route("noop", doc)
    assert missing.find(cluster) == {"node/c/state", "node/d/state", "node/e/state"}
    missing.on_planned()
    assert missing.find(cluster) == {"node/d/state"}
    join(cluster, "d")
    assert missing.find(cluster) == {"node/d/reported"}
    hold(cluster, "d", "noop-left", boot="another")
    cluster.profiles.pop("a")
    assert missing.find(cluster) == {"node/a/profile", "node/d/reported"}
