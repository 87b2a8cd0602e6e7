"""After a loss, routes change that named the lost node, and no others: second copies of other modules stay in place."""

import random
from collections.abc import Iterator

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.placement import Fill, Placement, place
from s2m3.planner.site.placer import placer, second_copies_in_spare
from s2m3.planner.site.published_documents import Documents
from s2m3.planner.solving.second_copies import kept_second_copies
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.messages import ModuleReport, NodeProfile, NodeState, Reported, TaskSpec
from s2m3.schemas.specs import Definition

_NODES, _TASKS, _ENCODERS = 12, 12, 9
_GFLOPS = (8.0, 30.0, 100.0, 400.0)
_NOW = 100.0
_QUICKLY = placer(0.0)(False)  # noqa: FBT003  # Placer's one argument


def _definition(number: int) -> Definition:
    """An encoder that some tasks share, and a head that more of them share."""
    encoder, head = f"encoder-{number * number % _ENCODERS}", f"head-{number % 6}"
    common = {"class": "noop", "memory_mb": 100.0, "gflops": 1.0, "input_kb": 10.0, "output_kb": 2.0, "source": "none"}
    see = {"id": encoder, "role": "vision-encoder", "inputs": {"image": "image"}, "outputs": {"embedding": "tensor"}}
    say = {"id": head, "role": "head", "inputs": {"x": "tensor"}, "outputs": {"label": "text"}}
    steps = {
        "see": {"module": encoder, "inputs": {"image": "input.image"}},
        "say": {"module": head, "inputs": {"x": "see.embedding"}},
    }
    model = {"id": f"m{number}", "description": "-", "inputs": {"image": "image"}, "answer": ["label"], "steps": steps}
    modules = [{**module, **common, "prefix": module["id"]} for module in (see, say)]
    return Definition.model_validate({"modules": modules, "model": model})


class PlannedSite:
    """Nodes of different speeds and links with tasks; what the planner publishes for them, and what nodes load."""

    def __init__(self, seed: int, memory_mb: float) -> None:
        self._rng = random.Random(seed)  # noqa: S311  # not a secret
        self.cluster = ClusterState(shipped_catalogue())
        self._documents = Documents("s2m3/v1", 1)
        for n in range(_NODES):
            self._join(f"n{n}", memory_mb)
        for t in range(_TASKS):
            self.cluster.want(f"t{t}", TaskSpec(model=f"m{t}", definition=_definition(t)))
            self.cluster.sessions.add(f"t{t}")

    def _join(self, node: str, memory_mb: float) -> None:
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
        self.cluster.note_loss(node, _NOW)

    def named(self) -> dict[str, frozenset[str]]:
        """Returns the nodes that each task's route names."""
        decided = decide(self.cluster, self._place(kept_second_copies))
        replicas = {task: [r for s in doc.steps.values() for r in s.replicas] for task, doc in decided.routes.items()}
        return {task: frozenset(replica.node for replica in found) for task, found in replicas.items()}

    def settle(self) -> list[str]:
        """Makes plans, quick and thorough, until nothing is published; returns the tasks whose route changed."""
        changed: list[str] = []
        for fill in self._fills():
            said: list[str] = []
            decision = decide(self.cluster, self._place(fill))
            self._documents.update(decision, lambda topic, _, said=said: said.append(topic))  # type: ignore[misc]
            self.cluster.plans = dict(self._documents.plans)
            self._load()
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
        return place(self.cluster, _QUICKLY, _NOW, fill)

    def _load(self) -> None:
        """Has each node report the modules of its plan as ready, with a time that its speed makes likely."""
        for node, plan in self.cluster.plans.items():
            known = self.cluster.reported.get(node)
            before = known.modules if known is not None else {}
            reports = {spec.id: before.get(spec.id) or self._report(node) for spec in plan.modules}
            self.cluster.take_report(node, Reported(boot="1", epoch=1, modules=reports), _NOW)

    def _report(self, node: str) -> ModuleReport:
        seconds = 1.0 / self.cluster.profiles[node].gflops / 0.3 * self._rng.uniform(0.8, 1.25)
        return ModuleReport(state="ready", memory_mb=100.0, ms=round(seconds * 1000, 3))


def test_after_a_loss_only_routes_change_that_named_the_lost_node() -> None:
    site = PlannedSite(4, memory_mb=350.0)
    site.settle()
    for _ in range(2):
        named = site.named()
        holding = sorted(set().union(*named.values()))
        lost = holding[len(holding) // 2]
        site.lose(lost)
        changed = site.settle()
        assert set(changed) == {task for task, nodes in named.items() if lost in nodes}
        assert all(lost not in nodes for nodes in site.named().values())
