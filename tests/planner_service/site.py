"""A site made of facts, for the planner's pure parts: nodes, tasks, what is ready where."""

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas.definitions import shipped_catalogue
from s2m3.schemas.messages import ErrorBody, ModuleReport, NodeProfile, NodeState, Plan, Reported, TaskSpec


def make_facts(*tasks: str, nodes: dict[str, float] | None = None) -> ClusterState:
    """Facts with ready nodes of the given memory and a task of each model named."""
    cluster = ClusterState(shipped_catalogue())
    for node, memory in (nodes or {"a": 1000.0, "b": 1000.0}).items():
        join(cluster, node, memory)
    for task in tasks:
        cluster.tasks[task] = TaskSpec(model=task)
        cluster.sessions.add(task)
    return cluster


def join(cluster: ClusterState, node: str, memory: float = 1000.0, boot: str = "1", protocol: int = 0) -> None:
    cluster.nodes.update(node, NodeState(state="ready", boot=boot, protocol=protocol))
    modules = shipped_catalogue().modules.values()
    cluster.profiles[node] = NodeProfile(
        boot=boot,
        version="1",
        memory_mb=memory,
        runtime_mb=0,
        gflops=100,
        latency_ms=1,
        mbps=100,
        sources=sorted({spec.source for spec in modules}),
        classes=sorted({spec.class_ for spec in modules}),
    )


def lose(cluster: ClusterState, node: str, boot: str = "1", *, left: bool = False) -> None:
    cluster.nodes.update(node, NodeState(state="lost", boot=boot, left=left))


def hold(
    cluster: ClusterState, node: str, *modules: str, state: str = "ready", boot: str = "1", planned: bool = True
) -> None:
    """The node reports these modules in this state, and (usually) its plan names them."""
    reason = ErrorBody(code="module_failed", detail="broken") if state == "failed" else None
    known = shipped_catalogue().modules
    reports = {
        m: ModuleReport.model_validate({"state": state, "reason": reason, "memory_mb": known[m].memory_mb})
        for m in modules
    }
    cluster.reported[node] = Reported(boot=boot, modules=reports)
    if planned:
        specs = [shipped_catalogue().modules[m] for m in modules]
        gateways = cluster.plans[node].gateways if node in cluster.plans else []
        cluster.plans[node] = Plan(epoch=1, revision=1, modules=specs, gateways=gateways)
