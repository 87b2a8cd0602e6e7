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
    #: task -> sleeping nodes that would serve it better than it is served now
    asleep: Mapping[str, list[str]] = field(default_factory=dict)


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
    return _instance(cluster, tasks, memory_mb_by_node, _Loaders(cluster, list(memory_mb_by_node), now))


class _Loaders:
    """The nodes that can load each module now; found once for all tasks that use the module."""

    def __init__(self, cluster: ClusterState, nodes: list[str], now: float) -> None:
        self.now = now
        self._cluster, self._nodes = cluster, nodes
        self._of: dict[str, list[str]] = {}

    def of(self, module_id: str) -> list[str]:
        """Returns the nodes that can load a module.

        Raises:
            NoCapacityError: There is none.
        """
        cluster, spec = self._cluster, self._cluster.catalogue.modules[module_id]
        if module_id not in self._of:
            self._of[module_id] = [node for node in self._nodes if cluster.can_load(spec, node, self.now)]
        if not self._of[module_id]:
            failed = cluster.failure_of(module_id)
            nobody = "" if cluster.has_source(spec) else ", which no node has: an agent where it is sends it to others"
            needs = f"the class {spec.class_} and the source {spec.source}{nobody}"
            why = f"; it failed with {failed.code}: {failed.detail}" if failed else f"; it needs {needs}"
            raise NoCapacityError(f"no node that is ready can load {module_id}{why}")
        return self._of[module_id]


def _instance(cluster: ClusterState, tasks: list[str], memory_mb_by_node: MemoryByNode, loaders: _Loaders) -> Instance:
    models = {task: _model(cluster, task) for task in tasks}
    users: dict[str, list[ModelSpec]] = {}
    for model in models.values():
        for module_id in model.module_ids:
            users.setdefault(module_id, []).append(model)
    return parse_instance(
        {
            "devices": [
                {
                    "id": node,
                    "memory_mb": memory_mb,
                    "latency_ms": cluster.profiles[node].latency_ms,
                    "mbps": cluster.profiles[node].mbps,
                    "prefer": cluster.weight(node),
                }
                for node, memory_mb in memory_mb_by_node.items()
            ],
            "modules": [_module(cluster, module_id, used_by, loaders) for module_id, used_by in users.items()],
            "tasks": [
                _task(task, models[task], cluster.rates.rate(task, loaders.now))
                | {"prefer": [node for node in cluster.tasks[task].prefer if node in memory_mb_by_node]}
                for task in tasks
            ],
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


def _module(cluster: ClusterState, module_id: str, users: list[ModelSpec], loaders: _Loaders) -> dict[str, Any]:
    spec = cluster.catalogue.modules[module_id]
    return {
        "id": module_id,
        "memory_mb": cluster.memory_of(spec),
        "input_kb": spec.input_kb,
        "output_kb": max(model.sent_kb(spec) for model in users),
        "seconds": {node: cluster.seconds(spec, node) for node in loaders.of(module_id)},
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
    with cluster.indexed():
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
    loaders = _Loaders(cluster, list(memory_mb_by_node), now)
    errors: dict[str, S2M3Error] = {}
    tasks: list[str] = []
    for task in sorted(cluster.tasks):
        try:
            for module_id in _model(cluster, task).module_ids:
                loaders.of(module_id)
        except S2M3Error as error:
            errors[task] = error
        else:
            tasks.append(task)
    if not tasks:
        return Placement(errors=errors)

    def attempt(some: list[str]) -> tuple[Instance, Mapping[str, list[str]]]:
        instance = _instance(cluster, some, memory_mb_by_node, loaders)
        return instance, solve(instance, current)

    try:
        instance, placement = attempt(tasks)
    except NoCapacityError:
        found = _place_some(sorted(tasks, key=lambda task: (not _served(cluster, task), task)), attempt)
        return replace(found, errors={**errors, **found.errors})
    return Placement(placement, fill(instance, placement, current) if fill else {}, errors)


def _place_some(
    tasks: list[str], attempt: Callable[[list[str]], tuple[Instance, Mapping[str, list[str]]]]
) -> Placement:
    """Places as many tasks as fit, the first ones before the later ones, and records an error for each other.

    Tasks are added in halves, so that few attempts are needed where few tasks do not fit.
    """
    errors: dict[str, S2M3Error] = {}
    fitting: list[str] = []
    placement: Mapping[str, list[str]] = {}
    blocks = _halves(tasks)
    while blocks:
        block = blocks.pop()
        try:
            _, placement = attempt([*fitting, *block])
            fitting += block
        except NoCapacityError as error:
            if len(block) == 1:
                errors[block[0]] = error
            else:
                blocks += _halves(block)
    return Placement(placement, errors=errors)


def _halves(tasks: list[str]) -> list[list[str]]:
    """Returns the two halves of some tasks, the first half last; a single task as it is."""
    middle = len(tasks) // 2
    return [half for half in (tasks[middle:], tasks[:middle]) if half]


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
