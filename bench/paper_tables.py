"""The tables of the paper's evaluation: every number that docs/paper.md shows, from placements alone.

An independent construction: devices, links and instances are assumed (bench/paper_models.py), not the paper's.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import mean

import paper_claims
import paper_models as paper
from tables import Table

from s2m3.planner.solving.baselines import solve_by
from s2m3.planner.solving.churn import POLICIES, simulate_churn
from s2m3.planner.solving.problem import Problem
from s2m3.planner.solving.queueing import loaded_latencies_s, utilisation
from s2m3.planner.solving.solve import Solution, solve
from s2m3.schemas.churn_trace import drawn_trace
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Instance

__all__ = [
    "SEED",
    "by_task",
    "churn",
    "latency",
    "load",
    "memory",
    "optimal",
    "per_device",
    "sensitivity",
    "sharing",
    "split",
]

#: Enough for a proof on every instance here, on any machine: results do not depend on its speed.
_BUDGET_S = 60.0
_SAME = 1 + 1e-9
_BED = "all-five"
#: Of random placements and of the trace.
SEED = 0
#: Column -> method of `s2m3 plan --compare`.
_METHODS = {
    "on the asking board": "single:board-2",
    "on the desktop": "single:desktop",
    "on the server": "single:server",
    "random": "random",
    "greedy, memory": "greedy:memory",
    "greedy, compute": "greedy:compute",
    "ours (auto)": "auto",
}
_DAY_S, _LOST_EVERY_S, _BACK_AFTER_S = 86_400.0, 7200.0, 600.0
_RATES = (0.1, 0.5, 1.0, 2.0, 4.0)


def _on(bed: str, models: Sequence[str], devices: Mapping[str, paper.Device] = paper.DEVICES) -> Instance:
    names, source = paper.TESTBEDS[bed]
    return paper.instance(tuple(models), {name: devices[name] for name in names}, source)


def _auto(instance: Instance) -> Solution:
    return solve(instance, budget_s=_BUDGET_S)


def _mean_ms(solution: Solution | None) -> float | None:
    """Returns the mean latency over a plan's tasks, milliseconds."""
    return None if solution is None else 1000 * mean(task.latency_s for task in solution.tasks.values())


def _by(instance: Instance, method: str) -> Solution | None:
    try:
        return solve_by(instance, method, budget_s=_BUDGET_S, seed=SEED)
    except NoCapacityError:
        return None


def latency(suites: Iterable[str] = paper.SUITES) -> Table:
    """Returns the mean latency of each set of tasks by each placement, ms; a dash where the modules do not fit."""
    extra = ["ours, 2 copies", "cloud behind a WAN", "ours, no server"]
    rows = []
    for suite in suites:
        models = paper.SUITES[suite]
        instance = _on(_BED, models)
        cloud = paper.instance(models, {"cloud": paper.CLOUD}, None)
        rows.append(
            [
                suite,
                *(_mean_ms(_by(instance, method)) for method in _METHODS.values()),
                _mean_ms(_auto(instance.model_copy(update={"max_replicas": 2}))),
                _mean_ms(_auto(cloud)),
                _mean_ms(_auto(_on("no-server", models))),
            ]
        )
    return Table("latency", ["tasks, ms", *_METHODS, *extra], rows)


def by_task() -> Table:
    """Returns the latency of each task of the largest mix by each placement, ms."""
    models = paper.SUITES["mix-all"]
    instance = _on(_BED, models)
    found = {name: _by(instance, method) for name, method in _METHODS.items()}
    found["cloud behind a WAN"] = _auto(paper.instance(models, {"cloud": paper.CLOUD}, None))
    rows = [
        [task.id, *(None if plan is None else 1000 * plan.tasks[task.id].latency_s for plan in found.values())]
        for task in instance.tasks
    ]
    return Table("latency-by-task", ["task of mix-all, ms", *found], rows)


def memory() -> Table:
    """Returns the memory of each mix of tasks, MB: a copy for each task, shared, and on the fullest device."""
    rows = []
    for suite, models in paper.SUITES.items():
        if len(models) > 1:
            instance = _on(_BED, models)
            size = {module.id: module.memory_mb for module in instance.modules}
            apart = sum(
                size[module] for task in instance.tasks for module in sorted({step.module for step in task.steps})
            )
            shared = sum(size.values())
            fullest = max(_auto(instance).memory_mb.values())
            tight = max(_auto(_on("laptop-home", models)).memory_mb.values())
            rows.append([suite, apart, shared, 100 * (1 - shared / apart), shared, fullest, tight])
    columns = ["tasks, MB", "a copy for each task", "shared", "saved, %", "one device, all of it"]
    return Table("memory", [*columns, "ours, fullest of five", "ours, fullest of laptop and two boards"], rows)


