"""From cluster state and placement to documents: each node's modules, the routes, the gateway of each task. Pure."""

import heapq
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import Placement
from s2m3.planner.solving.preferences import prices_s
from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.instance import PREFERENCE_S
from s2m3.schemas.messages import ErrorBody, Replica, RouteDoc, RouteStep

__all__ = ["Assignment", "Decision", "decide"]

#: Least protocol number of a gateway that acknowledges messages on every topic of a task's session
#: (`request/{task}/{input}/{transaction}`); an older one stops at the first message on a topic that it does not know.
_KNOWS_REQUEST_TOPICS = 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """The content of one node's plan: its modules in loading order, and the tasks that it is gateway of."""

    modules: tuple[ModuleSpec, ...] = ()
    gateways: tuple[str, ...] = ()
    #: the node's protocol number, which its plan is written for
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Plans by node and routes by task, without epoch and revision, which `Documents` adds."""

    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    routes: Mapping[str, RouteDoc] = field(default_factory=dict)

    def without_removed(self, tasks: Collection[str]) -> "Decision":
        """Returns the decision without routes and gateways of tasks that are not among the given ones any more."""
        if self.routes.keys() <= set(tasks):
            return self
        assignments = {
            node: replace(one, gateways=tuple(task for task in one.gateways if task in tasks))
            for node, one in self.assignments.items()
        }
        return Decision(assignments, {task: doc for task, doc in self.routes.items() if task in tasks})


def decide(cluster: ClusterState, placement: Placement) -> Decision:
    """Returns the documents that follow from the cluster state and the placement.

    Make before break: an undesired ready copy stays until its module has a ready copy on a desired node, and routes
    name ready copies only. A draining node keeps modules for which no other node has memory. A held node without
    modules to keep gets no plan, so that a flapping node causes no documents.
    """
    with cluster.indexed():
        return _decide(cluster, placement)


def _decide(cluster: ClusterState, placement: Placement) -> Decision:
    wanted = {module: [*nodes, *placement.spare.get(module, ())] for module, nodes in placement.modules.items()}
    wanted.update({module: [] for module in _only_on_draining_nodes(cluster, placement)})
    holders = {module: _holders(cluster, module, nodes) for module, nodes in wanted.items()}
    gateways = _gateways(cluster, placement)
    told = cluster.nodes.present - (placement.held.keys() & cluster.nodes.ready)
    modules_of, gateways_of = _inverted(holders), _inverted({task: [node] for task, node in gateways.items()})
    assignments = {
        node: Assignment(
            modules=_modules_that_fit(cluster, node, modules_of.get(node, []), wanted, placement),
            gateways=tuple(gateways_of.get(node, ())),
            protocol=cluster.nodes.protocol(node),
        )
        for node in sorted(told | modules_of.keys())
    }
    routes = {task: _route(cluster, task, placement, holders) for task in sorted(cluster.tasks)}
    return Decision(assignments, routes)


def _inverted(nodes_of: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Returns node -> sorted names, of a mapping of names to nodes."""
    found: dict[str, list[str]] = {}
    for name in sorted(nodes_of):
        for node in nodes_of[name]:
            found.setdefault(node, []).append(name)
    return found


def _only_on_draining_nodes(cluster: ClusterState, placement: Placement) -> set[str]:
    """Returns the modules without a place that only draining nodes still serve."""
    models = [model for task in cluster.tasks if (model := cluster.model_of(task)) is not None]
    modules = {module for model in models for module in model.module_ids} - placement.modules.keys()
    return {
        module for module in modules if (ready := cluster.ready_nodes(module)) and not cluster.nodes.ready & {*ready}
    }


def _holders(cluster: ClusterState, module: str, wanted: list[str]) -> list[str]:
    """Returns the nodes that are to hold a module now: the desired, and until one of these is ready, old ready ones."""
    ready = cluster.ready_nodes(module)
    if any(node in ready for node in wanted):
        return list(wanted)
    return [*wanted, *(node for node in ready if node not in wanted)]


def _modules_that_fit(
    cluster: ClusterState, node: str, modules: list[str], wanted: Mapping[str, list[str]], placement: Placement
) -> tuple[ModuleSpec, ...]:
    """Returns a node's modules in loading order, further copies last.

    While old copies have to stay, new modules that do not fit into memory beside them are left out.
    """
    specs = [cluster.catalogue.modules[module] for module in modules]
    specs.sort(key=lambda spec: (node in placement.spare.get(spec.id, ()), spec.id))
    staying = [spec for spec in specs if node not in wanted[spec.id]]
    if not staying or node not in cluster.profiles:
        return tuple(specs)
    room = cluster.memory_for_modules(node)
    taken: set[str] = set()
    held_first = sorted(
        specs, key=lambda spec: (cluster.holds(node, spec.id) is None, cluster.memory_of(spec), spec.id)
    )
    for spec in held_first:
        room -= cluster.memory_of(spec)
        if room >= 0 or cluster.holds(node, spec.id) is not None:
            taken.add(spec.id)
    return tuple(spec for spec in specs if spec.id in taken)


