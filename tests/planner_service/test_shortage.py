"""A site whose tasks do not all fit: as many are served as can be, and a plan asks the solver a few times at most."""

import random
from collections.abc import Mapping
from functools import partial
from itertools import product
from queue import Queue

import pytest
from structlog.testing import capture_logs

from s2m3.broker.event_loop import Loop
from s2m3.planner.plan_thread import PlanInputs, PlanThread
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import Placement, Solvers, place
from s2m3.planner.site.placer import placer
from s2m3.planner.solving.rank_choice import cost_of
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance
from s2m3.schemas.messages import ModuleReport, NodeProfile, NodeState, Plan, Reported, TaskSpec
from s2m3.schemas.protocol import PROTOCOL
from s2m3.schemas.specs import Definition
from tests.conftest import WAIT_S

_NOW = 100.0


def definition(name: str, *modules: tuple[str, float]) -> Definition:
    """A model of modules one after another, (id, memory in MB) each; equal ids are the same module."""
    common = {"class": "noop", "gflops": 1.0, "input_kb": 1.0, "output_kb": 1.0, "source": "none"}
    steps, specs = {}, []
    for at, (module, memory_mb) in enumerate(modules):
        before = "input.image" if at == 0 else f"s{at - 1}.x"
        steps[f"s{at}"] = {"module": module, "inputs": {"x": before}}
        specs.append(
            {
                "id": module,
                "role": "vision-encoder" if at == 0 else "head",
                "prefix": module,
                "memory_mb": memory_mb,
                "inputs": {"x": "image" if at == 0 else "tensor"},
                "outputs": {"x": "tensor"},
                **common,
            }
        )
    model = {"id": name, "description": "-", "inputs": {"image": "image"}, "answer": ["x"], "steps": steps}
    return Definition.model_validate({"modules": specs, "model": model})


def task(name: str, *modules: tuple[str, float]) -> TaskSpec:
    return TaskSpec(model=name, definition=definition(name, *modules))


