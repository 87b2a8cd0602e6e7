"""From places to plans and routes: make before break, ready copies only, fronts that stay."""

from planner.decide import Decision, decide
from planner.placing import Places, place
from schemas.errors import NoCapacityError
from schemas.messages import NodeState, Plan, TaskSpec
from tests.planner_service.site import hold, join, lose, make_facts

NOOP = ("noop-head", "noop-left", "noop-right")


def places(**nodes: str) -> Places:
    """noop's modules: head, left and right each on a node."""
    return Places({f"noop-{name}": [node] for name, node in nodes.items()})


def modules(decision: Decision, node: str) -> list[str]:
    return sorted(spec.id for spec in decision.assignments[node].modules)


def replicas(decision: Decision, step: str) -> list[str]:
    return [replica.node for replica in decision.routes["noop"].steps[step].replicas]


def test_nodes_are_told_to_hold_what_is_placed_on_them_and_nothing_is_routed_before_it_is_ready() -> None:
    decision = decide(make_facts("noop"), places(left="a", right="b", head="b"))
    assert modules(decision, "a") == ["noop-left"]
    assert modules(decision, "b") == ["noop-head", "noop-right"]
    assert [replicas(decision, step) for step in ("left", "right", "head")] == [[], [], []]


def test_routes_name_ready_copies() -> None:
    facts = make_facts("noop")
    hold(facts, "a", "noop-left")
    hold(facts, "b", "noop-right", state="loading")
    decision = decide(facts, places(left="a", right="b", head="b"))
    assert replicas(decision, "left") == ["a"]
    assert replicas(decision, "right") == []


def test_an_old_copy_stays_and_serves_until_the_new_one_is_ready_and_goes_then() -> None:
    facts = make_facts("noop")
    hold(facts, "a", *NOOP)
    moving = places(left="b", right="a", head="a")
    before = decide(facts, moving)
    assert modules(before, "a") == sorted(NOOP)
    assert modules(before, "b") == ["noop-left"]
    assert replicas(before, "left") == ["a"]
    hold(facts, "b", "noop-left")
    after = decide(facts, moving)
    assert modules(after, "a") == ["noop-head", "noop-right"]
    assert replicas(after, "left") == ["b"]


def test_a_new_module_that_does_not_fit_beside_one_that_has_to_stay_waits_for_it() -> None:
    facts = make_facts("transcription", nodes={"a": 130.0, "b": 130.0})
    hold(facts, "a", "whisper-tiny-en-decoder")
    hold(facts, "b", "whisper-tiny-en-encoder")
    swap = Places({"whisper-tiny-en-decoder": ["b"], "whisper-tiny-en-encoder": ["a"]})
    decision = decide(facts, swap)
    assert modules(decision, "a") == ["whisper-tiny-en-decoder"]
    assert "whisper-tiny-en-encoder" in modules(decision, "b")


def test_a_lost_nodes_copy_is_not_routed_to() -> None:
    facts = make_facts("noop")
    hold(facts, "a", *NOOP)
    lose(facts, "a")
    decision = decide(facts, places(left="b", right="b", head="b"))
    assert replicas(decision, "left") == []
    assert "a" not in decision.assignments


def test_a_draining_node_serves_until_its_modules_are_ready_elsewhere() -> None:
    facts = make_facts("noop")
    hold(facts, "a", *NOOP)
    facts.nodes.update("a", NodeState(state="draining", boot="1"))
    decision = decide(facts, places(left="b", right="b", head="b"))
    assert replicas(decision, "left") == ["a"]
    hold(facts, "b", *NOOP)
    decision = decide(facts, places(left="b", right="b", head="b"))
    assert modules(decision, "a") == []
    assert replicas(decision, "left") == ["b"]


def test_the_last_node_that_drains_goes_on_serving_what_nobody_else_can() -> None:
    facts = make_facts("noop", nodes={"a": 100.0})
    hold(facts, "a", *NOOP)
    facts.plans["a"] = facts.plans["a"].model_copy(update={"fronts": ["noop"]})
    facts.nodes.update("a", NodeState(state="draining", boot="1"))
    decision = decide(facts, place(facts, lambda _instance, _current: {}, 0.0))
    assert modules(decision, "a") == sorted(NOOP)
    assert decision.assignments["a"].fronts == ("noop",)
    assert replicas(decision, "left") == ["a"]
    assert decision.routes["noop"].error is None


def test_a_report_of_an_earlier_process_does_not_count() -> None:
    facts = make_facts("noop")
    hold(facts, "a", *NOOP)
    join(facts, "a", boot="2")
    assert replicas(decide(facts, places(left="a", right="a", head="a")), "left") == []


def test_a_node_that_takes_no_plain_requests_is_nobodys_front() -> None:
    facts = make_facts("noop", "classification")
    facts.profiles["a"] = facts.profiles["a"].model_copy(update={"front": False})
    fronts = {node: a.fronts for node, a in decide(facts, Places()).assignments.items() if a.fronts}
    assert fronts == {"b": ("classification", "noop")}


def test_a_task_has_one_front_that_stays_and_another_when_its_node_is_lost() -> None:
    facts = make_facts("noop", "classification")
    first = decide(facts, Places())
    fronts = {task: node for node, a in first.assignments.items() for task in a.fronts}
    assert set(fronts) == {"noop", "classification"}
    assert fronts["noop"] != fronts["classification"]
    facts.plans = {n: Plan(epoch=1, revision=1, fronts=list(a.fronts)) for n, a in first.assignments.items()}
    join(facts, "c")
    again = decide(facts, Places())
    assert {task: node for node, a in again.assignments.items() for task in a.fronts} == fronts
    lose(facts, fronts["noop"])
    moved = decide(facts, Places())
    after = {task: node for node, a in moved.assignments.items() for task in a.fronts}
    assert after["noop"] != fronts["noop"]
    assert after["classification"] == fronts["classification"]


def test_a_task_has_no_front_before_its_session_is_open() -> None:
    facts = make_facts("noop")
    facts.sessions.clear()
    assert all(not a.fronts for a in decide(facts, Places()).assignments.values())


def test_second_copies_in_spare_memory_are_loaded_last_and_used() -> None:
    facts = make_facts("noop")
    both = Places({name: ["a"] for name in NOOP}, spare={"noop-head": ["b"]})
    hold(facts, "a", *NOOP)
    hold(facts, "b", "noop-head")
    assert replicas(decide(facts, both), "head") == ["a", "b"]
    mixed = Places({"noop-left": ["b"], "noop-right": ["b"], "noop-head": ["a"]}, spare={"noop-head": ["b"]})
    assert [spec.id for spec in decide(facts, mixed).assignments["b"].modules][-1] == "noop-head"


def test_a_task_that_cannot_be_placed_says_why_in_its_route() -> None:
    facts = make_facts("noop")
    doc = decide(facts, Places(errors={"noop": NoCapacityError("7 MB too little")})).routes["noop"]
    assert doc.error is not None
    assert (doc.error.code, doc.error.detail) == ("no_capacity", "7 MB too little")


def test_a_task_of_an_unknown_model_says_so_in_its_route() -> None:
    facts = make_facts()
    facts.tasks["odd"] = TaskSpec(model="nonsense")
    found = place(facts, lambda _instance, _current: {}, 0.0)
    doc = decide(facts, found).routes["odd"]
    assert doc.error is not None
    assert "nonsense" in doc.error.detail