def _gateways(cluster: ClusterState, placement: Placement) -> dict[str, str]:
    """Returns task -> gateway: the current gateway if it is usable, else the usable node with the fewest gateways.

    A node gets no more than it has open files for; a task for which no node has one left has no gateway. Nodes of
    releases that do not acknowledge messages on every topic of a task's session are taken only if there is no other.
    """
    usable = [node for node in cluster.usable() if node not in placement.held and cluster.profiles[node].gateway]
    usable = usable or [
        node for node in sorted(cluster.nodes.present) if node in cluster.plans
    ]  # draining nodes still serve
    gateways: dict[str, str] = {}
    knows_topics = {node: cluster.nodes.protocol(node) >= _KNOWS_REQUEST_TOPICS for node in usable}
    for knows in (True, False):
        gateways |= _gateways_among(cluster, [node for node in usable if knows_topics[node] == knows], gateways.keys())
    return gateways


def _gateways_among(cluster: ClusterState, nodes: list[str], others: Collection[str]) -> dict[str, str]:
    """Returns task -> gateway, of the given nodes, for the tasks that are not among the others."""
    gateways: dict[str, str] = {}
    tasks = cluster.tasks.keys() - others
    for node in nodes:
        current = cluster.plans[node].gateways if node in cluster.plans else []
        kept = [task for task in current if task in tasks and _understands(cluster, node, task)]
        gateways |= dict.fromkeys(kept[: _most_gateways(cluster, node)], node)
    taken = Counter(gateways.values())
    free = [(taken[node], node) for node in nodes if _has_room(cluster, node, taken[node])]
    heapq.heapify(free)
    for task in sorted(tasks & cluster.sessions - gateways.keys()):
        passed_over = []
        while free:
            count, node = heapq.heappop(free)
            if not _understands(cluster, node, task):
                passed_over.append((count, node))
                continue
            gateways[task] = node
            if _has_room(cluster, node, count + 1):
                heapq.heappush(free, (count + 1, node))
            break
        for entry in passed_over:
            heapq.heappush(free, entry)
    return gateways


def _most_gateways(cluster: ClusterState, node: str) -> int | None:
    profile = cluster.profiles.get(node)
    return profile.most_gateways if profile is not None else None


def _has_room(cluster: ClusterState, node: str, gateways: int) -> bool:
    most = _most_gateways(cluster, node)
    return most is None or gateways < most


def _understands(cluster: ClusterState, node: str, task: str) -> bool:
    """Whether a node can read the route of a task, which the task's gateway has to read."""
    model = cluster.model_of(task)
    return model is None or cluster.understands(node, model)


def _route(cluster: ClusterState, task: str, placement: Placement, holders: Mapping[str, list[str]]) -> RouteDoc:
    spec, model = cluster.tasks[task], cluster.model_of(task)
    error = placement.errors.get(task)
    why_not = ErrorBody(**error.as_dict()) if error is not None else None
    if model is None:
        return RouteDoc(epoch=0, revision=0, model=spec.model, deadline_s=spec.deadline_s, error=why_not)
    asleep = placement.asleep.get(task, [])
    if why_not is not None and asleep:
        sleeps = f"it would fit on {' and '.join(asleep)}, asleep: `s2m3 status` says what is done about it"
        why_not = why_not.model_copy(update={"detail": f"{why_not.detail}; {sleeps}"})
    steps = {}
    for step_id, step in model.steps.items():
        module = cluster.catalogue.modules[step.module]
        steps[step_id] = RouteStep(
            module=module.id,
            inputs=step.inputs,
            outputs=list(model.wanted_outputs(step_id)),
            generates=module.generates,
            input_kb=module.input_kb,
            output_kb=module.output_kb,
            replicas=_replicas(cluster, task, module, _serving(cluster, module, holders)),
        )
    if all(step.replicas for step in steps.values()):  # the task has no placement, but its old copies still serve it
        why_not = None
    return RouteDoc(
        epoch=0,
        revision=0,
        model=model.id,
        inputs=model.inputs,
        defaults=spec.inputs,
        options=spec.options,
        answer=model.answer,
        deadline_s=spec.deadline_s,
        threshold=spec.threshold,
        steps=steps,
        error=why_not,
        asleep=asleep,
    )


def _serving(cluster: ClusterState, module: ModuleSpec, holders: Mapping[str, list[str]]) -> list[str]:
    return [node for node in cluster.ready_nodes(module.id) if node in holders.get(module.id, ())]


def _replicas(cluster: ClusterState, task: str, module: ModuleSpec, nodes: list[str]) -> list[Replica]:
    """Returns the ready copies of a step, with what preferences count against each beside the most preferred one."""
    weights = {node: cluster.weight(node) for node in nodes}
    prices = prices_s(weights, cluster.tasks[task].prefer, PREFERENCE_S)
    least = min(prices.values(), default=0.0)
    return [_replica(cluster, module, node, (prices[node] - least) * 1000) for node in nodes]


def _replica(cluster: ClusterState, module: ModuleSpec, node: str, price_ms: float) -> Replica:
    profile = cluster.profiles[node]
    return Replica(
        node=node,
        ms=_rounded(cluster.seconds(module, node) * 1000),
        latency_ms=_rounded(profile.latency_ms),
        mbps=_rounded(profile.mbps),
        price_ms=_rounded(price_ms),
    )


def _rounded(value: float) -> float:
    """Rounds to two digits, so that a change of a few percent does not publish a new document."""
    return float(f"{value:.2g}")
