"""Nodes that come and go, by a clock that the test turns: they are backed off, and no last copy is lost by it."""

import itertools
from dataclasses import dataclass, field

import pytest

from s2m3.planner.site import placement
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.flapping import Flapping
from s2m3.planner.site.placement import Placement, Solvers, place
from s2m3.planner.site.placement_instance import MemoryByNode
from s2m3.planner.site.placer import placer, second_copies_in_spare
from s2m3.planner.site.published_documents import Documents
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.messages import Plan, Reported
from tests.planner_service.site import hold, join, lose, make_facts

BETTER = placer(60.0)(True)  # noqa: FBT003  # with improvements: the search ends by itself long before


@dataclass
class Site:
    """The planner's pure parts, as its service runs them, and nodes that load at once what they are told."""

    cluster: ClusterState
    now: float = 0.0
    documents: Documents = field(default_factory=lambda: Documents("r", epoch=5))
    changes: list[tuple[float, str]] = field(default_factory=list)
    held: dict[str, str] = field(default_factory=dict)

    def plan(self) -> None:
        for _ in range(10):
            placement = place(self.cluster, BETTER, self.now, second_copies_in_spare)
            self.held = dict(placement.held)
            changed = self.documents.update(decide(self.cluster, placement), lambda *_: None)
            self.cluster.plans = dict(self.documents.plans)
            if not changed:
                return
            self.changes += [(self.now, node) for node in changed]
            for node in self.cluster.nodes.present:
                self.obey(node)
        raise AssertionError("the planner does not come to rest")

    def obey(self, node: str) -> None:
        plan = self.cluster.plans.get(node, Plan(epoch=1, revision=1))
        hold(
            self.cluster,
            node,
            *(spec.id for spec in plan.modules),
            boot=self.cluster.nodes.boot(node) or "",
            planned=False,
        )

    def lose(self, node: str) -> None:
        lose(self.cluster, node, self.cluster.nodes.boot(node) or "")
        self.cluster.flapping.left(node, self.now)
        self.plan()

    def back(self, node: str, memory: float, boot: str) -> None:
        join(self.cluster, node, memory, boot)
        self.cluster.reported[node] = Reported(boot=boot)
        self.cluster.flapping.came(node, self.now)
        self.plan()

    def serves(self, *modules: str) -> bool:
        return all(self.cluster.ready_nodes(module) for module in modules)


NOOP = ("noop-head", "noop-left", "noop-right")


def flap(site: Site, node: str, memory: float, minutes: float) -> None:
    for n in itertools.count():
        if site.now >= minutes * 60:
            return
        site.now += 5
        site.lose(node)
        site.now += 5
        site.back(node, memory, f"boot-{n}")


def test_a_node_up_5_s_and_down_5_s_for_3_minutes_changes_few_plans_and_all_stays_served() -> None:
    cluster = make_facts("noop", nodes={"a": 100.0, "b": 100.0})
    site = Site(cluster)
    site.cluster.flapping.came("a", 0.0)
    site.cluster.flapping.came("b", 0.0)
    site.plan()
    begun = len(site.changes)
    flap(site, "b", 100.0, 3)
    assert site.serves(*NOOP)
    assert len(site.changes) - begun <= 8
    assert max(when for when, _ in site.changes) <= 30, "after the first cycles nothing changes any more"
    assert "b" in site.held


def test_it_is_used_again_once_it_has_stayed() -> None:
    cluster = make_facts("classification", nodes={"a": 100.0, "b": 100.0})
    site = Site(cluster)
    site.cluster.flapping.came("b", 0.0)
    site.plan()
    flap(site, "b", 100.0, 1)
    assert not cluster.plans.get("b", Plan(epoch=1, revision=1)).modules
    release = cluster.next_retry(site.now)
    assert release is not None
    assert release <= site.now + 320
    site.now = release
    site.plan()
    assert site.held == {}
    assert cluster.plans["b"].modules


def test_a_node_that_alone_can_hold_something_is_used_although_it_flaps() -> None:
    cluster = make_facts("transcription", nodes={"a": 50.0, "b": 400.0})
    site = Site(cluster)
    site.cluster.flapping.came("b", 0.0)
    site.plan()
    for n in range(6):
        site.now += 5
        site.lose("b")
        site.now += 5
        site.back("b", 400.0, f"boot-{n}")
        assert site.serves("whisper-tiny-en-encoder", "whisper-tiny-en-decoder")


def test_where_there_is_no_way_without_the_nodes_that_flap_they_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = make_facts("noop")
    for _ in range(3):
        cluster.flapping.came("b", 0.0)
        cluster.flapping.left("b", 0.0)
    cluster.flapping.came("b", 0.0)

    def place_in(cluster: ClusterState, solvers: Solvers, now: float, memory_mb_by_node: MemoryByNode) -> Placement:
        if "b" not in memory_mb_by_node:
            raise NoCapacityError("the model that answers now fits nowhere else meanwhile")
        return place_in_all(cluster, solvers, now, memory_mb_by_node)

    place_in_all = placement.place_in
    monkeypatch.setattr(placement, "place_in", place_in)
    found = place(cluster, BETTER, 0.0)
    assert found.modules.keys() == {*NOOP}
    assert not found.held


