"""From cluster state to a placement: builds the instance, solves it, and leaves out tasks that do not fit. Pure."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement_instance import MemoryByNode, SiteInstances, full_memory
from s2m3.schemas.errors import NoCapacityError, S2M3Error
from s2m3.schemas.instance import Instance

__all__ = ["Fill", "Placement", "Solve", "place"]

#: (instance, current placement) -> placement, module -> devices. Raises NoCapacityError.
Solve = Callable[[Instance, Mapping[str, list[str]]], Mapping[str, list[str]]]
#: (instance, new placement, current placement) -> further copies, module -> devices
Fill = Callable[[Instance, Mapping[str, list[str]], Mapping[str, list[str]]], Mapping[str, list[str]]]


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
    full = full_memory(cluster)
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


def _place_in(
    cluster: ClusterState, solve: Solve, now: float, memory_mb_by_node: MemoryByNode, fill: Fill | None
) -> Placement:
    current = _current(cluster, memory_mb_by_node)
    instances = SiteInstances(cluster, now, memory_mb_by_node)
    errors: dict[str, S2M3Error] = {}
    tasks: list[str] = []
    for task in sorted(cluster.tasks):
        try:
            instances.check(task)
        except S2M3Error as error:
            errors[task] = error
        else:
            tasks.append(task)
    if not tasks:
        return Placement(errors=errors)

    def attempt(some: list[str]) -> tuple[Instance, Mapping[str, list[str]]]:
        instance = instances.of(some)
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
