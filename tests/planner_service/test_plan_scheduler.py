"""A quick plan comes first and leaves second copies where they are; a thorough one follows and decides anew."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from queue import Queue

import pytest

from s2m3.broker.event_loop import Loop
from s2m3.planner import plan_thread
from s2m3.planner.plan_scheduler import PlanScheduler
from s2m3.planner.site import improvement_times
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import Placement, Solve, Solvers, joined
from s2m3.planner.site.placement_instance import build_instance
from s2m3.planner.site.replanner import Replanner
from s2m3.planner.solving.second_copies import kept_second_copies
from s2m3.schemas.instance import Instance
from s2m3.schemas.messages import Plan, TaskSpec
from s2m3.schemas.settings import PlannerSettings
from s2m3.schemas.sleep import NodeSettings
from tests.conftest import WAIT_S
from tests.planner_service.site import make_facts

NOOP = ("noop-head", "noop-left", "noop-right")


class Recorded:
    """A scheduler whose plans and searches are recorded; everything is placed on node `a`."""

    def __init__(self, loop: Loop, cluster: ClusterState) -> None:
        self.plans: Queue[Placement] = Queue()
        self.improved: list[bool] = []
        self.may_plan = True
        #: whether plans that improve wait for `let_go`
        self.holds = False
        self._loop, self._held, self._go = loop, threading.Semaphore(0), threading.Semaphore(0)
        self.scheduler = PlanScheduler(
            loop,
            PlannerSettings(settle_s=0.0),
            cluster,
            self._placer,
            may_plan=lambda: self.may_plan,
            on_plan=lambda placement, _: self.plans.put(placement),
        )

    def _placer(self, improve: bool) -> Solve:  # noqa: FBT001  # Placer's one argument
        self.improved.append(improve)

        def solve(instance: Instance, _: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
            if improve and self.holds:
                self._held.release()
                assert self._go.acquire(timeout=WAIT_S)
            return {module.id: ["a"] for module in instance.modules}

        return solve

    def wait_until_held(self) -> None:
        """Waits until a plan that improves is under way."""
        assert self._held.acquire(timeout=WAIT_S)

    def let_go(self) -> None:
        """Lets the plan go on, once the loop has done what it was told."""
        told = threading.Event()
        self._loop.call(told.set)
        assert told.wait(WAIT_S)
        self._go.release()

    def plan(self) -> Placement:
        return self.plans.get(timeout=WAIT_S)


@contextmanager
def scheduled(loop: Loop, cluster: ClusterState) -> Iterator[Recorded]:
    made = Recorded(loop, cluster)
    made.scheduler.start()
    yield made
    made.scheduler.stop()


@pytest.fixture
def cluster() -> ClusterState:
    return make_facts("noop", nodes=dict.fromkeys("abc", 1000.0))


def test_a_thorough_plan_follows_a_quick_one(loop: Loop, cluster: ClusterState) -> None:
    with scheduled(loop, cluster) as made:
        loop.call(made.scheduler.improve)
        loop.call(made.scheduler.soon)
        quick, thorough = made.plan(), made.plan()
    assert quick.modules == thorough.modules == {name: ["a"] for name in NOOP}
    assert quick.spare == {}
    assert thorough.spare.keys() == {*NOOP}
    assert made.improved == [False, True]


def test_a_plan_that_is_asked_to_be_thorough_is_so_at_once_and_alone(loop: Loop, cluster: ClusterState) -> None:
    with scheduled(loop, cluster) as made:
        loop.call(made.scheduler.improve)
        loop.call(lambda: made.scheduler.now(thorough=True))
        assert made.plan().spare.keys() == {*NOOP}
    assert made.improved == [True]


def test_better_places_are_not_looked_for_right_after_a_change(loop: Loop, cluster: ClusterState) -> None:
    with scheduled(loop, cluster) as made:
        loop.call(made.scheduler.improve_now)
        made.plan()
        assert not made.scheduler.has_changed
        loop.call(made.scheduler.now)
        loop.call(made.scheduler.improve_now)
        made.plan()
        loop.call(lambda: made.scheduler.now(thorough=True))
        made.plan()
        assert made.scheduler.has_changed
    assert made.improved[0]
    assert not any(made.improved[1:])  # two plans, or three where the one that follows by itself came before ours


def test_a_change_while_a_plan_is_made_is_planned_next(loop: Loop, cluster: ClusterState) -> None:
    with scheduled(loop, cluster) as made:

        def change() -> None:
            made.scheduler.now()
            cluster.tasks.clear()
            made.scheduler.now()

        loop.call(change)
        assert (len(made.plan().modules), made.plan().modules) == (3, {})


def test_without_consent_no_plan_is_made_and_what_was_asked_for_is_not_forgotten(
    loop: Loop, cluster: ClusterState
) -> None:
    with scheduled(loop, cluster) as made:
        made.may_plan = False
        loop.call(made.scheduler.improve)
        loop.call(lambda: made.scheduler.now(thorough=True))
        loop.call(lambda: setattr(made, "may_plan", True))
        loop.call(made.scheduler.soon)
        made.plan()
    assert made.improved == [True]


def test_second_copies_stay_where_they_are_while_they_fit(cluster: ClusterState) -> None:
    instance = build_instance(cluster, ["noop"], 0.0)
    placement = {name: ["a"] for name in NOOP}
    current = {"noop-head": ["a", "b"], "noop-left": ["gone", "c", "b"], "noop-right": ["a"]}
    assert kept_second_copies(instance, placement, current) == {"noop-head": ["b"], "noop-left": ["c"]}
    small = instance.model_copy(
        update={"devices": [d.model_copy(update={"memory_mb": 0.15}) for d in instance.devices]}
    )
    crowded = {"noop-head": ["a"], "noop-left": ["b"], "noop-right": ["c"]}
    assert kept_second_copies(small, crowded, {name: ["a", "b", "c"] for name in NOOP}) == {}
    twice = {**placement, "noop-head": ["a", "c"]}
    assert "noop-head" not in kept_second_copies(instance, twice, current)


def test_a_change_ends_a_thorough_plan_that_follows_but_not_two_in_a_row(loop: Loop, cluster: ClusterState) -> None:
    with scheduled(loop, cluster) as made:
        made.holds = True
        loop.call(made.scheduler.improve)
        loop.call(made.scheduler.now)
        made.plan()
        made.wait_until_held()
        loop.call(made.scheduler.now)
        made.let_go()
        assert made.plan().spare == {}  # of the change
        made.wait_until_held()
        loop.call(made.scheduler.now)
        made.let_go()
        assert made.plan().spare.keys() == {*NOOP}
    assert made.improved[:4] == [False, True, False, True]


def _carry_out(cluster: ClusterState, placement: Placement) -> None:
    """Publishes the modules of a placement in the plans of nodes."""
    modules: dict[str, list[str]] = {}
    for module, nodes in joined(placement.modules, placement.spare).items():
        for node in nodes:
            modules.setdefault(node, []).append(module)
    known = cluster.catalogue.modules
    cluster.plans = {
        node: Plan(epoch=1, revision=1, modules=[known[name] for name in names]) for node, names in modules.items()
    }


@contextmanager
def _planned_by_changes(loop: Loop, cluster: ClusterState, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorded]:
    """A scheduler that plans what changed on a site of any size, after its first plan, which is carried out."""
    monkeypatch.setattr(plan_thread, "Replanner", partial(Replanner, 0))
    with scheduled(loop, cluster) as made:
        loop.call(lambda: made.scheduler.now(thorough=True))
        loop.call(partial(_carry_out, cluster, made.plan()))
        yield made


def test_after_plans_of_changes_alone_better_places_are_looked_for_when_it_is_time(
    loop: Loop, cluster: ClusterState, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _planned_by_changes(loop, cluster, monkeypatch) as made:

        def add() -> None:
            cluster.want("again", TaskSpec(model="noop"))
            made.scheduler.improve()
            made.scheduler.now()

        loop.call(add)
        quick, thorough = made.plan(), made.plan()
        assert quick.ranks == thorough.ranks == {"noop": 0, "again": 0}
        assert not any(made.improved)
        monkeypatch.setattr(improvement_times, "_QUIET_S", 0.0)
        loop.call(made.scheduler.improve_now)
        made.plan()
    assert made.improved[-1]


def test_an_order_is_not_taken_for_the_plan_that_follows_a_change(
    loop: Loop, cluster: ClusterState, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _planned_by_changes(loop, cluster, monkeypatch) as made:

        def order() -> None:
            made.may_plan = False
            made.scheduler.improve()
            made.scheduler.now(thorough=True)
            made.scheduler.now(thorough=True, follows=True)  # the timer of the plan that follows the last change
            made.may_plan = True
            made.scheduler.now()

        loop.call(order)
        made.plan()
    assert made.improved[-1]


def test_a_search_is_made_up_for_if_the_plan_that_left_it_out_was_of_the_whole_site(
    loop: Loop, cluster: ClusterState, monkeypatch: pytest.MonkeyPatch
) -> None:
    with _planned_by_changes(loop, cluster, monkeypatch) as made:
        loop.call(made.scheduler.now)
        made.plan()

        def change_without_a_quick_plan() -> None:
            cluster.set_settings("a", NodeSettings(prefer=2.0))
            made.scheduler.improve()

        loop.call(change_without_a_quick_plan)
        made.plan()
        made.plan()
    assert made.improved == [False, False, False, True]


def test_after_a_plan_that_failed_the_next_is_of_the_whole_site(
    loop: Loop, cluster: ClusterState, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan_thread, "Replanner", partial(Replanner, 0))
    ended, plans = Queue[None](), Queue[Placement]()
    thread = plan_thread.PlanThread(loop, lambda placement, _: plans.put(placement), lambda: ended.put(None))

    def solve(instance: Instance, _: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
        return {module.id: ["a"] for module in instance.modules}

    def fail(_: Instance, __: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
        raise RuntimeError

    def plan(solver: Solve) -> bool:
        inputs = plan_thread.PlanInputs(cluster.snapshot(), Solvers(solver, solver, None))
        loop.call(partial(thread.submit, inputs))
        ended.get(timeout=WAIT_S)
        return thread.was_whole

    thread.start()
    plan(solve)
    _carry_out(cluster, plans.get(timeout=WAIT_S))
    assert not plan(solve)
    cluster.want("again", TaskSpec(model="noop"))
    plan(fail)
    assert plan(solve)
    thread.stop()


def test_a_loss_puts_off_the_search_for_better_places_that_was_to_follow(loop: Loop, cluster: ClusterState) -> None:
    with scheduled(loop, cluster) as made:

        def lose() -> None:
            made.scheduler.improve()
            made.scheduler.now()
            made.scheduler.lost()

        loop.call(lose)
        while not (plan := made.plan()).spare:
            assert plan.modules.keys() == {*NOOP}
    assert not any(made.improved)
    assert made.scheduler.has_changed  # it is looked for when nothing changes any more


def test_a_loss_ends_a_search_for_better_places_that_follows_and_the_next_plan_does_not_search(
    loop: Loop, cluster: ClusterState
) -> None:
    with scheduled(loop, cluster) as made:
        made.holds = True
        loop.call(made.scheduler.improve)
        loop.call(made.scheduler.now)
        made.plan()
        made.wait_until_held()
        loop.call(made.scheduler.lost)
        made.let_go()
        while not made.plan().spare:
            continue
    assert made.improved == [False, True, False, False]


def test_a_search_for_better_places_that_was_ordered_is_made_in_spite_of_a_loss(
    loop: Loop, cluster: ClusterState
) -> None:
    with scheduled(loop, cluster) as made:
        made.may_plan = False
        loop.call(made.scheduler.improve)
        loop.call(lambda: made.scheduler.now(thorough=True))
        loop.call(made.scheduler.lost)
        loop.call(lambda: setattr(made, "may_plan", True))
        loop.call(made.scheduler.soon)
        made.plan()
    assert made.improved == [True]
