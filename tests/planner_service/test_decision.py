"""From places to plans and routes: make before break, ready copies only, gateways that stay."""

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Decision, decide
from s2m3.planner.site.placement import Placement, place
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.messages import ModuleReport, NodeState, Plan, Reported, TaskSpec
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


def ids(decision: Decision, node: str) -> list[str]:
    """In the order in which they are to be loaded."""
    return [spec.id for spec in decision.assignments[node].modules]


def measured(cluster: ClusterState, **memory_mb: float) -> None:
    """Sets what modules take, as another node that is there measured it."""
    reports = {m.replace("_", "-"): ModuleReport(state="ready", memory_mb=mb) for m, mb in memory_mb.items()}
    cluster.reported["elsewhere"] = Reported(boot="1", modules=reports)


def test_beside_a_copy_that_has_to_stay_the_smallest_new_ones_are_loaded_as_far_as_they_fit() -> None:
    cluster = make_facts("noop", nodes={"a": 100.0, "b": 100.0})
    measured(cluster, noop_left=40.0, noop_right=50.0, noop_head=15.0)
    hold(cluster, "a", "noop-left")
    moving = placement(left="b", right="a", head="a")  # 40 have to stay: 50 and 15 are too many, 15 is not
    assert ids(decide(cluster, moving), "a") == ["noop-head", "noop-left"]
    measured(cluster, noop_left=40.0, noop_right=45.0, noop_head=15.0)
    hold(cluster, "a", "noop-left")
    assert ids(decide(cluster, moving), "a") == ["noop-head", "noop-left", "noop-right"]  # they fill it exactly


def test_what_a_node_holds_is_kept_beside_a_copy_that_has_to_stay_although_it_is_over_its_memory() -> None:
    cluster = make_facts("noop", nodes={"a": 100.0, "b": 100.0})
    hold(cluster, "a", "noop-left", "noop-right")
    measured(cluster, noop_left=70.0, noop_right=60.0, noop_head=1.0)
    decision = decide(cluster, placement(left="b", right="a", head="a"))
    assert ids(decision, "a") == ["noop-left", "noop-right"]


def test_where_no_old_copy_has_to_stay_memory_is_not_asked_about() -> None:
    cluster = make_facts("noop", nodes={"a": 1.0, "b": 100.0})
    measured(cluster, noop_left=70.0, noop_right=60.0, noop_head=50.0)
    assert ids(decide(cluster, placement(left="a", right="a", head="a")), "a") == list(NOOP)


def test_modules_are_loaded_in_the_order_of_their_names_and_further_copies_last() -> None:
    cluster = make_facts("noop")
    spare = Placement({name: ["b"] for name in NOOP}, spare={"noop-head": ["a"], "noop-left": ["a"]})
    moved = Placement({**spare.modules, "noop-right": ["a", "b"]}, spare=spare.spare)
    assert ids(decide(cluster, moved), "a") == ["noop-right", "noop-head", "noop-left"]
    assert ids(decide(cluster, moved), "b") == list(NOOP)


def test_a_node_without_a_profile_keeps_its_copies() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", *NOOP)
    del cluster.profiles["b"]
    assert ids(decide(cluster, placement(left="b", right="b", head="b")), "b") == list(NOOP)


def test_a_node_that_is_held_back_and_keeps_nothing_is_told_nothing() -> None:
    cluster = make_facts("noop", nodes=dict.fromkeys("abc", 100.0))
    at_a = {name: ["a"] for name in NOOP}
    assert set(decide(cluster, Placement(at_a)).assignments) == {"a", "b", "c"}
    assert set(decide(cluster, Placement(at_a, held={"b": "flaps"})).assignments) == {"a", "c"}
    cluster.nodes.update("b", NodeState(state="draining", boot="1"))
    assert set(decide(cluster, Placement(at_a, held={"b": "flaps"})).assignments) == {"a", "b", "c"}


def test_a_node_that_is_held_back_goes_on_with_what_only_it_has() -> None:
    cluster = make_facts("noop")
    hold(cluster, "b", *NOOP)
    decision = decide(cluster, Placement({name: ["a"] for name in NOOP}, held={"b": "flaps"}))
    assert ids(decision, "b") == list(NOOP)


def test_a_node_that_is_held_back_is_no_gateway() -> None:
    cluster = make_facts("noop")
    decision = decide(cluster, Placement({name: ["a"] for name in NOOP}, held={"a": "flaps"}))
    assert {node for node, a in decision.assignments.items() if a.gateways} == {"b"}


def test_gateways_are_spread_over_nodes_and_stay_where_they_are() -> None:
    tasks = ("noop", "classification", "retrieval", "vqa")
    cluster = make_facts(*tasks)
    fresh = {node: a.gateways for node, a in decide(cluster, Placement()).assignments.items()}
    assert fresh == {"a": ("classification", "retrieval"), "b": ("noop", "vqa")}
    cluster.plans = {"b": Plan(epoch=1, revision=1, gateways=["classification", "noop", "removed"])}
    kept = {node: a.gateways for node, a in decide(cluster, Placement()).assignments.items()}
    assert kept == {"a": ("retrieval", "vqa"), "b": ("classification", "noop")}


