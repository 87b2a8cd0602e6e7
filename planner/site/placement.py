"""From cluster state to a placement: builds the instance, solves it, and leaves out tasks that do not fit. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas.definitions import ModelSpec
from s2m3.schemas.errors import NoCapacityError, S2M3Error, UnknownTaskError
from s2m3.schemas.instance import Instance, parse_instance

__all__ = ["Fill", "Placement", "Solve", "build_instance", "place"]

#: (instance, current placement) -> placement, module -> devices. Raises NoCapacityError.
Solve = Callable[[Instance, Mapping[str, list[str]]], Mapping[str, list[str]]]
#: (instance, new placement, current placement) -> further copies, module -> devices
Fill = Callable[[Instance, Mapping[str, list[str]], Mapping[str, list[str]]], Mapping[str, list[str]]]


#: node -> memory for modules, 10^6 bytes
MemoryByNode = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Placement:
    """The desired nodes of every module, and the error of each task that cannot be served."""

    modules: Mapping[str, list[str]] = field(default_factory=dict)
    #: further copies in spare memory, module -> nodes
    spare: Mapping[str, list[str]] = field(default_factory=dict)
    errors: Mapping[str, S2M3Error] = field(default_factory=dict)
    #: present nodes that are held down because they flap, node -> reason
    held: Mapping[str, str] = field(default_factory=dict)


def build_instance(
    cluster: ClusterState, tasks: list[str], now: float, memory_mb_by_node: MemoryByNode | None = None
) -> Instance:
    """Returns the instance (schemas/instance.py) of the given tasks.

    Args:
        cluster: The cluster state.
        tasks: Names of tasks.
        now: Monotonic seconds.
        memory_mb_by_node: The nodes to use; None takes all usable nodes with their full memory.

    Raises:
        NoCapacityError: No node can load one of the modules.
        UnknownTaskError: A task's model is unknown.
        S2M3Error: A task's embedded definition is invalid.
    """
    memory_mb_by_node = _full_memory(cluster) if memory_mb_by_node is None else memory_mb_by_node
    nodes = list(memory_mb_by_node)
    models = {task: _model(cluster, task) for task in tasks}
    module_ids = dict.fromkeys(m for model in models.values() for m in model.module_ids)
    return parse_instance(
        {
            "devices": [
                {
                    "id": node,
                    "memory_mb": memory_mb,
                    "latency_ms": cluster.profiles[node].latency_ms,
                    "mbps": cluster.profiles[node].mbps,
                }
                for node, memory_mb in memory_mb_by_node.items()
            ],
            "modules": [_module(cluster, module_id, list(models.values()), nodes, now) for module_id in module_ids],
            "tasks": [_task(task, models[task], cluster.rates.rate(task, now)) for task in tasks],
            "max_replicas": max((cluster.tasks[task].max_replicas for task in tasks), default=1),
        }
    )


def _model(cluster: ClusterState, task: str) -> ModelSpec:
    model = cluster.model_of(task)
    if task in cluster.refused:
        raise cluster.refused[task]
    if model is None:
        known = ", ".join(sorted(cluster.catalogue.models))
        raise UnknownTaskError(f"task {task} wants the model {cluster.tasks[task].model!r}; known: {known}")
    return model


def _module(
    cluster: ClusterState, module_id: str, models: list[ModelSpec], nodes: list[str], now: float
) -> dict[str, Any]:
    spec = cluster.catalogue.modules[module_id]
    able = [node for node in nodes if cluster.can_load(spec, node, now)]
    if not able:
        failed = cluster.failure_of(module_id)
        nobody = "" if cluster.has_source(spec) else ", which no node has: an agent where it is sends it to others"
        needs = f"the class {spec.class_} and the source {spec.source}{nobody}"
        why = f"; it failed with {failed.code}: {failed.detail}" if failed else f"; it needs {needs}"
        raise NoCapacityError(f"no node that is ready can load {module_id}{why}")
    return {
        "id": module_id,
        "memory_mb": cluster.memory_of(spec),
        "input_kb": spec.input_kb,
        "output_kb": max(model.sent_kb(spec) for model in models),
        "seconds": {node: cluster.seconds(spec, node) for node in able},
    }


def _task(task: str, model: ModelSpec, rate: float | None) -> dict[str, Any]:
    steps = [{"id": s, "module": step.module, "after": list(step.after)} for s, step in model.steps.items()]
    return {"id": task, "steps": steps, "rate": rate}


def place(cluster: ClusterState, solve: Solve, now: float, fill: Fill | None = None) -> Placement:
    """Returns a placement for all tasks if they fit, else for as many as fit: tasks served now first, then by name.

    Args:
        cluster: The cluster state.
        solve: Places modules.
        now: Monotonic seconds.
        fill: Adds further copies in spare memory.

    Returns:
        The placement. In the moments after a loss, tasks that do not fit have no error: the node may return. Nor has a
        new task whose checkpoint no node has offered yet.
    """
    placement = _place_on_the_steady(cluster, solve, now, fill)
    hoped = {t for t, e in placement.errors.items() if isinstance(e, NoCapacityError) and cluster.hopes(t, now)}
    return replace(placement, errors={t: e for t, e in placement.errors.items() if t not in hoped})


def _place_on_the_steady(cluster: ClusterState, solve: Solve, now: float, fill: Fill | None) -> Placement:
    """Places on nodes that are not held down, if all tasks fit there, else on all nodes.

    Memory pressure reduces a node's memory unless tasks would not fit; then only further copies are given up.
    """
    held = cluster.flapping.held(now)
    full = _full_memory(cluster)
    pressed = {node: max(0.0, memory_mb_by_node - cluster.pressure(node)) for node, memory_mb_by_node in full.items()}
    steady = {node: memory_mb_by_node for node, memory_mb_by_node in pressed.items() if node not in held}
    if len(steady) < len(full):
        placement = replace(_place_in(cluster, solve, now, steady, fill), held=held)
        if not placement.errors:
            return placement
    placement = _place_in(cluster, solve, now, pressed, fill)
    if pressed != full and placement.errors:  # required copies stay in spite of the pressure; only spare copies go
        return _place_in(cluster, solve, now, full, None)
    return placement


def _full_memory(cluster: ClusterState) -> MemoryByNode:
    return {node: cluster.memory_for_modules(node) for node in cluster.usable()}


def _place_in(
    cluster: ClusterState, solve: Solve, now: float, memory_mb_by_node: MemoryByNode, fill: Fill | None
) -> Placement:
    current = _current(cluster, memory_mb_by_node)
    errors: dict[str, S2M3Error] = {}
    tasks: list[str] = []
    for task in sorted(cluster.tasks):
        try:
            build_instance(cluster, [task], now, memory_mb_by_node)
        except S2M3Error as error:
            errors[task] = error
        else:
            tasks.append(task)
    if not tasks:
        return Placement(errors=errors)
    try:
        instance = build_instance(cluster, tasks, now, memory_mb_by_node)
        placement = solve(instance, current)
    except NoCapacityError:
        some = _place_some(cluster, solve, now, memory_mb_by_node, tasks)
        return replace(some, errors={**errors, **some.errors})
    return Placement(placement, fill(instance, placement, current) if fill else {}, errors)


def _place_some(
    cluster: ClusterState, solve: Solve, now: float, memory_mb_by_node: MemoryByNode, tasks: list[str]
) -> Placement:
    """Places tasks one after another, and records an error for each that does not fit beside the earlier ones."""
    errors: dict[str, S2M3Error] = {}
    current = _current(cluster, memory_mb_by_node)
    fitting: list[str] = []
    placement: Mapping[str, list[str]] = {}
    for task in sorted(tasks, key=lambda task: (not _served(cluster, task), task)):
        try:
            placement = solve(build_instance(cluster, [*fitting, task], now, memory_mb_by_node), current)
            fitting.append(task)
        except NoCapacityError as error:
            errors[task] = error
    return Placement(placement, errors=errors)


def _served(cluster: ClusterState, task: str) -> bool:
    model = cluster.model_of(task)
    return model is not None and all(cluster.ready_nodes(module_id) for module_id in model.module_ids)


def _current(cluster: ClusterState, nodes: MemoryByNode) -> dict[str, list[str]]:
    """Returns the current assignment, module -> nodes, restricted to the given nodes."""
    placement: dict[str, list[str]] = {}
    for node in sorted(cluster.plans):
        if node in nodes:
            for spec in cluster.plans[node].modules:
                placement.setdefault(spec.id, []).append(node)
    return placement
