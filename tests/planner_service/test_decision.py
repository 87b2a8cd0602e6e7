"""From places to plans and routes: make before break, ready copies only, gateways that stay."""

from s2m3.planner.site.decision import Decision, decide
from s2m3.planner.site.placement import Placement, place
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.messages import NodeState, Plan, TaskSpec
from tests.planner_service.site import hold, join, lose, make_facts

NOOP = ("noop-head", "noop-left", "noop-right")


def placement(**nodes: str) -> Placement:
    """noop's modules: head, left and right each on a node."""
    return Placement({f"noop-{name}": [node] for name, node in nodes.items()})


def modules(decision: Decision, node: str) -> list[str]:
    return sorted(spec.id for spec in decision.assignments[node].modules)


def replicas(decision: Decision, step: str) -> list[str]:
    return [replica.node for replica in decision.routes["noop"].steps[step].replicas]


def test_nodes_are_told_to_hold_what_is_placed_on_them_and_nothing_is_routed_before_it_is_ready() -> None:
    decision = decide(make_facts("noop"), placement(left="a", right="b", head="b"))
    assert modules(decision, "a") == ["noop-left"]
    assert modules(decision, "b") == ["noop-head", "noop-right"]
    assert [replicas(decision, step) for step in ("left", "right", "head")] == [[], [], []]


def test_routes_name_ready_copies() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", "noop-left")
    hold(cluster, "b", "noop-right", state="loading")
    decision = decide(cluster, placement(left="a", right="b", head="b"))
    assert replicas(decision, "left") == ["a"]
    assert replicas(decision, "right") == []


def test_an_old_copy_stays_and_serves_until_the_new_one_is_ready_and_goes_then() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", *NOOP)
    moving = placement(left="b", right="a", head="a")
    before = decide(cluster, moving)
    assert modules(before, "a") == sorted(NOOP)
    assert modules(before, "b") == ["noop-left"]
    assert replicas(before, "left") == ["a"]
    hold(cluster, "b", "noop-left")
    after = decide(cluster, moving)
    assert modules(after, "a") == ["noop-head", "noop-right"]
    assert replicas(after, "left") == ["b"]


def test_a_new_module_that_does_not_fit_beside_one_that_has_to_stay_waits_for_it() -> None:
    cluster = make_facts("transcription", nodes={"a": 130.0, "b": 130.0})
    hold(cluster, "a", "whisper-tiny-en-decoder")
    hold(cluster, "b", "whisper-tiny-en-encoder")
    swap = Placement({"whisper-tiny-en-decoder": ["b"], "whisper-tiny-en-encoder": ["a"]})
    decision = decide(cluster, swap)
    assert modules(decision, "a") == ["whisper-tiny-en-decoder"]
    assert "whisper-tiny-en-encoder" in modules(decision, "b")


def test_a_lost_nodes_copy_is_not_routed_to() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", *NOOP)
    lose(cluster, "a")
    decision = decide(cluster, placement(left="b", right="b", head="b"))
    assert replicas(decision, "left") == []
    assert "a" not in decision.assignments


def test_a_draining_node_serves_until_its_modules_are_ready_elsewhere() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", *NOOP)
    cluster.nodes.update("a", NodeState(state="draining", boot="1"))
    decision = decide(cluster, placement(left="b", right="b", head="b"))
    assert replicas(decision, "left") == ["a"]
    hold(cluster, "b", *NOOP)
    decision = decide(cluster, placement(left="b", right="b", head="b"))
    assert modules(decision, "a") == []
    assert replicas(decision, "left") == ["b"]


def test_the_last_node_that_drains_goes_on_serving_what_nobody_else_can() -> None:
    cluster = make_facts("noop", nodes={"a": 100.0})
    hold(cluster, "a", *NOOP)
    cluster.plans["a"] = cluster.plans["a"].model_copy(update={"gateways": ["noop"]})
    cluster.nodes.update("a", NodeState(state="draining", boot="1"))
    decision = decide(cluster, place(cluster, lambda _instance, _current: {}, 0.0))
    assert modules(decision, "a") == sorted(NOOP)
    assert decision.assignments["a"].gateways == ("noop",)
    assert replicas(decision, "left") == ["a"]
    assert decision.routes["noop"].error is None


def test_a_report_of_an_earlier_process_does_not_count() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", *NOOP)
    join(cluster, "a", boot="2")
    assert replicas(decide(cluster, placement(left="a", right="a", head="a")), "left") == []


def test_a_node_that_takes_no_plain_requests_is_nobodys_gateway() -> None:
    cluster = make_facts("noop", "classification")
    cluster.profiles["a"] = cluster.profiles["a"].model_copy(update={"gateway": False})
    gateways = {node: a.gateways for node, a in decide(cluster, Placement()).assignments.items() if a.gateways}
    assert gateways == {"b": ("classification", "noop")}


def test_a_task_has_one_front_that_stays_and_another_when_its_node_is_lost() -> None:
    cluster = make_facts("noop", "classification")
    first = decide(cluster, Placement())
    gateways = {task: node for node, a in first.assignments.items() for task in a.gateways}
    assert set(gateways) == {"noop", "classification"}
    assert gateways["noop"] != gateways["classification"]
    cluster.plans = {n: Plan(epoch=1, revision=1, gateways=list(a.gateways)) for n, a in first.assignments.items()}
    join(cluster, "c")
    again = decide(cluster, Placement())
    assert {task: node for node, a in again.assignments.items() for task in a.gateways} == gateways
    lose(cluster, gateways["noop"])
    moved = decide(cluster, Placement())
    after = {task: node for node, a in moved.assignments.items() for task in a.gateways}
    assert after["noop"] != gateways["noop"]
    assert after["classification"] == gateways["classification"]


def test_a_task_has_no_front_before_its_session_is_open() -> None:
    cluster = make_facts("noop")
    cluster.sessions.clear()
    assert all(not a.gateways for a in decide(cluster, Placement()).assignments.values())


def test_second_copies_in_spare_memory_are_loaded_last_and_used() -> None:
    cluster = make_facts("noop")
    both = Placement({name: ["a"] for name in NOOP}, spare={"noop-head": ["b"]})
    hold(cluster, "a", *NOOP)
    hold(cluster, "b", "noop-head")
    assert replicas(decide(cluster, both), "head") == ["a", "b"]
    mixed = Placement({"noop-left": ["b"], "noop-right": ["b"], "noop-head": ["a"]}, spare={"noop-head": ["b"]})
    assert [spec.id for spec in decide(cluster, mixed).assignments["b"].modules][-1] == "noop-head"


def test_a_task_that_cannot_be_placed_says_why_in_its_route() -> None:
    cluster = make_facts("noop")
    doc = decide(cluster, Placement(errors={"noop": NoCapacityError("7 MB too little")})).routes["noop"]
    assert doc.error is not None
    assert (doc.error.code, doc.error.detail) == ("no_capacity", "7 MB too little")


def test_a_task_of_an_unknown_model_says_so_in_its_route() -> None:
    cluster = make_facts()
    cluster.tasks["odd"] = TaskSpec(model="nonsense")
    found = place(cluster, lambda _instance, _current: {}, 0.0)
    doc = decide(cluster, found).routes["odd"]
    assert doc.error is not None
    assert "nonsense" in doc.error.detail
