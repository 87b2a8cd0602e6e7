"""The state of the site for dashboards: one small document per node and task. Pure: documents in, documents out."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from s2m3.broker.node_states import NodeStates
from s2m3.homeassistant.detections import labels_of
from s2m3.schemas import bridge as b
from s2m3.schemas import messages as m
from s2m3.schemas.gateways import gateway_of
from s2m3.schemas.wire.values import Kind

__all__ = ["View"]


@dataclass(slots=True)
class View:
    """The documents that the bridge has received."""

    planner: m.PlannerState | None = None
    nodes: NodeStates = field(default_factory=NodeStates)
    profiles: dict[str, m.NodeProfile] = field(default_factory=dict)
    reported: dict[str, m.Reported] = field(default_factory=dict)
    loads: dict[str, m.NodeLoad] = field(default_factory=dict)
    tasks: dict[str, m.TaskSpec] = field(default_factory=dict)
    routes: dict[str, m.RouteDoc] = field(default_factory=dict)
    plans: dict[str, m.Plan] = field(default_factory=dict)
    #: nodes that did not publish again after a broker lost its state
    silent: set[str] = field(default_factory=set)

    @property
    def present(self) -> frozenset[str]:
        """The present nodes."""
        return self.nodes.present - self.silent if self.silent else self.nodes.present

    @property
    def asleep(self) -> frozenset[str]:
        """The nodes that sleep and can be woken, as the planner says."""
        return frozenset(self.planner.asleep if self.planner is not None else ()) - self.present

    def kinds(self, task: str) -> Mapping[str, Kind]:
        """Returns input name -> kind of a task; {} while its route is unknown."""
        doc = self.routes.get(task)
        return doc.task_inputs if doc else {}

    def labels(self, task: str) -> list[str]:
        """Returns the labels of a task's detector; none of other tasks, or while its route is unknown."""
        doc = self.routes.get(task)
        return labels_of(self.tasks[task], doc.by_rank[0]) if doc else []

    def node(self, node: str) -> b.BridgeNode:
        """Returns a node's document."""
        profile, reported, load = self.profiles.get(node), self.reported.get(node), self.loads.get(node)
        connected = node in self.present
        free = reported.free_mb if reported and connected else None
        return b.BridgeNode(
            connected=connected,
            state="sleeping" if node in self.asleep else self.nodes.state(node) or "lost",
            memory_mb=round(profile.memory_mb) if profile else None,
            free_mb=None if free is None else round(free),
            used_mb=round(profile.memory_mb - free) if profile and free is not None else None,
            latency_ms=round(profile.latency_ms, 2) if profile else None,
            queue=sum(load.queues.values()) if load and connected else 0,
            modules=sorted(name for name, r in reported.modules.items() if r.state == "ready") if reported else [],
            version=profile.version if profile else None,
            device=profile.device if profile else None,
            host_mb=round(reported.host_mb) if reported and reported.host_mb and connected else None,
        )

    def task(self, task: str) -> b.BridgeTask:
        """Returns a task's document; `ready` means that a plain request would be answered."""
        doc, ready = self.routes.get(task), self._answers(task)
        rank = doc.rank_on(self.present) if doc is not None else None
        answers = doc.by_rank[rank].model if doc is not None and rank is not None else None
        problem = None if ready else self._why(doc)
        return b.BridgeTask(ready=ready, model=self.tasks[task].model, problem=problem, answers=answers, rank=rank or 0)

    def tasks_on(self, nodes: AbstractSet[str]) -> set[str]:
        """Returns the tasks whose documents depend on some nodes: a route names one, or one is the gateway."""
        gateways = {task for node in nodes & self.plans.keys() for task in self.plans[node].gateways}
        named = {task for task, doc in self.routes.items() if not doc.nodes.isdisjoint(nodes)} if nodes else set()
        return (gateways | named) & self.tasks.keys()

    def planner_document(self) -> b.BridgePlanner:
        """Returns the planner's document."""
        present = self.present
        gateways = {task for node in present & self.plans.keys() for task in self.plans[node].gateways}
        routes = (self.routes.get(task) for task in self.tasks if task in gateways)
        ready = sum(1 for doc in routes if doc is not None and doc.ready_on(present))
        online = self.planner is not None and self.planner.state == "online"
        return b.BridgePlanner(online=online, nodes=len(present), tasks=len(self.tasks), ready=ready)

    def _answers(self, task: str) -> bool:
        doc, present = self.routes.get(task), self.present
        return doc is not None and doc.ready_on(present) and gateway_of(task, self.plans, present) is not None

    def _why(self, doc: m.RouteDoc | None) -> str:
        if doc is None:
            return "not placed yet"
        if doc.error is not None:
            return f"{doc.error.code}: {doc.error.detail}"
        missing = [s.module for s in doc.steps.values() if not {r.node for r in s.replicas} & self.present]
        if not missing:
            return "no node is the gateway that takes its plain requests"
        return f"no node is ready for {', '.join(dict.fromkeys(missing))}"
