"""Plans of what changed, beside plans of the whole site: what stays, what is placed again, and when all is."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from s2m3.planner.plan_thread import PlanInterrupted
from s2m3.planner.site import incremental_placement
from s2m3.planner.site.decision import decide
from s2m3.planner.site.incremental_placement import Changes, LastPlan, changes_since
from s2m3.planner.site.known_routes import KnownRoutes
from s2m3.planner.site.placement import Placement, Solvers, joined, place
from s2m3.planner.site.replanner import Replanner
from s2m3.planner.solving.second_copies import kept_second_copies
from s2m3.schemas.instance import Instance
from s2m3.schemas.messages import ErrorBody, ModuleReport, NodeState, Reported, RouteDoc, TaskSpec
from s2m3.schemas.sleep import NodeSettings
from s2m3.schemas.specs import Definition
from s2m3.schemas.tasks import StandIn
from tests.planner_service.planned_site import NOW, QUICKLY, PlannedSite, definition

pytestmark = pytest.mark.mutants_of(
    "s2m3.planner.site.replanner.", "s2m3.planner.site.incremental_placement.", "s2m3.planner.site.known_routes."
)

_AMPLE_MB = 450.0


def check(site: PlannedSite, placement: Placement) -> None:
    """Every task has its modules on usable nodes, within their memory, and no node has two copies of one."""
    cluster, usable = site.cluster, set(site.cluster.usable())
    free = {node: cluster.memory_for_modules(node) for node in usable}
    for module, nodes in joined(placement.modules, placement.spare).items():
        assert usable.issuperset(nodes)
        for node in nodes:
            free[node] -= cluster.memory_of(cluster.catalogue.modules[module])
    assert min(free.values()) >= 0
    assert placement.ranks.keys() | placement.errors.keys() == cluster.tasks.keys()
    for task in placement.ranks:
        assert all(placement.modules[module] for module in cluster.modules_of(task))
    assert not any(set(nodes) & set(placement.modules[module]) for module, nodes in placement.spare.items())


def settled(seed: int = 4, memory_mb: float = _AMPLE_MB, max_replicas: int = 1) -> PlannedSite:
    """Returns a site that is planned, loaded, and planned thoroughly again."""
    site = PlannedSite(seed, memory_mb)
    site.cluster.want("t0", TaskSpec(model="m0", definition=definition(0), max_replicas=max_replicas))
    for _ in range(4):
        site.plan(thorough=True, whole=True)
        site.load()
    assert site.plan()[1] == []
    assert not site.replanner.was_whole
    return site


def holding(site: PlannedSite, number: int = 0) -> str:
    """Returns a node that modules are placed on: of all, the one that the fewest routes name, or the next."""
    named = site.named().values()
    nodes = [node for node, plan in site.cluster.plans.items() if plan.modules and node in site.cluster.usable()]
    return sorted(nodes, key=lambda one: (sum(one in found for found in named), one))[number]


def routes(said: list[str]) -> set[str]:
    return {topic.rpartition("/")[2] for topic in said if "/route/" in topic}


@pytest.mark.parametrize("max_replicas", [1, 2])
@pytest.mark.parametrize("seed", range(3))
def test_a_plan_of_what_changed_is_a_whole_plan_of_the_same_site(seed: int, max_replicas: int) -> None:
    site = settled(seed, memory_mb=700.0, max_replicas=max_replicas)  # nothing has to make room
    for _ in range(2):
        site.lose(holding(site))
        expected = place(site.cluster, QUICKLY, NOW, kept_second_copies)
        found, _ = site.plan()
        assert not site.replanner.was_whole
        check(site, found)
        copies = joined(found.modules, found.spare)
        for module, nodes in joined(expected.modules, expected.spare).items():
            assert sorted(copies[module]) == sorted(nodes), module
            assert len(found.modules[module]) == len(expected.modules[module])
        site.load()
        site.plan()


@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("memory_mb", [250.0, 350.0, 600.0])
def test_after_any_changes_every_task_is_placed_and_decided_as_anew(seed: int, memory_mb: float) -> None:
    site, rng, parts = PlannedSite(seed, memory_mb), random.Random(seed), 0  # noqa: S311  # not a secret
    cluster, lost = site.cluster, list[str]()

    def change() -> None:
        happens = rng.choice(("lost", "back", "slower", "failed", "added", "removed", "nothing"))
        node = rng.choice(sorted(cluster.reported) or ["n0"])
        if happens == "lost" and len(lost) < 3 and node not in lost:
            site.lose(node)
            lost.append(node)
        elif happens == "added":
            number = rng.randrange(30)
            cluster.want(f"t{number}", TaskSpec(model=f"m{number}", definition=definition(number)))
            cluster.sessions.add(f"t{number}")
        elif happens == "removed" and len(cluster.tasks) > 3:
            cluster.want(rng.choice(sorted(cluster.tasks)), None)
        elif happens == "back" and lost:
            cluster.nodes.update(lost.pop(), NodeState(state="ready", boot="1"))
        elif happens in ("slower", "failed") and node in cluster.reported and cluster.reported[node].modules:
            modules = dict(cluster.reported[node].modules)
            module = rng.choice(sorted(modules))
            failed = ModuleReport(state="failed", reason=ErrorBody(code="module_failed", detail="-"))
            slower = modules[module].model_copy(update={"ms": modules[module].ms * rng.uniform(1.5, 9.0)})
            modules[module] = failed if happens == "failed" else slower
            cluster.take_report(node, Reported(boot="1", epoch=1, modules=modules), NOW)

    for _ in range(20):
        change()
        placement, _ = site.plan(thorough=rng.random() < 0.4)
        parts += not site.replanner.was_whole
        check(site, placement)
        assert site.documents_of(placement) == site.published(), "the published documents are those of the placement"
        if rng.random() < 0.7:
            site.load()
    assert parts >= 3


def test_a_loss_concerns_the_tasks_that_use_what_the_node_held_and_no_others() -> None:
    site = settled()
    lost = holding(site)
    held = {spec.id for spec in site.cluster.plans[lost].modules}
    concerned = {task for task in site.cluster.tasks if site.cluster.modules_of(task) & held}
    named = {task for task, nodes in site.named().items() if lost in nodes}
    asked = set[str]()

    def solve(instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
        asked.update(task.id for task in instance.tasks)
        return QUICKLY(instance, current)

    site.lose(lost)
    before, solvers = site.cluster.snapshot(), Solvers(solve, solve, kept_second_copies)
    _, decision = site.replanner.plan(before, solvers, NOW)
    assert 0 < len(concerned) < len(site.cluster.tasks)
    assert asked == concerned
    said: list[str] = []
    site.publish(decision, said)
    assert routes(said) == named


def test_second_copies_that_were_lost_come_with_the_thorough_plan_and_no_others_move() -> None:
    site = settled()
    before = site.plan()[0]
    lost = holding(site)
    held = {spec.id for spec in site.cluster.plans[lost].modules}
    site.lose(lost)
    site.plan()
    site.load()
    quick = site.plan()[0]
    after, _ = site.plan(thorough=True)
    assert not site.replanner.was_whole
    check(site, after)
    again = {module for module in held if len(joined(after.modules, after.spare)[module]) > 1}
    assert again >= {module for module in held if len(joined(before.modules, before.spare)[module]) > 1} != set()
    assert {module: nodes for module, nodes in after.spare.items() if module not in held} == {
        module: nodes for module, nodes in quick.spare.items() if module not in held
    }


def test_a_thorough_plan_that_was_interrupted_is_made_up_for_by_the_next() -> None:
    site = settled()
    lost = holding(site)
    held = {spec.id for spec in site.cluster.plans[lost].modules}
    site.lose(lost)
    site.plan()
    site.load()
    site.plan()

    def interrupted(*_: object) -> Mapping[str, list[str]]:
        raise PlanInterrupted

    with pytest.raises(PlanInterrupted):
        site.replanner.plan(site.cluster.snapshot(), Solvers(QUICKLY, QUICKLY, interrupted), NOW, thorough=True)
    after, _ = site.plan(thorough=True)
    assert not site.replanner.was_whole
    assert all(len(joined(after.modules, after.spare)[module]) > 1 for module in held)


def test_a_new_task_has_its_own_modules_placed_and_no_other_task_is_looked_at() -> None:
    site = settled()
    before = site.plan()[0]
    site.cluster.want("same", TaskSpec(model="m0", definition=definition(0)))
    site.cluster.sessions.add("same")
    after, said = site.plan()
    assert not site.replanner.was_whole
    check(site, after)
    assert (after.modules, after.spare) == (before.modules, before.spare)
    assert routes(said) == {"same"}
    own = definition(0, encoder="own")
    site.cluster.want("own", TaskSpec(model="m0", definition=own))
    found, said = site.plan()
    assert not site.replanner.was_whole
    check(site, found)
    assert found.modules.keys() - after.modules.keys() == {"own"}
    assert {module: nodes for module, nodes in found.modules.items() if module != "own"} == after.modules
    assert routes(said) == {"own"}
    site.load()
    site.plan()
    thorough, _ = site.plan(thorough=True)
    assert not site.replanner.was_whole
    assert len(joined(thorough.modules, thorough.spare)["own"]) == 2
    assert placement_of_others(thorough, {"own"}) == placement_of_others(after, {"own"})


def placement_of_others(placement: Placement, modules: set[str]) -> dict[str, list[str]]:
    copies = joined(placement.modules, placement.spare)
    return {module: sorted(nodes) for module, nodes in copies.items() if module not in modules}


def test_a_task_that_is_removed_takes_the_modules_along_that_it_alone_used() -> None:
    site = settled()
    site.cluster.want("own", TaskSpec(model="m0", definition=definition(0, encoder="own")))
    site.plan(thorough=True)
    site.load()
    before = site.plan(thorough=True)[0]
    site.cluster.want("own", None)
    after, said = site.plan()
    assert not site.replanner.was_whole
    check(site, after)
    assert placement_of_others(before, {"own"}) == placement_of_others(after, set())
    assert "own" not in after.ranks
    assert routes(said) == {"own"}


def test_a_task_that_is_exchanged_for_another_of_its_name_has_the_plan_made_whole() -> None:
    site = settled()
    site.cluster.want("t0", None)
    site.cluster.want("t0", TaskSpec(model="m1", definition=definition(1)))
    site.plan()
    assert site.replanner.was_whole


def test_a_new_task_that_cannot_be_served_has_the_plan_made_whole() -> None:
    site = settled()
    site.cluster.want("unknown", TaskSpec(model="unknown"))
    assert "unknown" in site.plan()[0].errors
    assert site.replanner.was_whole


def test_a_removed_task_without_a_model_leaves_no_error_behind() -> None:
    site = settled()
    for name in ("big", "huge"):
        site.cluster.want(name, TaskSpec(model="m99", definition=_too_big()))
    assert site.plan()[0].errors.keys() == {"big", "huge"}
    site.plan()
    assert not site.replanner.was_whole
    site.cluster.want("big", None)
    assert site.plan()[0].errors.keys() == {"huge"}
    assert site.replanner.was_whole, "another may have room now"
    site.cluster.want("huge", None)
    assert site.plan()[0].errors == {}


def _with_more_replicas(site: PlannedSite) -> None:
    site.cluster.want("new", TaskSpec(model="m0", definition=definition(0), max_replicas=3))


def _change_a_task(site: PlannedSite) -> None:
    site.cluster.want("t0", TaskSpec(model="m0", definition=definition(0), prefer=["n1"]))


def _join(site: PlannedSite) -> None:
    site.join("n99", _AMPLE_MB)


def _change_a_profile(site: PlannedSite) -> None:
    profile = site.cluster.profiles["n1"]
    site.cluster.take_profile("n1", profile.model_copy(update={"gflops": 1.0}))


def _set_a_preference(site: PlannedSite) -> None:
    site.cluster.set_settings("n1", NodeSettings(prefer=2.0))


def _flap(site: PlannedSite) -> None:
    for _ in range(3):
        site.cluster.flapping.came("n1", NOW)
        site.cluster.flapping.left("n1", NOW)
    site.cluster.flapping.came("n1", NOW)


def _swap_a_node_for_another(site: PlannedSite) -> None:
    site.lose("n1")
    _join(site)


@pytest.mark.parametrize(
    "change",
    [
        _with_more_replicas,
        _change_a_task,
        _join,
        _change_a_profile,
        _set_a_preference,
        _flap,
        _swap_a_node_for_another,
    ],
)
def test_what_may_concern_all_modules_is_planned_whole_and_so_is_the_thorough_plan_that_follows(
    change: Callable[[PlannedSite], None],
) -> None:
    site = settled()
    change(site)
    site.plan()
    assert site.replanner.was_whole
    assert site.replanner.is_whole_due
    site.plan(thorough=True)
    assert site.replanner.was_whole
    assert not site.replanner.is_whole_due


def test_a_node_that_is_back_and_one_that_is_held_down_no_more_concern_all_modules() -> None:
    site = settled()
    site.lose("n1")
    site.plan()
    site.cluster.nodes.update("n1", NodeState(state="ready", boot="1"))
    site.plan()
    assert site.replanner.was_whole
    _flap(site)
    assert site.plan()[0].held
    found, _ = site.plan(now=NOW + 1000)
    assert site.replanner.was_whole
    assert not found.held


def test_a_plan_with_mapped_weights_is_followed_by_a_whole_one() -> None:
    cluster = settled().cluster
    placement = place(cluster, QUICKLY, NOW, kept_second_copies)
    last = LastPlan(cluster, placement, cluster.usable())
    assert changes_since(last, cluster, NOW) == Changes()
    assert changes_since(replace(last, placement=replace(placement, mapped={"head-1"})), cluster, NOW) is None


def test_where_weights_have_to_be_mapped_the_plan_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    site = settled()
    monkeypatch.setattr(incremental_placement, "place_in", lambda *_: Placement(mapped={"head-1"}))
    site.lose(holding(site))
    site.plan()
    assert site.replanner.was_whole


def test_a_module_that_fails_on_its_node_is_placed_elsewhere() -> None:
    site = settled()
    before, _ = site.plan()
    module, (node, *_) = next(iter(before.modules.items()))
    reports = dict(site.cluster.reported[node].modules)
    reports[module] = ModuleReport(state="failed", reason=ErrorBody(code="module_failed", detail="-"))
    site.cluster.take_report(node, Reported(boot="1", epoch=1, modules=reports), NOW)
    after, _ = site.plan()
    assert not site.replanner.was_whole
    assert node not in joined(after.modules, after.spare)[module]


def test_under_memory_pressure_second_copies_go() -> None:
    site = settled(memory_mb=320.0)
    before, _ = site.plan()
    node = next(iter(before.spare.values()))[0]
    site.cluster.take_report(node, site.cluster.reported[node].model_copy(update={"pressure_mb": 1.0}), NOW)
    site.plan()
    assert not site.replanner.was_whole
    used = sum(node in nodes for nodes in joined(before.modules, before.spare).values()) * 100.0
    pressed = site.cluster.reported[node].model_copy(update={"pressure_mb": 320.0 - used + 1.0})
    site.cluster.take_report(node, pressed, NOW)
    after, _ = site.plan()
    assert site.replanner.was_whole
    assert sum(node in nodes for nodes in joined(after.modules, after.spare).values()) * 100.0 < used


def test_second_copies_are_chosen_beside_all_copies_that_stay_in_the_whole_memory_of_each_node() -> None:
    site = settled()
    before, _ = site.plan()
    lost = holding(site)
    held = {spec.id for spec in site.cluster.plans[lost].modules}
    site.lose(lost)
    seen: list[tuple[Instance, Mapping[str, list[str]]]] = []

    def fill(instance: Instance, placement: Mapping[str, list[str]], _: object) -> Mapping[str, list[str]]:
        seen.append((instance, placement))
        return {}

    site.replanner.plan(site.cluster.snapshot(), Solvers(QUICKLY, QUICKLY, fill), NOW)
    (instance, placement), copies = seen[0], joined(before.modules, before.spare)
    assert {device.memory_mb for device in instance.devices} == {_AMPLE_MB}
    assert {module.id for module in instance.modules} == before.modules.keys() == placement.keys()
    assert all(sorted(placement[module]) == sorted(nodes) for module, nodes in copies.items() if module not in held)
    assert {module for module, nodes in placement.items() if len(nodes) == 1} == held


def test_the_last_node_of_a_dtype_concerns_all_modules() -> None:
    site = PlannedSite(4, _AMPLE_MB)
    profile = site.cluster.profiles["n11"]
    site.cluster.take_profile("n11", profile.model_copy(update={"dtype": "float16"}))
    site.plan(thorough=True)
    site.lose("n11")
    site.plan()
    assert site.replanner.was_whole


def test_where_second_copies_have_to_make_room_the_plan_is_whole() -> None:
    site = settled(memory_mb=120.0)  # ten modules of 100 MB on twelve nodes: two have a second copy
    for number in range(2):
        site.lose(holding(site, number))
        placement = site.plan()[0]
        check(site, placement)
        assert site.replanner.was_whole
        assert len(placement.spare) == 1 - number
        site.load()
    site.lose(holding(site))
    placement = site.plan()[0]
    assert site.replanner.was_whole
    assert 0 < len(placement.ranks) < len(site.cluster.tasks)


def test_a_plan_that_was_not_carried_out_is_not_built_upon() -> None:
    site = settled()
    node = holding(site)
    site.cluster.plans[node] = site.cluster.plans[node].model_copy(update={"modules": []})
    site.lose(holding(site, 3))
    site.plan()
    assert site.replanner.was_whole


def test_an_ordered_plan_is_whole_and_a_small_site_is_always_planned_whole() -> None:
    site = settled()
    site.plan(thorough=True, whole=True)
    assert site.replanner.was_whole
    site.replanner = type(site.replanner)()
    site.plan()
    site.lose(holding(site))
    site.plan()
    assert site.replanner.was_whole


def test_a_task_with_stand_ins_has_every_plan_made_whole() -> None:
    site = settled()
    stand_in = StandIn(model="m1", definition=definition(1))
    site.cluster.want("t0", TaskSpec(model="m0", definition=definition(0), stand_ins=[stand_in]))
    for _ in range(2):
        site.plan(thorough=True)
        site.load()
    site.plan()
    assert site.replanner.was_whole


def test_a_task_that_is_only_hoped_for_has_every_plan_made_whole() -> None:
    site = settled()
    site.cluster.want("t0", TaskSpec(model="unknown"))
    site.plan(thorough=True)
    site.plan()
    assert not site.replanner.was_whole, "its error will stay"
    site.cluster.want("t0", TaskSpec(model="m99", definition=_too_big()))
    site.cluster.hope_until = NOW + 1
    site.plan(thorough=True)
    assert "t0" not in site.plan()[0].errors
    assert site.replanner.was_whole


def _with_a_failure(site: PlannedSite) -> None:
    site.cluster.failures.note("n1", "big", NOW)


def _with_more_memory(site: PlannedSite) -> None:
    site.cluster.take_report("n1", site.cluster.reported["n1"].model_copy(update={"pressure_mb": 0.0}), NOW)


def _with_a_sleeper(site: PlannedSite) -> None:
    site.cluster.set_settings("n1", NodeSettings(wake="02:00:00:00:00:01"))
    site.plan()
    site.cluster.nodes.update("n1", NodeState(state="lost", boot="1", left=True))


@pytest.mark.parametrize("change", [_with_a_failure, _with_more_memory, _with_a_sleeper])
def test_what_may_make_room_for_a_task_without_has_the_plan_made_whole(change: Callable[[PlannedSite], None]) -> None:
    site = settled()
    pressed = site.cluster.reported["n1"].model_copy(update={"pressure_mb": 1.0})
    site.cluster.take_report("n1", pressed, NOW)
    site.cluster.want("big", TaskSpec(model="m99", definition=_too_big()))
    site.plan(thorough=True)
    site.plan()
    assert not site.replanner.was_whole
    change(site)
    site.plan()
    assert site.replanner.was_whole


def _too_big() -> Definition:
    """Returns a model that fits on no node."""
    return definition(99, encoder="big", memory_mb=10_000.0)


def test_a_task_without_room_stays_so_at_a_loss_and_is_looked_at_when_a_report_has_news() -> None:
    site = settled()
    site.cluster.want("big", TaskSpec(model="m99", definition=_too_big()))
    site.plan(thorough=True)
    found = site.plan()[0]
    error, shared = found.errors["big"], site.cluster.modules_of("big") & found.modules.keys()
    site.lose(found.modules[next(iter(shared))][0])
    found, _ = site.plan()
    assert not site.replanner.was_whole
    assert found.errors["big"] is error
    site.load()
    site.plan()
    assert site.replanner.was_whole


def test_a_task_whose_model_is_unknown_costs_no_other_a_whole_plan() -> None:
    site = settled()
    site.cluster.want("unknown", TaskSpec(model="unknown"))
    site.plan(thorough=True)
    node = holding(site)
    slower = {
        name: one.model_copy(update={"ms": one.ms * 3}) for name, one in site.cluster.reported[node].modules.items()
    }
    site.cluster.take_report(node, Reported(boot="1", epoch=1, modules=slower), NOW)
    assert "unknown" in site.plan()[0].errors
    assert not site.replanner.was_whole


@pytest.mark.parametrize("least", [0, 20_000])
def test_a_sleeping_node_that_would_serve_a_task_is_wanted_and_no_more_when_it_is_lost(least: int) -> None:
    site = settled()
    site.replanner, cluster = Replanner(least), site.cluster
    cluster.take_profile("n1", cluster.profiles["n1"].model_copy(update={"memory_mb": 20_000.0}))
    cluster.set_settings("n1", NodeSettings(wake="02:00:00:00:00:01"))
    cluster.nodes.update("n1", NodeState(state="lost", boot="1", left=True))
    cluster.want("big", TaskSpec(model="m99", definition=_too_big()))
    assert site.plan(thorough=True)[0].asleep == {"big": ["n1"]}
    cluster.nodes.update("n1", NodeState(state="lost", boot="1"))
    assert site.plan()[0].asleep == {}


def test_a_task_with_stand_ins_that_is_removed_takes_its_models_along() -> None:
    site = settled()
    stand_in = StandIn(model="m98", definition=definition(98, encoder="stand-in"))
    spec = TaskSpec(model="m99", definition=definition(99, encoder="best"), stand_ins=[stand_in])
    site.cluster.want("own", spec)
    for _ in range(3):
        site.plan(thorough=True)
        site.load()
    assert site.plan(thorough=True)[0].stand_ins
    site.cluster.want("own", None)
    found, _ = site.plan()
    assert not found.stand_ins
    assert joined(found.modules, found.spare).keys().isdisjoint({"best", "stand-in"})
    check(site, site.plan()[0])


@pytest.mark.parametrize(
    "first",
    [
        definition(99, encoder="other-name", prefix="same"),  # the same module: removed, it has the second's name again
        definition(99, encoder="mine", prefix="another"),  # the same name for another module
        definition(99, encoder="mine", prefix="same", memory_mb=400.0),  # the same module, of another size
    ],
)
def test_a_task_that_defines_a_module_of_another_task_concerns_that_task(first: Definition) -> None:
    site = settled()
    site.cluster.want("zz", TaskSpec(model="m99", definition=definition(99, encoder="mine", prefix="same")))
    site.plan(thorough=True)
    site.plan()
    assert not site.replanner.was_whole
    for spec in (TaskSpec(model="m99", definition=first), None):
        site.cluster.want("aa", spec)  # sorted first: its definitions come before
        check(site, site.plan()[0])
        assert site.replanner.was_whole
    assert "zz" in site.plan()[0].ranks


def test_a_report_that_is_removed_is_a_report_with_news() -> None:
    site = settled()
    before = site.cluster.snapshot()
    placement, _ = site.plan()
    node = holding(site)
    modules = {spec.id for spec in site.cluster.plans[node].modules}
    site.cluster.take_report(node, None, NOW)
    found = changes_since(LastPlan(before, placement, before.usable()), site.cluster, NOW)
    assert found is not None
    assert found.modules == modules


def test_routes_of_tasks_that_are_gone_are_forgotten() -> None:
    known, error = KnownRoutes(), ErrorBody(code="no_capacity", detail="-")
    docs = [RouteDoc(epoch=0, revision=0, model=name, deadline_s=1, error=error) for name in "abc"]
    assert known.of("t", ("content",), lambda: docs[0]) is docs[0]
    assert known.of("t", ("content",), lambda: docs[1]) is docs[0]
    known.keep({"u"})
    assert known.of("t", ("content",), lambda: docs[2]) is docs[2]


def test_routes_of_which_nothing_changed_are_the_same_objects() -> None:
    site = settled()
    solvers = Solvers(QUICKLY, QUICKLY, kept_second_copies)
    _, before = site.replanner.plan(site.cluster.snapshot(), solvers, NOW)
    named = {task for task, nodes in site.named().items() if holding(site) in nodes}
    site.lose(holding(site))
    _, after = site.replanner.plan(site.cluster.snapshot(), solvers, NOW)
    same = {task for task, doc in after.routes.items() if doc is before.routes[task]}
    assert same == site.cluster.tasks.keys() - named
    assert after == decide(site.cluster, site.plan()[0], NOW)
    site.cluster.want("t0", None)
    _, without = site.replanner.plan(site.cluster.snapshot(), solvers, NOW)
    assert without.routes.keys() == site.cluster.tasks.keys()
