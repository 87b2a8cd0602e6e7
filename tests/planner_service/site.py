"""A site made of facts, for the planner's pure parts: nodes, tasks, what is ready where."""

from planner.facts import Facts
from schemas.definitions import shipped_catalogue
from schemas.messages import ErrorBody, ModuleReport, NodeProfile, NodeState, Plan, Reported, TaskSpec


def make_facts(*tasks: str, nodes: dict[str, float] | None = None) -> Facts:
    """Facts with ready nodes of the given memory and a task of each model named."""
    facts = Facts(shipped_catalogue())
    for node, memory in (nodes or {"a": 1000.0, "b": 1000.0}).items():
        join(facts, node, memory)
    for task in tasks:
        facts.tasks[task] = TaskSpec(model=task)
        facts.sessions.add(task)
    return facts


def join(facts: Facts, node: str, memory: float = 1000.0, boot: str = "1") -> None:
    facts.nodes.update(node, NodeState(state="ready", boot=boot))
    modules = shipped_catalogue().modules.values()
    facts.profiles[node] = NodeProfile(
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


def lose(facts: Facts, node: str, boot: str = "1") -> None:
    facts.nodes.update(node, NodeState(state="lost", boot=boot))


def hold(facts: Facts, node: str, *modules: str, state: str = "ready", boot: str = "1", planned: bool = True) -> None:
    """The node reports these modules in this state, and (usually) its plan names them."""
    reason = ErrorBody(code="module_failed", detail="broken") if state == "failed" else None
    known = shipped_catalogue().modules
    reports = {
        m: ModuleReport.model_validate({"state": state, "reason": reason, "memory_mb": known[m].memory_mb})
        for m in modules
    }
    facts.reported[node] = Reported(boot=boot, modules=reports)
    if planned:
        specs = [shipped_catalogue().modules[m] for m in modules]
        fronts = facts.plans[node].fronts if node in facts.plans else []
        facts.plans[node] = Plan(epoch=1, revision=1, modules=specs, fronts=fronts)
