"""Tasks change over to better models that fit only where a stand-in lies: nobody is without an answer meanwhile."""

import random
from collections.abc import Iterator, Mapping
from itertools import groupby

import pytest

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.placement import Placement, place
from s2m3.planner.site.placer import second_copies_in_spare
from s2m3.planner.solving.rank_choice import cost_of
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.messages import ModuleReport, Plan, Reported
from tests.planner_service.site import make_facts
from tests.planner_service.test_stand_ins import SOLVE, want

#: A module on a node.
Copy = tuple[str, str]
#: task -> (model, memory) of each rank
Tasks = Mapping[str, list[tuple[str, float]]]


def site(nodes: dict[str, float], tasks: Tasks, held: dict[str, list[str]]) -> ClusterState:
    """A site whose nodes hold these modules, ready."""
    cluster = make_facts(nodes=nodes)
    for task, models in tasks.items():
        want(cluster, task, *models)
    for node in nodes:
        _report(cluster, node, held.get(node, []))
        cluster.plans[node] = Plan(
            epoch=1, revision=1, modules=[cluster.catalogue.modules[m] for m in held.get(node, [])]
        )
    return cluster


def _report(cluster: ClusterState, node: str, modules: list[str]) -> None:
    known = cluster.catalogue.modules
    reports = {module: ModuleReport(state="ready", memory_mb=known[module].memory_mb) for module in modules}
    cluster.reported[node] = Reported(boot="1", modules=reports)


def answers(cluster: ClusterState) -> dict[str, int]:
    """The best rank of each task that is ready; tasks without one are left out."""
    found = {}
    for task in cluster.tasks:
        ready = [rank for rank in range(3) if rank < len(cluster.ranks_of(task)) and _is_ready(cluster, task, rank)]
        found.update({task: ready[0]} if ready else {})
    return found


def _is_ready(cluster: ClusterState, task: str, rank: int) -> bool:
    model = cluster.model_of(task, rank)
    return model is not None and cluster.is_ready(model)


def changed_over(cluster: ClusterState, *, spare: bool = True) -> tuple[list[dict[str, int]], Placement]:
    """Follows plan after plan until nothing changes: which ranks answered from step to step, and the last placement.

    What a plan does not name is unloaded first, then the rest is loaded: every task has an answer in between.
    """
    answered = [answers(cluster)]
    for _ in range(20):
        placement = place(cluster, SOLVE, 0.0, second_copies_in_spare if spare else None)
        plans = {node: one.modules for node, one in decide(cluster, placement).assignments.items()}
        if {n: sorted(s.id for s in specs) for n, specs in plans.items()} == {
            n: sorted(r.modules) for n, r in cluster.reported.items()
        }:
            return answered, placement
        for node, specs in plans.items():
            assert sum(spec.memory_mb for spec in specs) <= cluster.profiles[node].memory_mb + 1e-6
            _report(cluster, node, [spec.id for spec in specs if spec.id in cluster.reported[node].modules])
        answered.append(answers(cluster))
        for node, specs in plans.items():
            _report(cluster, node, [spec.id for spec in specs])
            cluster.plans[node] = Plan(epoch=1, revision=1, modules=list(specs))
        answered.append(answers(cluster))
    raise AssertionError("plans change for ever")


PORCH = {"porch": [("big", 100.0), ("small", 10.0)]}


@pytest.mark.parametrize("spare", [True, False])
def test_the_stand_in_answers_from_another_node_while_the_better_model_takes_its_place(spare: bool) -> None:  # noqa: FBT001
    cluster = site({"a": 105.0, "b": 15.0}, PORCH, {"a": ["small"]})
    ranks, _ = changed_over(cluster, spare=spare)
    assert [rank for rank, _ in groupby(one["porch"] for one in ranks)] == [1, 0]
    assert sorted(cluster.reported["b"].modules) == (["small"] if spare else [])


def test_a_further_stand_in_answers_where_the_one_in_the_way_fits_nowhere_else() -> None:
    models = {"porch": [("big", 100.0), ("small", 10.0), ("tiny", 2.0)]}
    cluster = site({"a": 105.0, "b": 5.0}, models, {"a": ["small"]})
    ranks, _ = changed_over(cluster)
    assert [rank for rank, _ in groupby(one["porch"] for one in ranks)] == [1, 2, 0]


def test_where_no_model_can_answer_meanwhile_nothing_is_unloaded_and_the_reason_says_so() -> None:
    cluster = site({"a": 105.0, "b": 5.0}, PORCH, {"a": ["small"]})
    ranks, placement = changed_over(cluster)
    assert [one["porch"] for one in ranks] == [1]
    why = placement.missed["porch"][0]
    assert isinstance(why, NoCapacityError)
    assert why.detail == "big fits only where small is, which answers porch and fits nowhere else meanwhile"


def test_another_task_gets_its_better_model_where_the_first_cannot() -> None:
    tasks = {"door": [("big", 100.0), ("small", 10.0)], "porch": [("mid", 60.0), ("tiny", 5.0)]}
    cluster = site({"a": 105.0}, tasks, {"a": ["small", "tiny"]})
    ranks, _ = changed_over(cluster)
    assert ranks[-1] == {"door": 1, "porch": 0}