def per_device() -> Table:
    """Returns what each device holds in the largest mix, MB, by placement."""
    instance = _on(_BED, paper.SUITES["mix-all"])
    found = {name: _by(instance, method) for name, method in _METHODS.items()}
    rows = []
    for device in instance.devices:
        held = [None if plan is None else plan.memory_mb[device.id] for plan in found.values()]
        rows.append([device.id, device.memory_mb, *held])
    return Table("memory-by-device", ["device, MB", "has", *found], rows)


def split() -> Table:
    """Returns what splitting alone saves on one device, percent, in both conventions."""
    rows: list[list[object]] = []
    for name, saved in paper_claims.split_savings().items():
        rows.append([f"CLIP {name}", *(100 * share for share in saved.values())])
    for model in ("align", "caption", "vqa-llava-7b", "vqa-phi-3", "vqa-tinyllama"):
        millions = [paper.MODULES[module].millions for module, _ in paper.MODELS[model].values()]
        rows.append([model, 100 * (1 - max(millions) / sum(millions)), None])
    columns = ["parameters on the fullest device, % less", "full towers", "without the text token embedding"]
    return Table("split", columns, rows)


def sharing(measured: Mapping[str, float] | None) -> Table:
    """Returns four tasks shared and not: parameters as counted, and MB as counted and as measured from processes.

    `measured` has `shared` and `a copy for each task`, MB of tensors as agents report them (`bench/sharing.py`).
    """
    rows: list[list[object]] = []
    for convention, (apart, once) in paper_claims.shared_millions().items():
        rows.append([f"ImageBind's audio tower, {convention}, M parameters", apart, once, 100 * (1 - once / apart)])
    once, apart = paper_claims.sharing_mb()
    rows.append(["CLAP's audio tower, counted, MB in float32", apart, once, 100 * (1 - once / apart)])
    if measured:
        apart, once = measured["a copy for each task"], measured["shared"]
        rows.append(["the same, measured in processes, MB", apart, once, 100 * (1 - once / apart)])
    return Table("sharing", ["four tasks over one CLIP ViT-B/16", "a copy for each task", "shared", "saved, %"], rows)


def _against_optimum(instances: Iterable[Instance], methods: Sequence[str]) -> dict[str, list[float]]:
    """Returns each method's objective over the proven optimum, one ratio for each instance."""
    ratios: dict[str, list[float]] = {method: [] for method in methods}
    for instance in instances:
        best = _auto(instance)
        if not best.proven_optimal:
            raise AssertionError(f"not proven within {_BUDGET_S} s")
        for method in methods:
            found = best if method == "auto" else _by(instance, method)
            ratios[method].append(float("inf") if found is None else found.objective_s / best.objective_s)
    return ratios


def optimal() -> Table:
    """Returns, on the 95 instances, how often each method is optimal, and its distance, against proven optima."""
    methods = ("greedy:memory", "greedy:compute", "auto", "random")
    ratios = _against_optimum((instance for _, instance in paper.paper_like()), methods)
    rows = []
    for method, found in ratios.items():
        best = sum(ratio <= _SAME for ratio in found)
        rows.append([method, best, len(found), 100 * best / len(found), mean(found), max(found)])
    return Table("optimal", ["method", "optimal in", "of", "share, %", "mean, times", "worst, times"], rows)


def sensitivity() -> Table:
    """Returns how often the greedy is optimal when an assumption is another one."""
    rows = []
    for name, devices, audio in _assumptions():
        with _audio(audio):
            beds = [_on(bed, models, devices) for bed in paper.TESTBEDS for models in paper.SUITES.values()]
        fitting = [instance for instance in beds if _by(instance, "greedy") is not None]
        ratios = _against_optimum(fitting, ("greedy:memory", "greedy:compute"))
        shares = [100 * sum(ratio <= _SAME for ratio in found) / len(found) for found in ratios.values()]
        rows.append([name, len(fitting), *shares, max(ratios["greedy:compute"])])
    columns = ["changed", "instances that fit", "greedy, memory, %", "greedy, compute, %", "worst, compute, times"]
    return Table("sensitivity", columns, rows)


