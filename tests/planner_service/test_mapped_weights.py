"""Weights that are mapped from a disk: only of tasks that ask for it, only where a part fits nowhere, and where."""

from collections.abc import Sequence

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.mapped_weights import asked_modules, may_be_mapped, numbers_to_try
from s2m3.planner.site.placement import Placement, place
from s2m3.planner.site.placer import second_copies_in_spare
from s2m3.planner.site.report_content import content_of
from s2m3.planner.site.task_preview import preview_task
from s2m3.schemas.definitions import Catalogue, ModelSpec, ModuleSpec, shipped_catalogue
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.messages import ErrorBody, ModuleReport, Reported, TaskSpec
from tests.planner_service.site import hold, join, lose, make_facts
from tests.planner_service.test_placement import MEND, SOLVE

#: Counted with 100 MB and 32 MB where they are mapped, by a tenth of their weights and by the least.
EYES, EARS = "eyes", "ears"
SIZES = {EYES: 1000.0, EARS: 200.0}
OF = shipped_catalogue().modules["noop-left"]


def _module(name: str) -> ModuleSpec:
    return OF.model_copy(update={"id": name, "prefix": name, "memory_mb": SIZES[name], "gflops": 1.0})


def _model(name: str) -> ModelSpec:
    given = {"id": name, "description": name, "inputs": {"left": OF.inputs["data"]}, "answer": list(OF.outputs)}
    inputs = dict.fromkeys(OF.inputs, "input.left")
    return ModelSpec.model_validate({**given, "steps": {"one": {"module": name, "inputs": inputs}}})


def make_site(
    nodes: dict[str, float], *, asking: Sequence[str] = (), plainly: Sequence[str] = (), maps: Sequence[str] = ()
) -> ClusterState:
    """Nodes of this memory, of which some can map weights, and tasks that ask for it, and that do not."""
    cluster = make_facts(nodes=nodes)
    for node in maps or nodes:
        profile = cluster.profiles[node]
        cluster.profiles[node] = profile.model_copy(update={"mapped": [OF.class_]})
    catalogue = Catalogue(modules={name: _module(name) for name in SIZES}, models={n: _model(n) for n in SIZES})
    cluster.in_files, cluster._known = catalogue, []  # noqa: SLF001
    for task in (*asking, *plainly):
        cluster.tasks[task] = TaskSpec(model=task, map_weights=task in asking)
    return cluster


def _hold(cluster: ClusterState, node: str, module: str, *, mapped: bool, memory_mb: float, ms: float = 0.0) -> None:
    hold(cluster, node, "noop-left")
    report = ModuleReport(state="ready", memory_mb=memory_mb, ms=ms, mapped=mapped)
    cluster.reported[node] = Reported(boot="1", modules={module: report})
    plan = cluster.plans[node]
    cluster.plans[node] = plan.model_copy(update={"modules": [cluster.in_files.modules[module]]})


def _said(cluster: ClusterState, placement: Placement) -> dict[str, dict[str, str | None]]:
    decided = decide(cluster, placement).assignments
    return {node: {spec.id: spec.map_weights for spec in one.modules} for node, one in decided.items() if one.modules}


def test_a_part_that_fits_nowhere_is_refused_unless_its_task_asks_to_map_its_weights() -> None:
    refused = place(make_site({"a": 500.0}, plainly=[EYES]), SOLVE, 0.0)
    assert isinstance(refused.errors[EYES], NoCapacityError)
    cluster = make_site({"a": 500.0}, asking=[EYES])
    found = place(cluster, SOLVE, 0.0)
    assert (found.errors, found.modules, found.mapped) == ({}, {EYES: ["a"]}, {EYES})
    assert _said(cluster, found) == {"a": {EYES: "always"}}


@pytest.mark.parametrize("solve", [SOLVE, MEND])
def test_a_node_where_it_fits_whole_is_preferred_to_a_faster_one_where_it_does_not(solve: object) -> None:
    cluster = make_site({"small": 500.0, "tall": 1100.0}, asking=[EYES])
    cluster.profiles["small"] = cluster.profiles["small"].model_copy(update={"gflops": 10_000.0})
    found = place(cluster, SOLVE if solve is SOLVE else MEND, 0.0)
    assert (found.modules, set(found.mapped)) == ({EYES: ["tall"]}, set())
    assert _said(cluster, found) == {"tall": {EYES: "if-needed"}}


