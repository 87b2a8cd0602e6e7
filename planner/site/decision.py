"""From cluster state and placement to documents: each node's modules, the routes, the gateway of each task. Pure."""

import heapq
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from s2m3.planner.site.changing_tasks import answering_rank
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.deputies import deputies
from s2m3.planner.site.known_routes import KnownRoutes
from s2m3.planner.site.mapped_weights import asked_modules, with_mapping
from s2m3.planner.site.placement import Placement, joined
from s2m3.planner.site.task_routes import TaskRoutes
from s2m3.schemas.definitions import ModelSpec, ModuleSpec
from s2m3.schemas.messages import RouteDoc

__all__ = ["Assignment", "Decision", "decide"]

#: Least protocol number of a gateway that acknowledges messages on every topic of a task's session
#: (`request/{task}/{input}/{transaction}`); an older one stops at the first message on a topic that it does not know.
_KNOWS_REQUEST_TOPICS = 1


@dataclass(frozen=True, slots=True)
class Assignment:
    """The content of one node's plan: its modules in loading order, and the tasks that it is gateway or deputy of."""

    modules: tuple[ModuleSpec, ...] = ()
    gateways: tuple[str, ...] = ()
    #: task -> its gateway, of the tasks whose deputy the node is
    deputies: Mapping[str, str] = field(default_factory=dict)
    #: the node's protocol number, which its plan is written for
    protocol: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """Plans by node and routes by task, without epoch and revision, which `Documents` adds."""

    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    routes: Mapping[str, RouteDoc] = field(default_factory=dict)

    def without_removed(self, tasks: Collection[str]) -> "Decision":
        """Returns the decision without what is of tasks that are not among the given ones any more."""
        if self.routes.keys() <= set(tasks):
            return self
        assignments = {
            node: replace(
                one,
                gateways=tuple(task for task in one.gateways if task in tasks),
                deputies={task: gateway for task, gateway in one.deputies.items() if task in tasks},
            )
            for node, one in self.assignments.items()
        }
        return Decision(assignments, {task: doc for task, doc in self.routes.items() if task in tasks})


def decide(cluster: ClusterState, placement: Placement, now: float = 0.0, known: KnownRoutes | None = None) -> Decision:
    """Returns the documents that follow from the cluster state and the placement.

    Make before break: an undesired ready copy stays until its module has a ready copy on a desired node, and routes
    name ready copies only. A draining node keeps modules for which no other node has memory. A held node without
    modules to keep gets no plan, so that a flapping node causes no documents. A model that answers stays until the
    placed one is complete and, where it came back, steady.

    Args:
        cluster: The cluster state.
        placement: The placement.
        now: Monotonic seconds.
        known: The routes of the last decision: equal ones are the same objects. Those of this decision replace them.
    """
    with cluster.indexed():
        return _decide(cluster, placement, now, known if known is not None else KnownRoutes())


def _decide(cluster: ClusterState, placement: Placement, now: float, known: KnownRoutes) -> Decision:
    # the nodes that are to hold each module in the end
    wanted = joined(placement.modules, placement.transit, placement.stand_ins, placement.spare)
    answering = {task: answering_rank(cluster, task, now) for task, spec in cluster.tasks.items() if spec.stand_ins}
    kept, yielding = _kept_models(cluster, placement, answering)
    kept |= _only_on_draining_nodes(cluster, wanted)
    wanted.update({module: [] for module in (kept | yielding) - wanted.keys()})
    holders = {module: _holders(cluster, module, nodes) for module, nodes in wanted.items()}
    gateways = _gateways(cluster, placement)
    told = cluster.nodes.present - (placement.held.keys() & cluster.nodes.ready)
    deputies_of = deputies(cluster, gateways)
    modules_of, gateways_of = _inverted(holders), _inverted({task: [node] for task, node in gateways.items()})
    asked = asked_modules(cluster)

    def modules(node: str) -> tuple[ModuleSpec, ...]:
        fit = _modules_that_fit(
            cluster, node, modules_of.get(node, []), wanted, placement, kept=kept, yielding=yielding - kept
        )
        return with_mapping(cluster, node, fit, placement.mapped, asked)

    assignments = {
        node: Assignment(
            modules=modules(node),
            gateways=tuple(gateways_of.get(node, ())),
            deputies=deputies_of.get(node, {}),
            protocol=cluster.nodes.protocol(node),
        )
        for node in sorted(told | modules_of.keys())
    }
    known.keep(cluster.tasks)
    routes = TaskRoutes(cluster, placement, holders, answering, known)
    return Decision(assignments, {task: routes.of(task, now) for task in sorted(cluster.tasks)})


