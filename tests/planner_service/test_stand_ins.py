"""Tasks of several models: the best that fits is placed, what answers stays until a better one is there and steady."""

from collections.abc import Mapping
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Decision, decide
from s2m3.planner.site.placement import Placement, place
from s2m3.planner.site.placer import placer, second_copies_in_spare
from s2m3.planner.site.stand_in_inputs import fixed_inputs, why_not_stand_in
from s2m3.planner.site.steadiness import Steadiness
from s2m3.planner.site_metrics import count_site
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance
from s2m3.schemas.messages import ModuleReport, NodeState, Plan, Reported, StandIn, TaskSpec
from s2m3.schemas.specs import ModuleSpec
from tests.planner_service.site import join, lose, make_facts
from tests.system.ranked import definition


def SOLVE(instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:  # noqa: N802
    return placer(60.0)(False)(instance, current)  # noqa: FBT003


def want(cluster: ClusterState, task: str, *models: tuple[str, float]) -> None:
    """A task of these models, (name, memory in MB) each, the best first."""
    (name, memory), *further = models
    stand_ins = [StandIn(model=other, definition=definition(other, mb)) for other, mb in further]
    cluster.want(task, TaskSpec(model=name, definition=definition(name, memory), stand_ins=stand_ins))
    cluster.sessions.add(task)


def porch(**nodes: float) -> ClusterState:
    """A task of three models: big (100 MB), mid (40) and small (10)."""
    cluster = make_facts(nodes=nodes)
    want(cluster, "porch", ("big", 100.0), ("mid", 40.0), ("small", 10.0))
    return cluster


def ready(cluster: ClusterState, node: str, *modules: str) -> None:
    """The node holds these modules, ready, and its plan names them."""
    specs = [cluster.catalogue.modules[module] for module in modules]
    reports = {spec.id: ModuleReport(state="ready", memory_mb=spec.memory_mb) for spec in specs}
    cluster.reported[node] = Reported(boot=cluster.nodes.boot(node) or "1", modules=reports)
    cluster.plans[node] = Plan(epoch=1, revision=1, modules=specs)


def placed(cluster: ClusterState, now: float = 0.0) -> Placement:
    return place(cluster, SOLVE, now, second_copies_in_spare)


def modules(decision: Decision, node: str) -> list[str]:
    return [spec.id for spec in decision.assignments[node].modules]


def copies(decision: Decision, task: str = "porch") -> list[list[str]]:
    """The nodes with a ready copy, by rank."""
    ranks = decision.routes[task].ranks
    return [[replica.node for step in one.steps.values() for replica in step.replicas] for one in ranks]


def test_the_best_model_is_placed_and_the_others_are_warm_on_other_nodes() -> None:
    found = placed(porch(a=120.0, b=60.0, c=15.0))
    assert (found.modules, found.ranks, found.errors) == ({"big": ["a"]}, {"porch": 0}, {})
    assert found.stand_ins == {"mid": ["b"], "small": ["c"]}


def test_stand_ins_come_before_second_copies_and_those_take_what_is_left() -> None:
    cluster = porch(a=130.0, b=60.0, c=130.0, d=20.0)
    found = placed(cluster)
    assert (found.stand_ins, set(found.spare)) == ({"mid": ["b"], "small": ["d"]}, {"big"})
    tight = placed(porch(a=130.0, b=120.0))
    assert (tight.stand_ins, tight.spare) == ({"mid": ["b"]}, {})
    without = place(cluster, SOLVE, 0.0)
    assert (without.stand_ins, without.spare) == ({}, {})


def test_where_the_best_does_not_fit_the_next_is_placed_and_the_reason_has_the_numbers() -> None:
    cluster = porch(a=60.0, b=60.0)
    found = placed(cluster)
    assert (found.ranks, found.errors) == ({"porch": 1}, {})
    error = found.missed["porch"][0]
    assert isinstance(error, NoCapacityError)
    assert "big needs 100 MB" in error.detail
    route = decide(cluster, found).routes["porch"]
    assert [one.error is None for one in route.ranks] == [False, True, True]


def test_where_nothing_fits_the_task_says_so() -> None:
    assert placed(porch(a=5.0)).errors["porch"].code == "no_capacity"


def test_all_tasks_get_an_answer_before_one_gets_its_best() -> None:
    cluster = make_facts(nodes={"a": 100.0})
    for task in ("x", "y"):
        want(cluster, task, (f"{task}-big", 95.0), (f"{task}-small", 40.0))
    assert placed(cluster).ranks == {"x": 1, "y": 1}


def test_what_is_placed_at_its_best_stays_so_for_a_task_that_comes_first_by_name() -> None:
    cluster = make_facts(nodes={"a": 110.0})
    for task in ("x", "y"):
        want(cluster, task, (f"{task}-big", 60.0), (f"{task}-small", 40.0))
    assert placed(cluster).ranks == {"x": 0, "y": 1}
    ready(cluster, "a", "y-big", "x-small")
    assert placed(cluster).ranks == {"x": 1, "y": 0}


def test_a_node_under_pressure_keeps_the_best_model_and_gives_up_its_stand_ins() -> None:
    cluster = porch(a=120.0, b=60.0)
    ready(cluster, "a", "big")
    ready(cluster, "b", "mid")
    cluster.reported["a"] = cluster.reported["a"].model_copy(update={"pressure_mb": 80.0})
    found = placed(cluster)
    assert (found.ranks, found.modules, found.stand_ins) == ({"porch": 0}, {"big": ["a"]}, {})


def test_a_model_that_is_not_known_is_passed_over_and_the_route_says_so() -> None:
    cluster = porch(a=120.0)
    cluster.want("porch", TaskSpec(model="nobody-knows", stand_ins=cluster.tasks["porch"].stand_ins))
    found = placed(cluster)
    assert (found.ranks, found.errors) == ({"porch": 1}, {})
    route = decide(cluster, found).routes["porch"]
    assert (route.model, route.rank) == ("mid", 1)
    assert [one.error.code if one.error else None for one in route.ranks] == ["unknown_task", None, None]


def test_routes_have_all_ranks_and_the_old_fields_those_of_the_one_that_answers() -> None:
    cluster = porch(a=120.0, b=60.0, c=20.0)
    ready(cluster, "b", "mid")
    ready(cluster, "c", "small")
    decision = decide(cluster, placed(cluster))
    route = decision.routes["porch"]
    assert copies(decision) == [[], ["b"], ["c"]]
    assert (route.model, route.rank, list(route.steps)) == ("mid", 1, ["look-rank1"])
    assert [list(one.steps) for one in route.ranks] == [["look"], ["look-rank1"], ["look-rank2"]]
    ready(cluster, "a", "big")
    later = decide(cluster, placed(cluster)).routes["porch"]
    assert (later.model, later.rank, list(later.steps)) == ("big", 0, ["look"])
    assert route.description == later.description == "big", "what the task does, whichever model answers"


def test_a_task_counts_as_on_a_stand_in_while_one_answers() -> None:
    cluster = porch(a=120.0, b=60.0, c=20.0)
    cluster.want("plain", TaskSpec(model="noop"))

    def counted() -> float | None:
        count_site(cluster, decide(cluster, placed(cluster)))
        return REGISTRY.get_sample_value("s2m3_tasks_on_stand_in")

    assert counted() == 0
    ready(cluster, "b", "mid")
    assert counted() == 1
    ready(cluster, "a", "big")
    assert counted() == 0


def test_references_between_steps_of_a_stand_in_follow_their_names() -> None:
    cluster = make_facts(nodes={"a": 1000.0})
    cluster.want("porch", TaskSpec(model="retrieval", stand_ins=[StandIn(model="classification")]))
    steps = decide(cluster, placed(cluster)).routes["porch"].ranks[1].steps
    assert steps["vision-rank1"].inputs == {"image": "input.image"}
    assert steps["classes-rank1"].inputs == {"features": "vision-rank1.features"}
    assert steps["classes-rank1"].after == ("vision-rank1",)


def test_readers_of_one_model_are_not_given_one_that_takes_another_kind_of_what_they_ask() -> None:
    cluster = make_facts(nodes={"a": 1000.0})
    stand_in = StandIn(model="retrieval", inputs={"text": ["a cat", "a dog"]})
    cluster.want("porch", TaskSpec(model="vqa", stand_ins=[stand_in, StandIn(model="classification")]))
    ready(cluster, "a", "efficientnet-lite0", "imagenet-linear", "minilm", "conse")
    route = decide(cluster, placed(cluster)).routes["porch"]
    assert (route.model, route.rank) == ("vqa", 0)
    assert [one.fixed for one in route.ranks] == [{}, {"text": ["a cat", "a dog"]}, {}]
    assert route.rank_on(frozenset("a")) == 1


def test_readers_of_one_model_are_given_what_the_task_takes_and_the_values_of_the_stand_in() -> None:
    cluster = make_facts(nodes={"a": 1000.0})
    stand_in = StandIn(model="retrieval", inputs={"text": ["a cat", "a dog"]})
    cluster.want("porch", TaskSpec(model="clip-classification", stand_ins=[stand_in], threshold=0.5))
    route = decide(cluster, placed(cluster)).routes["porch"]
    assert (route.rank, route.inputs, route.defaults) == (0, {"image": "image"}, {})
    assert [one.threshold for one in route.ranks] == [0.5, None]
    ready(cluster, "a", "efficientnet-lite0", "imagenet-linear", "minilm", "conse")
    route = decide(cluster, placed(cluster)).routes["porch"]
    assert (route.rank, route.inputs) == (1, {"image": "image", "text": "texts"})
    assert route.defaults == {"text": ["a cat", "a dog"]}
    assert route.threshold is None, "calibrated on the scores of another model"


def test_the_model_that_answers_stays_until_the_better_one_is_ready() -> None:
    cluster = porch(a=120.0)  # no other node: the better model takes the memory that the stand-in will not need
    ready(cluster, "a", "small")
    found = Placement({"big": ["a"]}, {"porch": 0})
    assert modules(decide(cluster, found), "a") == ["big", "small"]
    ready(cluster, "a", "big", "small")
    assert modules(decide(cluster, found), "a") == ["big"]


def test_the_model_that_answers_stays_though_the_better_one_does_not_fit_beside_it() -> None:
    cluster = porch(a=105.0)
    ready(cluster, "a", "small")
    assert modules(decide(cluster, Placement({"big": ["a"]}, {"porch": 0})), "a") == ["small"]


def test_a_better_model_that_has_to_go_stays_until_the_worse_is_ready_where_both_fit() -> None:
    wide, narrow = porch(a=120.0), porch(a=105.0)
    for cluster in (wide, narrow):
        ready(cluster, "a", "big")
    found = Placement({"small": ["a"]}, {"porch": 2})
    assert modules(decide(wide, found), "a") == ["big", "small"]
    assert modules(decide(narrow, found), "a") == ["big"]
    assert modules(decide(narrow, replace(found, breaks=True)), "a") == ["small"]


def test_a_better_model_that_came_back_answers_only_when_it_is_steady() -> None:
    cluster = porch(a=120.0, b=60.0)
    cluster.steadiness = Steadiness(5.0)
    ready(cluster, "a", "big")
    ready(cluster, "b", "mid")
    cluster.note_steadiness(0.0)
    lose(cluster, "a")
    cluster.note_steadiness(10.0)
    assert copies(decide(cluster, placed(cluster, 10.0), 10.0)) == [[], ["b"], []]
    join(cluster, "a", 120.0, boot="2")
    ready(cluster, "a", "big")
    cluster.note_steadiness(20.0)
    early = decide(cluster, placed(cluster, 24.9), 24.9)
    assert copies(early) == [[], ["b"], []]
    assert early.routes["porch"].rank == 1
    assert cluster.next_retry(20.0) == 25.0
    late = decide(cluster, placed(cluster, 25.0), 25.0)
    assert copies(late) == [["a"], ["b"], []]
    assert late.routes["porch"].rank == 0


def test_what_came_back_last_answers_at_once_where_nothing_else_does() -> None:
    cluster = porch(a=120.0)
    cluster.steadiness = Steadiness(5.0)
    ready(cluster, "a", "big")
    cluster.note_steadiness(0.0)
    lose(cluster, "a")
    cluster.note_steadiness(1.0)
    cluster.nodes.update("a", NodeState(state="ready", boot="1"))
    cluster.note_steadiness(2.0)
    assert copies(decide(cluster, placed(cluster, 2.0), 2.0)) == [["a"], [], []]


def test_a_model_is_steady_the_first_time_and_waits_anew_each_time_that_it_comes_back() -> None:
    steadiness = Steadiness(5.0)
    steadiness.note({"t": [False, True]}, 0.0)
    steadiness.note({"t": [True, True]}, 1.0)
    assert steadiness.unsteady("t", 1.0) == frozenset()
    for back in (10.0, 20.0):
        steadiness.note({"t": [False, True]}, back - 1.0)
        assert steadiness.next_steady(back - 1.0) is None
        steadiness.note({"t": [True, True]}, back)
        steadiness.note({"t": [True, True]}, back + 2.0)
        assert steadiness.unsteady("t", back + 4.9) == frozenset({0})
        assert steadiness.unsteady("t", back + 5.0) == frozenset()
        assert steadiness.next_steady(back) == back + 5.0
    assert steadiness.copy().unsteady("t", 21.0) == frozenset({0})


def test_a_task_that_is_gone_is_forgotten() -> None:
    steadiness = Steadiness(5.0)
    steadiness.note({"t": [True]}, 0.0)
    steadiness.note({}, 1.0)
    steadiness.note({"t": [True]}, 2.0)
    assert steadiness.unsteady("t", 2.0) == frozenset()


NEEDS = "it needs a value"


@pytest.mark.parametrize(
    ("best", "model", "own", "defaults", "why"),
    [
        ("retrieval", "classification", {}, {}, None),
        (
            "classification",
            "retrieval",
            {},
            {},
            f"as 'text', and requests do not give it: {NEEDS}",
        ),
        ("classification", "retrieval", {"text": ["a", "b"]}, {}, None),
        ("classification", "retrieval", {}, {"text": ["a", "b"]}, None),
        ("vqa", "retrieval", {}, {}, f"retrieval takes texts as 'text', and requests give text: {NEEDS}"),
        ("vqa", "retrieval", {}, {"text": "what is it?"}, NEEDS),
        ("vqa", "retrieval", {}, {"text": ["a", "b"]}, None),
        ("vqa", "retrieval", {"text": [1, None]}, {}, "which its value is not"),
        ("classification", "transcription", {}, {}, "transcription takes audio as 'audio'"),
        ("vqa", "classification", {}, {}, None),
    ],
)
def test_a_model_stands_in_where_its_inputs_have_values(
    best: str, model: str, own: dict[str, object], defaults: dict[str, object], why: str | None
) -> None:
    known = shipped_catalogue()
    found = why_not_stand_in(known.models[best], known.models[model], known.modules, own=own, defaults=defaults)
    assert (found is None) == (why is None)
    assert (why or "") in (found or "")


def test_a_model_whose_answer_is_of_another_kind_does_not_stand_in() -> None:
    known = shipped_catalogue()
    boxes = next(
        name for name, one in known.models.items() if one.answer[0] == "boxes" and set(one.inputs) == {"image"}
    )
    why = why_not_stand_in(known.models["classification"], known.models[boxes], known.modules, own={}, defaults={})
    assert why == f"{boxes} answers with boxes (boxes), classification with text (label)"


def test_the_planner_refuses_a_stand_in_by_itself() -> None:
    cluster = make_facts(nodes={"a": 1000.0})
    cluster.want("porch", TaskSpec(model="classification", stand_ins=[StandIn(model="retrieval")]))
    found = placed(cluster)
    assert found.ranks == {"porch": 0}
    (_, refused) = decide(cluster, found).routes["porch"].ranks
    assert refused.error is not None
    assert (refused.error.code, refused.steps) == ("bad_input", {})


def test_a_default_that_the_best_model_reads_is_not_the_stand_ins() -> None:
    kinds: dict[str, str] = {"image": "image", "text": "text"}
    taken: dict[str, str] = {"image": "images", "text": "texts", "language": "text"}
    defaults = {"text": "what is it?", "language": "en"}
    assert fixed_inputs(kinds, taken, {}, defaults) == {"language": "en"}  # type: ignore[arg-type]
    assert fixed_inputs(kinds, taken, {"text": ["a"]}, defaults) == {"text": ["a"], "language": "en"}  # type: ignore[arg-type]
    assert fixed_inputs({"text": "text"}, {"text": "chat"}, {}, defaults) == {}


def test_equal_modules_of_two_models_are_one() -> None:
    cluster = make_facts(nodes={"a": 1000.0})
    spec = ModuleSpec.model_validate(definition("one", 10.0).modules[0].model_dump(by_alias=True) | {"id": "other"})
    same = definition("other", 10.0).model_copy(update={"modules": [spec]})
    cluster.want(
        "porch",
        TaskSpec(model="one", definition=definition("one", 10.0), stand_ins=[StandIn(model="other", definition=same)]),
    )
    assert len({one.module_ids for one in cluster.ranks_of("porch") if not isinstance(one, Exception)}) == 1
