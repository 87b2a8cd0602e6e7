"""The running planner's own work, without a bus: its cluster state, placement, decision and documents, as a site grows.

Prints, for each size of a site: seconds to add all tasks; to plan the first time; to plan the whole site again when
nothing changed, as when better places are looked for; to plan after one node was lost; for the thorough plan that
follows when its modules are loaded elsewhere; and how many documents the last three published. A third of the tasks
have a request rate. Writes bench/results/planning.json.

Run: python bench/planning.py [--sizes 8x16x16,64x128x128] (nodes x tasks x encoders)
"""

import argparse
import json
import random
import time
from pathlib import Path

from tables import measured_on

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import Fill, Placement, Solvers
from s2m3.planner.site.placer import placer, second_copies_in_spare
from s2m3.planner.site.published_documents import Documents
from s2m3.planner.site.replanner import Replanner
from s2m3.planner.solving.second_copies import kept_second_copies
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.messages import ModuleReport, NodeProfile, NodeState, Reported, TaskSpec
from s2m3.schemas.protocol import PROTOCOL
from s2m3.schemas.specs import Definition

RESULTS = Path(__file__).parent / "results" / "planning.json"
_SIZES = "8x16x16,16x32x32,32x64x64,64x128x128,100x100x100,300x300x200,1000x1000x300"
SOURCES = [f"source-{n}" for n in range(50)]
MODULE_MB = 100.0
#: Requests of a task that is asked, within the planner's memory of them.
_REQUESTS = 500
_NOW = 100.0


def definition(task: int, encoders: int) -> Definition:
    """Returns the definition of a task: one of the shared encoders, and a head that every third task shares."""
    encoder = random.Random(task).randrange(encoders)  # noqa: S311  # not a secret
    common = {"class": "noop", "memory_mb": MODULE_MB, "gflops": 1.0, "input_kb": 10.0, "output_kb": 2.0}
    modules = [
        {
            "id": f"encoder-{encoder}",
            "role": "vision-encoder",
            "source": SOURCES[encoder % len(SOURCES)],
            "config": {"n": encoder},
            "inputs": {"image": "image"},
            "outputs": {"embedding": "tensor"},
        },
        {
            "id": f"head-{task % max(1, encoders // 3)}",
            "role": "head",
            "source": SOURCES[0],
            "config": {"n": -1 - task % max(1, encoders // 3)},
            "inputs": {"x": "tensor"},
            "outputs": {"label": "text"},
        },
    ]
    steps = {
        "see": {"module": modules[0]["id"], "inputs": {"image": "input.image"}},
        "say": {"module": modules[1]["id"], "inputs": {"x": "see.embedding"}},
    }
    model = {"id": f"m{task}", "description": "-", "inputs": {"image": "image"}, "answer": ["label"], "steps": steps}
    return Definition.model_validate({"modules": [{**module, **common} for module in modules], "model": model})


class Site:
    """A planner's state with nodes that are ready, and the documents that it would publish."""

    def __init__(self, nodes: int, encoders: int) -> None:
        self.cluster = ClusterState(shipped_catalogue())
        self.documents = Documents("s2m3/v1", 1)
        self._replanner = Replanner()
        self.published = 0
        room = MODULE_MB * (3 * encoders / nodes + 6)
        for n in range(nodes):
            self.cluster.nodes.update(f"n{n}", NodeState(state="ready", boot="1", protocol=PROTOCOL))
            profile = NodeProfile(
                boot="1",
                version="1",
                memory_mb=room,
                runtime_mb=0,
                gflops=100,
                latency_ms=1,
                mbps=100,
                sources=SOURCES,
                classes=["noop"],
            )
            self.cluster.take_profile(f"n{n}", profile)

    def plan(self, *, thorough: bool, whole: bool = False) -> Placement:
        """Does what the planner does for each plan, without publishing."""
        solve = placer(0.5)(False)  # noqa: FBT003  # Placer's one argument
        fill: Fill = second_copies_in_spare if thorough else kept_second_copies
        placement, decision = self._replanner.plan(
            self.cluster.snapshot(), Solvers(solve, solve, fill), _NOW, thorough=thorough, whole=whole
        )
        self.documents.update(decision, self._publish)
        self.cluster.plans = dict(self.documents.plans)
        return placement

    def load_all(self) -> None:
        """Has each node report the modules of its plan as ready."""
        for node, plan in self.cluster.plans.items():
            reports = {spec.id: ModuleReport(state="ready", memory_mb=MODULE_MB, ms=5.0) for spec in plan.modules}
            self.cluster.take_report(node, Reported(boot="1", epoch=1, modules=reports), _NOW)

    def _publish(self, _topic: str, _payload: bytes) -> None:
        self.published += 1


def measure(nodes: int, tasks: int, encoders: int) -> dict[str, float]:
    """Returns the seconds of each kind of work at one size."""
    wanted = {f"t{t}": TaskSpec(model=f"m{t}", definition=definition(t, encoders)) for t in range(tasks)}
    site, times = Site(nodes, encoders), {}

    def timed(name: str, began: float) -> None:
        times[name] = round(time.perf_counter() - began, 4)

    began = time.perf_counter()
    for task, spec in wanted.items():
        site.cluster.want(task, spec)
        site.cluster.sessions.add(task)
    site.cluster.ranks_of("t0")  # definitions are read when they are first asked for
    timed("add_s", began)
    began = time.perf_counter()
    errors = site.plan(thorough=True).errors
    timed("first_plan_s", began)
    site.load_all()
    for t in range(0, tasks, 3):
        site.cluster.rates.add(f"t{t}", _REQUESTS, _NOW)
    for _ in range(2):
        site.plan(thorough=True, whole=True)
        site.load_all()
    site.plan(thorough=False)
    documents = {}

    def plan(name: str, *, thorough: bool, whole: bool = False) -> None:
        site.published, began = 0, time.perf_counter()
        site.plan(thorough=thorough, whole=whole)
        timed(f"{name}_s", began)
        documents[name] = site.published

    plan("steady_plan", thorough=True, whole=True)
    lost = next(node for node, plan in site.cluster.plans.items() if plan.modules)
    site.cluster.nodes.update(lost, NodeState(state="lost", boot="1"))
    site.cluster.note_loss(lost, _NOW)
    plan("plan_after_a_loss", thorough=False)
    site.load_all()
    plan("plan_that_follows", thorough=True)
    return {**times, **{f"documents_{name}": found for name, found in documents.items()}, "errors": len(errors)}


def main() -> None:
    """Measures every size and prints a row for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--sizes", default=_SIZES, help="nodes x tasks x encoders, with commas")
    parser.add_argument("--json", type=Path, default=RESULTS, help="the file of results")
    options = parser.parse_args()
    rows = []
    print(f"{'nodes x tasks x encoders':26}{'add':>9}{'first':>9}{'steady':>9}{'a loss':>9}{'follows':>9}  documents")
    for size in options.sizes.split(","):
        nodes, tasks, encoders = map(int, size.split("x"))
        found = measure(nodes, tasks, encoders)
        rows.append({"nodes": nodes, "tasks": tasks, "encoders": encoders, **found})
        names = ("add_s", "first_plan_s", "steady_plan_s", "plan_after_a_loss_s", "plan_that_follows_s")
        seconds = [found[name] for name in names]
        counts = ", ".join(str(found["documents_" + name.removesuffix("_s")]) for name in names[2:])
        print(f"{size:26}{''.join(f'{second:>8.2f}s' for second in seconds)}  {counts}", flush=True)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"measured": measured_on(), "sizes": rows}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