def test_it_moves_to_a_node_where_it_fits_whole_once_there_is_one() -> None:
    cluster = make_site({"a": 500.0}, asking=[EYES])
    _hold(cluster, "a", EYES, mapped=True, memory_mb=100.0, ms=900.0)
    assert place(cluster, SOLVE, 0.0).modules == {EYES: ["a"]}
    join(cluster, "b", 1100.0)
    found = place(cluster, SOLVE, 0.0)
    assert (found.modules, set(found.mapped)) == ({EYES: ["b"]}, set())
    # until it is ready there, the mapped copy stays
    assert _said(cluster, found) == {"a": {EYES: "if-needed"}, "b": {EYES: "if-needed"}}


def test_a_mapped_copy_says_nothing_of_the_memory_and_the_time_of_others() -> None:
    cluster = make_site({"a": 500.0, "b": 500.0}, asking=[EYES])
    before = cluster.seconds(cluster.catalogue.modules[EYES], "b")
    _hold(cluster, "a", EYES, mapped=True, memory_mb=120.0, ms=60_000.0)
    spec = cluster.catalogue.modules[EYES]
    assert (cluster.memory_of(spec), cluster.memory_of(spec, mapped=True)) == (1000.0, 120.0)
    assert cluster.seconds(spec, "b") == before
    assert cluster.seconds(spec, "a") == 60.0


def test_only_nodes_that_can_map_weights_are_asked_to() -> None:
    cluster = make_site({"a": 900.0, "b": 500.0}, asking=[EYES], maps=["b"])
    assert place(cluster, SOLVE, 0.0).modules == {EYES: ["b"]}
    lose(cluster, "b")
    error = place(cluster, SOLVE, 0.0).errors[EYES]
    assert isinstance(error, NoCapacityError)


def test_of_nodes_that_lack_memory_the_one_that_lacks_least_is_taken_until_its_time_is_measured() -> None:
    cluster = make_site({"a": 500.0, "b": 900.0}, asking=[EYES])
    cluster.profiles["a"] = cluster.profiles["a"].model_copy(update={"gflops": 10_000.0})
    assert place(cluster, SOLVE, 0.0).modules == {EYES: ["b"]}
    _hold(cluster, "a", EYES, mapped=True, memory_mb=100.0, ms=20.0)
    assert place(cluster, SOLVE, 0.0).modules == {EYES: ["a"]}


def test_as_few_weights_are_mapped_as_let_all_tasks_fit_the_largest_first() -> None:
    cluster = make_site({"a": 500.0}, asking=[EYES, EARS])
    found = place(cluster, SOLVE, 0.0)
    assert (found.errors, set(found.mapped)) == ({}, {EYES})
    # the node lacks memory for both whole, and has it for the smaller one
    assert _said(cluster, found) == {"a": {EARS: "if-needed", EYES: "always"}}
    less = make_site({"a": 150.0}, asking=[EYES, EARS])
    found = place(less, SOLVE, 0.0)
    assert (found.errors, set(found.mapped)) == ({}, {EYES, EARS})


def test_a_task_that_is_served_whole_is_not_given_up_for_a_try_with_mapped_weights() -> None:
    cluster = make_site({"a": 1100.0, "b": 50.0}, asking=[EYES], plainly=[EARS], maps=["b"])
    modules = dict(cluster.in_files.modules)
    modules[EARS] = modules[EARS].model_copy(update={"memory_mb": 5000.0})
    cluster.in_files, cluster._known = cluster.in_files.model_copy(update={"modules": modules}), []  # noqa: SLF001
    for _ in range(2):  # what one plan has tried is not what the next begins with
        found = place(cluster, SOLVE, 0.0)
        assert (set(found.errors), found.modules, set(found.mapped)) == ({EARS}, {EYES: ["a"]}, set())


def test_a_mapped_copy_that_stays_for_now_leaves_room_for_new_modules() -> None:
    cluster = make_site({"a": 500.0, "b": 1100.0}, asking=[EYES], plainly=[EARS])
    _hold(cluster, "a", EYES, mapped=True, memory_mb=100.0)
    moving = Placement(modules={EYES: ["b"], EARS: ["a"]})
    assert _said(cluster, moving)["a"] == {EARS: None, EYES: "if-needed"}


def test_a_module_that_is_to_be_mapped_goes_beside_a_copy_that_stays_for_now() -> None:
    cluster = make_site({"a": 500.0, "b": 500.0}, asking=[EYES], plainly=[EARS])
    _hold(cluster, "a", EARS, mapped=False, memory_mb=200.0)
    moving = Placement(modules={EYES: ["a"], EARS: ["b"]}, mapped={EYES})
    assert _said(cluster, moving)["a"] == {EARS: None, EYES: "always"}