def gateways(cluster: ClusterState) -> dict[str, tuple[str, ...]]:
    """Node -> the tasks that it is gateway of."""
    return {node: a.gateways for node, a in decide(cluster, Placement()).assignments.items() if a.gateways}


def test_a_node_of_an_older_release_is_a_gateway_only_where_there_is_no_newer_node() -> None:
    """It acknowledges no message on a topic that it does not know, and the task's other requests wait behind it."""
    cluster = make_facts("noop", "vqa")
    assert gateways(cluster) == {"a": ("noop",), "b": ("vqa",)}
    cluster.plans["a"] = Plan(epoch=1, revision=1, gateways=["noop", "vqa"])
    join(cluster, "b", boot="2", protocol=1)
    assert gateways(cluster) == {"b": ("noop", "vqa")}
    cluster.profiles["b"] = cluster.profiles["b"].model_copy(update={"most_gateways": 1})
    assert gateways(cluster) == {"a": ("vqa",), "b": ("noop",)}
    lose(cluster, "b", boot="2")
    assert gateways(cluster) == {"a": ("noop", "vqa")}


def test_where_every_node_drains_those_that_have_a_plan_go_on_as_gateways() -> None:
    cluster = make_facts("noop", nodes=dict.fromkeys("ab", 100.0))
    for node in "ab":
        cluster.nodes.update(node, NodeState(state="draining", boot="1"))
    assert all(not a.gateways for a in decide(cluster, Placement()).assignments.values())
    cluster.plans["b"] = Plan(epoch=1, revision=1)
    assert decide(cluster, Placement()).assignments["b"].gateways == ("noop",)


def test_a_module_that_a_ready_node_still_holds_is_not_kept_without_a_place() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", *NOOP)
    assert ids(decide(cluster, Placement()), "a") == []
    cluster.nodes.update("a", NodeState(state="draining", boot="1"))
    assert ids(decide(cluster, Placement()), "a") == list(NOOP)
    hold(cluster, "b", "noop-head")
    assert ids(decide(cluster, Placement()), "a") == ["noop-left", "noop-right"]


def test_a_route_says_what_a_requester_has_to_know_of_its_steps() -> None:
    cluster = make_facts("noop")
    cluster.tasks["noop"] = TaskSpec(model="noop", inputs={"left": 1}, deadline_s=7.0)
    cluster.profiles["a"] = cluster.profiles["a"].model_copy(update={"latency_ms": 1.234, "mbps": 98.76})
    hold(cluster, "a", *NOOP)
    doc = decide(cluster, Placement({name: ["a"] for name in NOOP})).routes["noop"]
    assert (doc.model, doc.deadline_s, doc.answer, doc.defaults) == ("noop", 7.0, ["echo"], {"left": 1})
    assert dict(doc.inputs) == {"left": "data", "right": "data"}
    head = doc.steps["head"]
    assert (head.module, head.outputs, head.inputs) == (
        "noop-head",
        ["echo"],
        {"left": "left.code", "right": "right.code"},
    )
    spec = cluster.catalogue.modules["noop-left"]
    left = doc.steps["left"]
    assert (left.input_kb, left.output_kb, left.generates) == (spec.input_kb, spec.output_kb, spec.generates)
    (replica,) = left.replicas
    assert (replica.node, replica.ms, replica.latency_ms, replica.mbps) == ("a", 0.1, 1.2, 99.0)


def test_times_in_a_route_have_two_digits_so_that_a_few_percent_make_no_new_document() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", *NOOP)
    held = cluster.reported["a"].modules["noop-left"].model_copy(update={"ms": 12.34})
    cluster.reported["a"].modules["noop-left"] = held
    doc = decide(cluster, Placement({name: ["a"] for name in NOOP})).routes["noop"]
    assert doc.steps["left"].replicas[0].ms == 12.0


def test_a_task_that_cannot_be_placed_but_is_served_where_it_was_has_no_error() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", *NOOP)
    errors = {"noop": NoCapacityError("7 MB too little")}
    places = {name: ["a"] for name in NOOP}
    assert decide(cluster, Placement(places, errors=errors)).routes["noop"].error is None
    lose(cluster, "a")
    assert decide(cluster, Placement(places, errors=errors)).routes["noop"].error is not None


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


def _limited(cluster: ClusterState, **most: int) -> dict[str, tuple[str, ...]]:
    for node, gateways in most.items():
        cluster.profiles[node] = cluster.profiles[node].model_copy(update={"most_gateways": gateways})
    decision = decide(cluster, Placement())
    return {node: a.gateways for node, a in decision.assignments.items() if a.gateways}


def test_40_a_node_is_gateway_of_as_many_tasks_as_its_open_files_allow_and_the_rest_has_none() -> None:
    cluster = make_facts("noop", "classification")
    assert _limited(cluster, a=0, b=1) == {"b": ("classification",)}
    assert _limited(cluster, a=1, b=1) == {"a": ("classification",), "b": ("noop",)}


def test_40_a_node_whose_limit_is_lower_than_before_gives_the_last_ones_away() -> None:
    cluster = make_facts("noop", "classification")
    cluster.plans = {"b": Plan(epoch=1, revision=1, gateways=["classification", "noop"])}
    assert _limited(cluster, b=1) == {"a": ("noop",), "b": ("classification",)}
    assert _limited(cluster, b=2) == {"b": ("classification", "noop")}


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