def test_a_ready_copy_that_comes_back_stays_until_its_replacement_is_ready() -> None:
    """The link flapped, not the process: what it holds is the only ready copy while another node loads."""
    cluster = make_facts("noop", nodes={"a": 100.0, "b": 100.0})
    hold(cluster, "a", *NOOP)
    documents = Documents("r", epoch=5)

    def plan() -> None:
        documents.update(decide(cluster, place(cluster, BETTER, 0.0)), lambda *_: None)
        cluster.plans = dict(documents.plans)

    plan()
    lose(cluster, "a")
    plan()
    assert {spec.id for spec in cluster.plans["b"].modules} == set(NOOP)
    hold(cluster, "b", *NOOP, state="loading", planned=False)
    join(cluster, "a", 100.0)
    plan()
    assert {spec.id for spec in cluster.plans["a"].modules} == set(NOOP)
    hold(cluster, "b", *NOOP, planned=False)
    plan()
    assert not cluster.plans["a"].modules


def test_one_restart_is_no_flapping_and_a_long_life_ends_it() -> None:
    flapping = Flapping()
    now = 0.0
    flapping.came("a", now)
    flapping.left("a", 5.0)
    flapping.came("a", 6.0)
    assert flapping.held(6.0) == {}
    flapping.left("a", 10.0)
    flapping.came("a", 11.0)
    assert set(flapping.held(20.9)) == {"a"}
    assert flapping.held(21.0) == {}
    flapping.left("a", 100.0)
    flapping.came("a", 101.0)
    assert flapping.held(101.0) == {}


@pytest.mark.parametrize(("lives", "wait"), [(2, 10.0), (3, 20.0), (4, 40.0), (7, 320.0), (18, 320.0)])
def test_the_wait_doubles_with_each_short_life_to_five_minutes(lives: int, wait: float) -> None:
    flapping = Flapping()
    now = 0.0
    for _ in range(lives):
        flapping.came("a", now)
        flapping.left("a", now + 5)
        now += 10
    flapping.came("a", now)
    assert flapping.next_release(now) == pytest.approx(now + wait)


def lived(flapping: Flapping, *lives: tuple[float, float]) -> None:
    for came, left in lives:
        flapping.came("a", came)
        flapping.left("a", left)


def test_a_life_of_15_seconds_is_no_short_one() -> None:
    flapping = Flapping()
    lived(flapping, (0.0, 1.0), (2.0, 17.0))
    flapping.came("a", 18.0)
    assert flapping.held(18.0) == {}
    lived(flapping, (18.0, 19.0), (20.0, 34.9))
    flapping.came("a", 40.0)
    assert set(flapping.held(40.0)) == {"a"}


def test_a_life_as_long_as_a_short_one_and_twice_the_wait_before_it_ends_the_row() -> None:
    flapping = Flapping()
    lived(flapping, (0.0, 1.0), (2.0, 3.0), (4.0, 38.9))  # the wait was 10 s: below 35 s it is short
    flapping.came("a", 40.0)
    assert flapping.next_release(40.0) == 60.0
    lived(flapping, (40.0, 41.0))
    ended = Flapping()
    lived(ended, (0.0, 1.0), (2.0, 3.0), (4.0, 39.0))
    ended.came("a", 40.0)
    assert ended.next_release(40.0) is None


def test_coming_twice_or_leaving_twice_counts_once() -> None:
    flapping = Flapping()
    flapping.left("a", 0.0)
    flapping.came("a", 1.0)
    flapping.came("a", 14.0)  # it was there already: since 1 s
    flapping.left("a", 16.5)
    flapping.left("a", 16.6)
    flapping.came("a", 17.0)
    flapping.left("a", 18.0)
    flapping.left("a", 18.1)
    flapping.came("a", 19.0)
    assert flapping.held(19.0) == {}


def test_a_node_that_was_removed_begins_anew() -> None:
    flapping = Flapping()
    lived(flapping, (0.0, 1.0), (2.0, 3.0))
    flapping.forget("a")
    flapping.forget("a")
    flapping.came("a", 4.0)
    assert flapping.held(4.0) == {}


def test_a_node_that_is_held_says_why_and_only_while_it_is_there() -> None:
    flapping = Flapping()
    lived(flapping, (0.0, 1.0), (2.0, 3.0))
    assert (flapping.held(3.0), flapping.next_release(3.0)) == ({}, None)
    flapping.came("a", 4.0)
    assert flapping.held(4.0) == {
        "a": "lost after a short time 2 times in a row: nothing is placed there before it has stayed 10 s"
    }
    assert flapping.next_release(4.0) == 14.0
    assert flapping.next_release(14.0) is None


def test_the_next_release_is_the_earliest_of_all() -> None:
    flapping = Flapping()
    for node, at in (("late", 5.0), ("early", 0.0)):
        for n in range(2):
            flapping.came(node, at + n)
            flapping.left(node, at + n + 0.5)
        flapping.came(node, at + 2)
    assert flapping.next_release(8.0) == 12.0
    assert flapping.next_release(12.0) == 17.0


def test_after_a_long_life_two_short_ones_are_needed_again() -> None:
    flapping = Flapping()
    lived(flapping, (0.0, 1.0), (2.0, 100.0), (101.0, 102.0))
    flapping.came("a", 103.0)
    assert flapping.held(103.0) == {}
