"""A site of different nodes with tasks that share modules: what is planned for it, and what its nodes load."""

import random
from collections.abc import Iterator

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Decision, decide
from s2m3.planner.site.placement import Fill, Placement, Solvers, place
from s2m3.planner.site.placer import placer, second_copies_in_spare
from s2m3.planner.site.published_documents import Documents
from s2m3.planner.site.replanner import Replanner
from s2m3.planner.solving.second_copies import kept_second_copies
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.messages import ModuleReport, NodeProfile, NodeState, Reported, RouteDoc, TaskSpec
from s2m3.schemas.specs import Definition

__all__ = ["NOW", "QUICKLY", "PlannedSite", "definition"]

_NODES, _TASKS, _ENCODERS = 12, 12, 9
_GFLOPS = (8.0, 30.0, 100.0, 400.0)
NOW = 100.0
QUICKLY = placer(0.0)(False)  # noqa: FBT003  # Placer's one argument


def definition(number: int, encoder: str = "", prefix: str = "", memory_mb: float = 100.0) -> Definition:
    """An encoder that some tasks share, or the given one, and a head that more of them share.

    Encoders of one prefix, and of one size, are one module, whatever their names.
    """
    encoder, head = encoder or f"encoder-{number * number % _ENCODERS}", f"head-{number % 6}"
    common = {"class": "noop", "memory_mb": 100.0, "gflops": 1.0, "input_kb": 10.0, "output_kb": 2.0, "source": "none"}
    see = {"id": encoder, "role": "vision-encoder", "inputs": {"image": "image"}, "outputs": {"embedding": "tensor"}}
    say = {"id": head, "role": "head", "inputs": {"x": "tensor"}, "outputs": {"label": "text"}}
    steps = {
        "see": {"module": encoder, "inputs": {"image": "input.image"}},
        "say": {"module": head, "inputs": {"x": "see.embedding"}},
    }
    model = {"id": f"m{number}", "description": "-", "inputs": {"image": "image"}, "answer": ["label"], "steps": steps}
    modules = [{**module, **common, "prefix": module["id"]} for module in (see, say)]
    modules[0] |= {"prefix": prefix or encoder, "memory_mb": memory_mb}
    return Definition.model_validate({"modules": modules, "model": model})


class PlannedSite:
    """Nodes of different speeds and links with tasks; what the planner publishes for them, and what nodes load."""

    def __init__(self, seed: int, memory_mb: float) -> None:
        self._rng = random.Random(seed)  # noqa: S311  # not a secret
        self.cluster = ClusterState(shipped_catalogue())
        self.replanner = Replanner(least=0)
        #: the routes as published
        self.routes: dict[str, RouteDoc] = {}
        self._documents = Documents("s2m3/v1", 1)
        for n in range(_NODES):
            self.join(f"n{n}", memory_mb)
        for t in range(_TASKS):
            self.cluster.want(f"t{t}", TaskSpec(model=f"m{t}", definition=definition(t)))
            self.cluster.sessions.add(f"t{t}")

    def join(self, node: str, memory_mb: float) -> None:
        self.cluster.nodes.update(node, NodeState(state="ready", boot="1"))
        profile = NodeProfile(
            boot="1",
            version="1",
            memory_mb=memory_mb,
            runtime_mb=0,
            gflops=self._rng.choice(_GFLOPS),
            latency_ms=round(self._rng.uniform(0.3, 4.0), 2),
            mbps=self._rng.choice((50.0, 100.0, 1000.0)),
            sources=["none"],
            classes=["noop"],
        )
        self.cluster.take_profile(node, profile)

    def lose(self, node: str) -> None:
        self.cluster.nodes.update(node, NodeState(state="lost", boot="1"))
        self.cluster.note_loss(node, NOW)

    def named(self) -> dict[str, frozenset[str]]:
        """Returns the nodes that each task's route names."""
        decided = decide(self.cluster, self._place(kept_second_copies))
        replicas = {task: [r for s in doc.steps.values() for r in s.replicas] for task, doc in decided.routes.items()}
        return {task: frozenset(replica.node for replica in found) for task, found in replicas.items()}

    def plan(self, *, thorough: bool = False, whole: bool = False, now: float = NOW) -> tuple[Placement, list[str]]:
        """Makes and publishes the next plan, as the running planner does; returns it and the topics published."""
        fill: Fill = second_copies_in_spare if thorough else kept_second_copies
        solvers, said = Solvers(QUICKLY, QUICKLY, fill), list[str]()
        placement, decision = self.replanner.plan(self.cluster.snapshot(), solvers, now, thorough=thorough, whole=whole)
        self.publish(decision, said)
        return placement, said

    def documents_of(self, placement: Placement) -> tuple[dict[str, set[str]], dict[str, RouteDoc]]:
        """Returns the modules of each node and the routes that follow from a placement."""
        decision = decide(self.cluster.snapshot(), placement, NOW)
        modules = {node: {spec.id for spec in one.modules} for node, one in decision.assignments.items()}
        return modules, dict(decision.routes)

    def published(self) -> tuple[dict[str, set[str]], dict[str, RouteDoc]]:
        """Returns the same of what is published."""
        plans = {node: {spec.id for spec in plan.modules} for node, plan in self._documents.plans.items()}
        return plans, self.routes

    def publish(self, decision: Decision, said: list[str]) -> None:
        """Publishes a decision; adds the topics to what is said."""

        def heard(topic: str, payload: bytes) -> None:
            said.append(topic)
            task = topic.rpartition("/")[2]
            if "/route/" in topic and payload:
                self.routes[task] = RouteDoc.model_validate_json(payload).model_copy(update={"epoch": 0, "revision": 0})
            elif "/route/" in topic:
                del self.routes[task]

        self._documents.update(decision, heard)
        self.cluster.plans = dict(self._documents.plans)

    def settle(self) -> list[str]:
        """Makes plans, quick and thorough, until nothing is published; returns the tasks whose route changed."""
        changed: list[str] = []
        for fill in self._fills():
            said: list[str] = []
            decision = decide(self.cluster, self._place(fill))
            self.publish(decision, said)
            self.load()
            changed += [topic.rpartition("/")[2] for topic in said if "/route/" in topic]
            if fill is second_copies_in_spare and not said:
                return changed
        raise AssertionError("the plans do not settle")

    @staticmethod
    def _fills() -> Iterator[Fill]:
        for _ in range(10):
            yield kept_second_copies
            yield second_copies_in_spare

    def _place(self, fill: Fill) -> Placement:
        return place(self.cluster, QUICKLY, NOW, fill)

    def load(self) -> None:
        """Has each node report the modules of its plan as ready, with a time that its speed makes likely."""
        for node, plan in self.cluster.plans.items():
            known = self.cluster.reported.get(node)
            before = known.modules if known is not None else {}
            reports = {spec.id: before.get(spec.id) or self.report(node) for spec in plan.modules}
            self.cluster.take_report(node, Reported(boot="1", epoch=1, modules=reports), NOW)

    def report(self, node: str) -> ModuleReport:
        seconds = 1.0 / self.cluster.profiles[node].gflops / 0.3 * self._rng.uniform(0.8, 1.25)
        return ModuleReport(state="ready", memory_mb=100.0, ms=round(seconds * 1000, 3))