def _assumptions() -> list[tuple[str, dict[str, paper.Device], float]]:
    """Returns changes of the assumptions: what is said, the devices, and GFLOPs of ImageBind's audio tower."""

    def scaled(change: Callable[[paper.Device], paper.Device]) -> dict[str, paper.Device]:
        return {name: change(device) for name, device in paper.DEVICES.items()}

    audio = paper.MODULES["imagebind-audio"].gflops
    return [
        ("nothing", paper.DEVICES, audio),
        ("links half as fast", scaled(lambda d: replace(d, mbps=d.mbps / 2)), audio),
        ("links twice as fast", scaled(lambda d: replace(d, mbps=d.mbps * 2)), audio),
        ("latencies twice", scaled(lambda d: replace(d, latency_ms=d.latency_ms * 2)), audio),
        ("devices half as fast", scaled(lambda d: replace(d, gflops=d.gflops / 2, gb_s=d.gb_s / 2)), audio),
        ("memory a quarter", scaled(lambda d: replace(d, memory_mb=d.memory_mb / 4)), audio),
        ("sound of one clip, 41 GFLOPs", paper.DEVICES, 41.0),
        ("sound of three clips, 123 GFLOPs", paper.DEVICES, 123.0),
    ]


class _audio:  # noqa: N801  # reads as a statement
    """Sets ImageBind's audio operations while instances are built."""

    def __init__(self, gflops: float) -> None:
        self._part = paper.MODULES["imagebind-audio"]
        self._gflops = gflops

    def __enter__(self) -> None:
        paper.MODULES["imagebind-audio"] = replace(self._part, gflops=self._gflops)

    def __exit__(self, *_: object) -> None:
        paper.MODULES["imagebind-audio"] = self._part


def load() -> Table:
    """Returns the mean latency under load of one mix without a server, ms, by requests a second of each task."""
    rows = []
    for rate in _RATES:
        idle = _on("no-server", paper.SUITES["mix-caption"])
        rated = tuple(task.model_copy(update={"rate": rate}) for task in idle.tasks)
        loaded = idle.model_copy(update={"tasks": rated})
        twice = loaded.model_copy(update={"max_replicas": 2})
        plans = [_by(loaded, "greedy"), _auto(idle), _auto(loaded), _auto(twice)]
        waits = [_under_load(loaded, plan) for plan in plans if plan is not None]
        rows.append([rate, *(wait for wait, _ in waits), 100 * waits[-1][1]])
    columns = ["requests/s of each task, ms", "greedy", "ours, idle", "ours, with load", "ours, with load, 2 copies"]
    return Table("load", [*columns, "busiest device of the last, %"], rows)


def _under_load(instance: Instance, plan: Solution) -> tuple[float, float]:
    """Returns the mean latency of a plan under load, ms, and the utilisation of its busiest device."""
    problem = Problem(instance)
    routes = [
        tuple(problem.device_at[plan.tasks[task.id].route[step]] for step in shape.step_ids)
        for task, shape in zip(instance.tasks, problem.tasks, strict=True)
    ]
    return 1000 * mean(loaded_latencies_s(problem, routes)), float(utilisation(problem, routes).max())


def churn() -> Table:
    """Returns what a day of losses and joins does to the largest mix, by policy."""
    instance = _on(_BED, paper.SUITES["mix-all"])
    names = [device.id for device in instance.devices]
    trace = drawn_trace(names, until_s=_DAY_S, lost_every_s=_LOST_EVERY_S, back_after_s=_BACK_AFTER_S, seed=SEED)
    lost = sum(event.kind == "lost" for event in trace.events)
    rows = []
    for policy in POLICIES:
        found = simulate_churn(instance, trace, policy)
        worst = min(found.tasks.values(), key=lambda task: task.availability)
        parts = (f"{100 * part:.3f}" for part in (found.availability, worst.availability))
        ways = (*parts, worst.without_s, worst.longest_s)
        rows.append([policy, lost, *ways, found.loads, found.loaded_mb / 1000])
    columns = ["policy", "losses", "answered, %", "worst task, %", "without, s", "longest, s", "loads", "loaded, GB"]
    return Table("churn", columns, rows)