def test_a_module_that_is_counted_as_mapped_is_read_where_all_of_a_node_fits_nevertheless() -> None:
    cluster = make_site({"a": 1300.0}, asking=[EYES], plainly=[EARS])
    assert _said(cluster, Placement(modules={EYES: ["a"]}, mapped={EYES})) == {"a": {EYES: "if-needed"}}
    both = Placement(modules={EYES: ["a"], EARS: ["a"]}, mapped={EYES})
    assert _said(cluster, both) == {"a": {EARS: None, EYES: "if-needed"}}


def test_where_it_fits_not_even_mapped_the_error_says_what_lacks_then() -> None:
    cluster = make_site({"a": 60.0}, asking=[EYES])
    error = place(cluster, SOLVE, 0.0).errors[EYES]
    assert isinstance(error, NoCapacityError)
    assert "100" in error.detail
    assert "1000" not in error.detail


def test_another_task_fits_beside_a_mapped_part_and_not_beside_one_that_is_in_memory() -> None:
    cluster = make_site({"a": 1100.0}, asking=[EYES], plainly=[EARS])
    _hold(cluster, "a", EYES, mapped=False, memory_mb=1000.0)
    found = place(cluster, SOLVE, 0.0)
    assert set(found.errors) == {EARS}
    _hold(cluster, "a", EYES, mapped=True, memory_mb=100.0)
    found = place(cluster, SOLVE, 0.0)
    assert (found.errors, found.modules) == ({}, {EYES: ["a"], EARS: ["a"]})
    assert _said(cluster, found) == {"a": {EARS: None, EYES: "always"}}


def test_spare_memory_gets_no_second_copy_of_a_mapped_part() -> None:
    cluster = make_site({"a": 900.0, "b": 900.0}, asking=[EYES], plainly=[EARS])
    found = place(cluster, SOLVE, 0.0, second_copies_in_spare)
    assert EYES not in found.spare
    assert EARS in found.spare


def test_a_part_that_another_task_shares_may_be_mapped_for_both() -> None:
    cluster = make_site({"a": 500.0}, asking=[EYES])
    cluster.tasks["other"] = TaskSpec(model=EYES)
    found = place(cluster, SOLVE, 0.0)
    assert (found.errors, found.modules) == ({}, {EYES: ["a"]})


def test_a_definition_may_ask_for_it_as_a_task_does() -> None:
    cluster = make_site({"a": 500.0}, plainly=[EYES])
    modules = dict(cluster.in_files.modules)
    modules[EYES] = modules[EYES].model_copy(update={"map_weights": "if-needed"})
    cluster.in_files, cluster._known = cluster.in_files.model_copy(update={"modules": modules}), []  # noqa: SLF001
    assert asked_modules(cluster) == {EYES}
    assert place(cluster, SOLVE, 0.0).errors == {}


def test_modules_that_would_take_as_much_mapped_are_not_mapped() -> None:
    cluster = make_site({"a": 500.0}, asking=[EYES, EARS])
    modules = {name: spec.model_copy(update={"memory_mb": 20.0}) for name, spec in cluster.in_files.modules.items()}
    cluster.in_files, cluster._known = cluster.in_files.model_copy(update={"modules": modules}), []  # noqa: SLF001
    with cluster.indexed():
        assert may_be_mapped(cluster, ["a"]) == []


@pytest.mark.parametrize(("count", "numbers"), [(0, []), (1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (9, [1, 2, 4, 8, 9])])
def test_few_numbers_of_mapped_modules_are_tried_and_all_of_them_last(count: int, numbers: list[int]) -> None:
    assert list(numbers_to_try(["m"] * count)) == numbers


def test_a_node_that_refused_to_map_says_why() -> None:
    cluster = make_site({"a": 500.0}, asking=[EYES])
    why = ErrorBody(code="no_capacity", detail="its weights cannot be mapped: the files hold float16")
    cluster.take_report("a", Reported(boot="1", modules={EYES: ModuleReport(state="failed", reason=why)}), now=0.0)
    assert "the files hold float16" in str(place(cluster, SOLVE, 1.0).errors[EYES])


def test_a_preview_says_that_it_would_be_mapped_and_what_it_takes_then() -> None:
    cluster = make_site({"a": 500.0})
    (one,) = preview_task(cluster, EYES, TaskSpec(model=EYES, map_weights=True), SOLVE, 0.0).modules
    assert (one.mapped, one.memory_mb, one.nodes) == (True, 100.0, ["a"])


def test_that_a_copy_is_mapped_changes_plans() -> None:
    one, other = (Reported(boot="1", modules={EYES: ModuleReport(state="ready", mapped=m)}) for m in (False, True))
    assert content_of(one) != content_of(other)
