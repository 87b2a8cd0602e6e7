"""A plan is made of a snapshot: what changes meanwhile changes neither the snapshot nor what is published of it."""

from s2m3.planner.site.decision import decide
from s2m3.planner.site.placement import place
from s2m3.planner.site.placer import placer
from tests.planner_service.site import hold, lose, make_facts


def test_a_snapshot_stays_what_it_was() -> None:
    cluster = make_facts("noop")
    hold(cluster, "a", "noop-left")
    cluster.failures.note("b", "noop-right", 0.0)
    snapshot = cluster.snapshot()
    lose(cluster, "a")
    cluster.want("noop", None)
    cluster.sessions.clear()
    cluster.reported.clear()
    cluster.profiles.clear()
    cluster.plans.clear()
    cluster.rates.add("noop", 1000, 0.0)
    cluster.failures.note("b", "noop-left", 0.0)
    cluster.failures.note("b", "noop-right", 100.0)
    cluster.flapping.came("a", 0.0)
    assert snapshot.ready_nodes("noop-left") == ["a"]
    assert (set(snapshot.tasks), snapshot.sessions, set(snapshot.plans)) == ({"noop"}, {"noop"}, {"a"})
    assert snapshot.rates.rate("noop", 0.0) is None
    assert snapshot.can_load(snapshot.catalogue.modules["noop-left"], "b", 1.0)
    assert snapshot.next_retry(0.0) == 10.0


def test_a_task_removed_while_its_plan_was_made_gets_neither_route_nor_gateway() -> None:
    cluster = make_facts("noop", "vqa")
    snapshot = cluster.snapshot()
    decision = decide(snapshot, place(snapshot, placer(0.1)(False), 0.0))  # noqa: FBT003  # without a search
    assert decision.without_removed({"noop", "vqa"}) is decision
    left = decision.without_removed({"vqa"})
    assert set(left.routes) == {"vqa"}
    assert {task for one in left.assignments.values() for task in one.gateways} == {"vqa"}
    assert {node: one.modules for node, one in left.assignments.items()} == {
        node: one.modules for node, one in decision.assignments.items()
    }


def test_a_snapshot_that_is_taken_while_a_plan_is_made_knows_what_changes_in_it() -> None:
    cluster = make_facts("noop")
    with cluster.indexed():
        assert cluster.usable() == ["a", "b"]
        snapshot = cluster.snapshot()
        lose(snapshot, "a")
        assert snapshot.usable() == ["b"]