class CountingSolver:
    """The planner's solver, with the number of times that it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, instance: Instance, current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
        self.asked += 1
        return placer(0.0)(False)(instance, current)  # noqa: FBT003  # Placer's one argument


def site(nodes: Mapping[str, float], tasks: Mapping[str, TaskSpec]) -> ClusterState:
    cluster = ClusterState(shipped_catalogue())
    for node, memory_mb in nodes.items():
        cluster.nodes.update(node, NodeState(state="ready", boot="1", protocol=PROTOCOL))
        profile = NodeProfile(
            boot="1",
            version="1",
            memory_mb=memory_mb,
            runtime_mb=0,
            gflops=100,
            latency_ms=1,
            mbps=100,
            sources=["none"],
            classes=["noop"],
        )
        cluster.take_profile(node, profile)
    for name, spec in tasks.items():
        cluster.want(name, spec)
    return cluster


def adopt(cluster: ClusterState, placement: Placement) -> None:
    """Has each node hold what is placed there."""
    for node in cluster.usable():
        held = [module for module, nodes in placement.modules.items() if node in nodes]
        specs = [cluster.catalogue.modules[module] for module in held]
        cluster.plans[node] = Plan(epoch=1, revision=1, modules=specs)
        reports = {spec.id: ModuleReport(state="ready", memory_mb=spec.memory_mb) for spec in specs}
        cluster.take_report(node, Reported(boot="1", epoch=1, modules=reports), _NOW)


def check_memory(cluster: ClusterState, placement: Placement) -> None:
    for node in cluster.usable():
        held = [module for module, nodes in placement.modules.items() if node in nodes]
        used = sum(cluster.catalogue.modules[module].memory_mb for module in held)
        assert used <= cluster.profiles[node].memory_mb


@pytest.mark.parametrize("room", [150.0, 250.0], ids=["one each", "two each"])
def test_where_most_tasks_do_not_fit_the_solver_is_asked_once(room: float) -> None:
    """Each task has a module of its own; the sum of all memory leaves more room than there is."""
    nodes, tasks = 20, 60
    cluster = site(
        {f"n{n}": room for n in range(nodes)}, {f"t{t:02}": task(f"m{t}", (f"own-{t}", 100.0)) for t in range(tasks)}
    )
    solver = CountingSolver()
    found = place(cluster, solver, _NOW)
    fitting = nodes * int(room // 100)
    assert (len(found.ranks), len(found.errors)) == (fitting, tasks - fitting)
    assert all("MB too little" in str(error) for error in found.errors.values())
    assert solver.asked <= 2
    check_memory(cluster, found)


def test_one_task_more_is_served_beside_many_that_do_not_fit() -> None:
    tasks = {f"t{t:02}": task(f"m{t}", (f"own-{t}", 100.0), (f"head-{t % 3}", 10.0)) for t in range(60)}
    cluster = site({f"n{n}": 150.0 for n in range(20)}, tasks)
    before = place(cluster, CountingSolver(), _NOW)
    adopt(cluster, before)
    cluster.want("t99", task("m99", ("own-3", 100.0), ("head-1", 10.0)))
    solver = CountingSolver()
    after = place(cluster, solver, _NOW)
    assert after.ranks == {**before.ranks, "t99": 0}
    assert after.errors.keys() == before.errors.keys()
    assert after.modules == before.modules
    assert solver.asked <= 2


def test_what_fits_by_memory_alone_is_placed_where_the_solver_finds_no_room() -> None:
    """The solver fails here, as it may; the packing that showed that the models fit is taken."""
    tasks = {"a": task("ma", ("x", 60.0)), "b": task("mb", ("y", 60.0)), "c": task("mc", ("z", 60.0))}
    cluster = site({"n0": 100.0, "n1": 100.0}, tasks)

    def solve(instance: Instance, _current: Mapping[str, list[str]]) -> Mapping[str, list[str]]:
        raise NoCapacityError(f"no room for {len(instance.modules)}")

    found = place(cluster, solve, _NOW)
    assert found.ranks == {"a": 0, "b": 0}
    assert sorted(found.modules) == ["x", "y"]
    check_memory(cluster, found)


def test_a_task_that_stays_without_room_is_logged_once() -> None:
    tasks = {name: task(f"m{name}", (f"own-{name}", 60.0)) for name in "abc"}
    cluster, loop, plans = site({"n0": 100.0}, tasks), Loop("plans"), Queue[Placement]()
    thread = PlanThread(loop, lambda placement, _: plans.put(placement), lambda: None)
    loop.start()
    thread.start()
    said = []
    try:
        for name in ("c", "b", "b"):
            with capture_logs() as logs:
                solver = CountingSolver()
                loop.call(partial(thread.submit, PlanInputs(cluster.snapshot(), Solvers(solver, solver, None))))
                assert plans.get(timeout=WAIT_S).errors
            said.append(sorted(entry["task"] for entry in logs if entry["event"] == "task_not_placed"))
            cluster.want(name, None)
            if name == "b":
                cluster.want("d", task("md", ("own-d", 60.0)))
                cluster.want(name, tasks[name])
    finally:
        thread.stop()
        loop.stop()
    assert said == [["b", "c"], [], ["d"]]


def ranked(name: str, *models: tuple[tuple[str, float], ...]) -> TaskSpec:
    """A task with models of modules, the best first."""
    best, *others = (
        {"model": f"{name}-{at}", "definition": definition(f"{name}-{at}", *modules).model_dump(by_alias=True)}
        for at, modules in enumerate(models)
    )
    return TaskSpec.model_validate({**best, "stand_ins": others})


def packs(sizes: list[float], room: list[float]) -> bool:
    """Whether modules fit on nodes, by trying every way."""
    if not sizes:
        return True
    for at in range(len(room)):
        if room[at] >= sizes[0]:
            left = [*room[:at], room[at] - sizes[0], *room[at + 1 :]]
            if packs(sizes[1:], left):
                return True
    return False


@pytest.mark.parametrize("seed", range(30))
def test_of_small_sites_with_stand_ins_nothing_costs_less_than_what_is_placed(seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311  # a case, no secret
    sizes = {f"{kind}{n}": float(chance.randint(2, 9)) for kind in ("first", "second") for n in range(4)}
    room = {f"n{n}": float(chance.randint(4, 10)) for n in range(chance.randint(1, 3))}
    models = {
        f"t{n}": [
            (f"first{chance.randrange(4)}", f"second{chance.randrange(4)}")[: chance.randint(1, 2)]
            for _ in range(chance.randint(1, 3))
        ]
        for n in range(chance.randint(2, 4))
    }
    tasks = {
        name: ranked(name, *(tuple((module, sizes[module]) for module in one) for one in ranks))
        for name, ranks in models.items()
    }
    cluster = site(room, tasks)
    found = place(cluster, CountingSolver(), _NOW)
    check_memory(cluster, found)
    assert found.ranks.keys() | found.errors.keys() == tasks.keys()
    assert all(isinstance(error, NoCapacityError) for error in found.errors.values()), found.errors

    def fits(ranks: Mapping[str, int]) -> bool:
        needed = {module for name, rank in ranks.items() for module in models[name][rank]}
        return packs([sizes[module] for module in needed], list(room.values()))

    every = (
        {name: rank for name, rank in zip(models, ranks, strict=True) if rank is not None}
        for ranks in product(*([*range(len(one)), None] for one in models.values()))
    )
    weights = dict.fromkeys(models, 1.0)
    assert cost_of(found.ranks, weights, 2) == min(cost_of(one, weights, 2) for one in every if fits(one))