def _kept_models(
    cluster: ClusterState,
    placement: Placement,
    answering: Mapping[str, int | None],
) -> tuple[set[str], set[str]]:
    """Returns the modules of the models that answer in the place of the placed ones: make before break, of models.

    Returns:
        Those of models that answer until a better one does; and those that stay only where there is memory beside the
        placed ones: of models that answer until a worse one does, whose place was chosen for want of memory, and of
        models that another one, which stays, can answer for until the better one does.
    """
    kept, yielding = set[str](), set[str]()
    firm = joined(placement.modules, placement.transit)
    for task, rank in answering.items():
        placed = placement.ranks.get(task)
        if rank is None or placed is None or (rank == placed and task not in placement.yielding):
            continue
        model = cluster.model_of(task, rank)
        modules = model.module_ids if model is not None else ()
        may_go = rank < placed or task in placement.yielding
        goes = may_go and _has_substitute(cluster, task, {rank, min(rank, placed)}, firm)
        breaks = placement.breaks and rank < placed
        (yielding if goes or breaks else kept).update(modules)
    return kept, yielding


def _has_substitute(
    cluster: ClusterState, task: str, other_than: Collection[int], firm: Mapping[str, Collection[str]]
) -> bool:
    """Returns whether another model of a task is ready on nodes that are to hold it."""
    models = [model for rank, model in enumerate(cluster.ranks_of(task)) if rank not in other_than]
    return any(
        isinstance(model, ModelSpec)
        and all(set(cluster.ready_nodes(module)).intersection(firm.get(module, ())) for module in model.module_ids)
        for model in models
    )


def _inverted(nodes_of: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Returns node -> sorted names, of a mapping of names to nodes."""
    found: dict[str, list[str]] = {}
    for name in sorted(nodes_of):
        for node in nodes_of[name]:
            found.setdefault(node, []).append(name)
    return found


def _only_on_draining_nodes(cluster: ClusterState, wanted: Collection[str]) -> set[str]:
    """Returns the modules without a place that only draining nodes still serve."""
    models = [model for task in cluster.tasks for model in cluster.ranks_of(task) if isinstance(model, ModelSpec)]
    modules = {module for model in models for module in model.module_ids}.difference(wanted)
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
    cluster: ClusterState,
    node: str,
    modules: list[str],
    wanted: Mapping[str, list[str]],
    placement: Placement,
    *,
    kept: Collection[str],
    yielding: Collection[str],
) -> tuple[ModuleSpec, ...]:
    """Returns a node's modules in loading order, stand-ins and then second copies last.

    While old copies have to stay, new modules that do not fit into memory beside them are left out. Old copies of
    modules that yield stay only if they fit beside the new ones, and so do stand-ins and second copies.
    """
    specs = [cluster.catalogue.modules[module] for module in modules]
    further = (placement.stand_ins, placement.spare)
    specs.sort(key=lambda spec: (*(node in copies.get(spec.id, ()) for copies in reversed(further)), spec.id))
    staying = [spec for spec in specs if node not in wanted[spec.id]]
    if not staying or node not in cluster.profiles:
        return tuple(specs)

    def gives_way(spec: ModuleSpec) -> int:
        is_staying = node not in wanted[spec.id]
        if is_staying and spec.id in yielding:
            return 1
        of = placement.stand_ins.keys() - placement.modules.keys() - placement.transit.keys()
        is_spare = spec.id in of if is_staying else any(node in copies.get(spec.id, ()) for copies in further)
        return 2 if is_spare and spec.id not in kept else 0

    def size_mb(spec: ModuleSpec) -> float:
        held = cluster.holds(node, spec.id)
        return cluster.memory_of(spec, mapped=spec.id in placement.mapped or (held is not None and held.mapped))

    room = cluster.memory_for_modules(node)
    taken: set[str] = set()
    for spec in sorted(specs, key=lambda s: (gives_way(s), cluster.holds(node, s.id) is None, size_mb(s), s.id)):
        size = size_mb(spec)
        if size <= room or (cluster.holds(node, spec.id) is not None and not gives_way(spec)):
            taken.add(spec.id)
            room -= size
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