def test_two_tasks_in_each_others_way_change_over_one_after_the_other() -> None:
    tasks = {"door": [("door-big", 100.0), ("door-small", 10.0)], "porch": [("big", 100.0), ("small", 10.0)]}
    cluster = site({"a": 105.0, "b": 105.0, "c": 10.0}, tasks, {"a": ["small"], "b": ["door-small"]})
    ranks, _ = changed_over(cluster)
    assert ranks[-1] == {"door": 0, "porch": 0}


def test_second_copies_give_way_to_a_stand_in_that_has_to_answer_meanwhile() -> None:
    tasks = {**PORCH, "door": [("door", 20.0)]}
    cluster = site({"a": 105.0, "b": 22.0, "c": 22.0}, tasks, {"a": ["small"], "b": ["door"], "c": ["door"]})
    ranks, _ = changed_over(cluster)
    assert ranks[-1] == {"door": 0, "porch": 0}


def test_a_model_gives_way_before_its_stand_in_is_loaded_only_to_a_task_without_any_answer() -> None:
    tasks = {"door": [("door", 90.0)], "porch": [("big", 100.0), ("small", 10.0)]}
    ranks, _ = changed_over(site({"a": 105.0}, tasks, {"a": ["big"]}))
    assert ranks == [{"porch": 0}, {}, {"door": 0, "porch": 1}]
    better = {"door": [("door", 90.0), ("bell", 3.0)], "porch": [("big", 95.0), ("small", 10.0), ("tiny", 9.0)]}
    ranks, _ = changed_over(site({"a": 100.0}, better, {"a": ["big", "bell"]}))
    assert all(one == {"door": 1, "porch": 0} for one in ranks)


def random_case(seed: int) -> tuple[dict[str, float], dict[str, list[tuple[str, float]]], dict[str, list[str]]]:
    """Nodes, tasks, and what the nodes hold: of each task a stand-in or, now and then, its best."""
    chance = random.Random(seed)  # noqa: S311  # a case, no secret
    tasks = {
        task: [(f"{task}-{rank}", float(chance.randint(*span))) for rank, span in enumerate(spans)]
        for task in ("x", "y")
        if (spans := [(5, 9), (2, 4), (1, 3)][: chance.randint(2, 3)])
    }
    nodes = {node: float(chance.randint(2, 11)) for node in ("a", "b", "c")[: chance.randint(2, 3)]}
    held: dict[str, list[str]] = {}
    for models in tasks.values():
        for name, size in chance.sample(models[1:], k=len(models) - 1) + models[:1]:
            fits = [node for node in nodes if size <= nodes[node] - _taken(held.get(node, []), tasks)]
            if fits:
                held.setdefault(chance.choice(fits), []).append(name)
                break
    return nodes, tasks, held


def _taken(modules: list[str], tasks: Tasks) -> float:
    return sum(size for models in tasks.values() for name, size in models if name in modules)


def reachable(nodes: dict[str, float], tasks: Tasks, held: dict[str, list[str]]) -> Iterator[dict[str, int]]:
    """The ranks that answer in every state that loads and unloads, one by one, lead to while tasks keep an answer."""
    sizes = {name: size for models in tasks.values() for name, size in models}

    def ranks(state: frozenset[Copy]) -> dict[str, int]:
        there = {module for module, _ in state}
        best = {t: [rank for rank, (name, _) in enumerate(models) if name in there] for t, models in tasks.items()}
        return {task: found[0] for task, found in best.items() if found}

    start = frozenset((module, node) for node, modules in held.items() for module in modules)
    answered, seen, waiting = ranks(start).keys(), {start}, [start]
    while waiting:
        state = waiting.pop()
        yield ranks(state)
        free = {node: mb - sum(sizes[m] for m, where in state if where == node) for node, mb in nodes.items()}
        loads = {state | {(m, n)} for m in sizes for n in nodes if (m, n) not in state and sizes[m] <= free[n]}
        unloads = {state - {copy} for copy in state}
        further = {one for one in loads | unloads if ranks(one).keys() >= answered} - seen
        seen |= further
        waiting += further


LONGER = (pytest.param(seed, marks=pytest.mark.long) for seed in range(8, 44))


@pytest.mark.parametrize("seed", [*range(8), *LONGER])
def test_of_small_cases_what_is_reached_is_the_best_that_can_be_without_a_break(seed: int) -> None:
    """By brute force over every order of loads and unloads."""
    nodes, tasks, held = random_case(seed)
    weights = dict.fromkeys(tasks, 1.0)
    best = min(cost_of(ranks, weights, 2) for ranks in reachable(nodes, tasks, held))
    steps, _ = changed_over(site(nodes, tasks, held))
    assert all(ranks.keys() >= steps[0].keys() for ranks in steps)
    assert cost_of(steps[-1], weights, 2) == best
