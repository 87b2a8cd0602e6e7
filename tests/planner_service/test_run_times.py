"""Run times that are kept from one plan to the next are those that the site's documents say now."""

import random

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement_instance import SecondsByNode, full_memory
from s2m3.planner.site.run_times import Row
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.messages import ModuleReport, NodeState, Reported
from tests.planner_service.site import hold, lose, make_facts

TASKS = ("retrieval", "classification", "noop", "vqa")
MODULES = sorted({module for task in TASKS for module in shipped_catalogue().models[task].module_ids})


def _change(cluster: ClusterState, dice: random.Random, now: float) -> None:
    """Something happens on the site: a report, a new profile, a failed load, a loss or a return."""
    node, module = dice.choice(sorted(cluster.profiles)), dice.choice(MODULES)
    profile = cluster.profiles[node]
    match dice.randrange(5):
        case 0:
            states = [ModuleReport(state=dice.choice(["loading", "ready"]), ms=dice.choice([0.0, 5.0, 9.0]))]
            reports = dict(zip(dice.sample(MODULES, 1), states, strict=True))
            cluster.reported[node] = Reported(boot=profile.boot, modules=reports)
        case 1:
            cluster.take_profile(node, profile.model_copy(update={"gflops": dice.uniform(1, 1e4)}))
        case 2:
            cluster.failures.note(node, module, now)
        case 3:
            lose(cluster, node)
        case _:
            cluster.nodes.update(node, NodeState(state="ready", boot=profile.boot))


@pytest.mark.parametrize("seed", range(10))
def test_kept_rows_are_what_the_documents_say_whatever_happened_since(seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311
    cluster = make_facts(*TASKS, nodes={f"n{i}": dice.uniform(300, 900) for i in range(5)})
    for now in range(12):
        _change(cluster, dice, float(now))
        snapshot = cluster.snapshot()
        for module in MODULES:
            spec = cluster.catalogue.modules[module]
            able = [node for node in cluster.usable() if cluster.can_load(spec, node, float(now))]
            expected = {node: cluster.seconds(spec, node) for node in able}
            row = SecondsByNode(snapshot, spec, full_memory(snapshot), float(now))
            assert {node: row[node] for node in able} == expected
            assert bool(row) == bool(able)
            assert (dict(row), list(row.values())) == (expected, list(expected.values()))
            assert not {"nowhere", *(cluster.profiles.keys() - able)} & row.keys()


def test_a_row_is_computed_again_only_where_something_changed() -> None:
    cluster = make_facts("noop", nodes=dict.fromkeys("abc", 500.0))
    spec = cluster.catalogue.modules["noop-left"]

    def times() -> Row:
        snapshot = cluster.snapshot()
        list(SecondsByNode(snapshot, spec, full_memory(snapshot), 0.0))
        return snapshot.run_times_of(spec)

    row = times()
    before = dict(row)
    cluster.take_profile("b", cluster.profiles["b"].model_copy(update={"gflops": 7.0}))
    assert times() is row
    assert {node for node in row if row[node] is not before[node]} == {"b"}
    hold(cluster, "a", "noop-left")
    assert times() is row  # its own report is read from the report
    cluster.reported["a"] = Reported(boot="1", modules={"noop-left": ModuleReport(state="ready", ms=7.0)})
    assert times() is not row  # what others are expected to take follows from its measurement
    cluster.run_times.keep((), ("a", "b", "c"))
    assert times() is not row
