"""From the last placement and a few changes to the next one, at the cost of what the changes concern. Pure."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import Fill, Placement, Solve, Solvers, joined, pinned, place_in
from s2m3.planner.site.placement_instance import MemoryByNode
from s2m3.planner.site.report_content import module_contents
from s2m3.planner.solving.layout import SLACK_MB
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.instance import Device, Instance, PlacedModule

__all__ = ["Changes", "LastPlan", "changes_since", "place_changes"]

#: module -> nodes
_Copies = Mapping[str, list[str]]


@dataclass(frozen=True, slots=True)
class LastPlan:
    """A placement, and the snapshot of the site that it was made of."""

    cluster: ClusterState
    placement: Placement
    #: the nodes that could be used then
    usable: Collection[str]


@dataclass(frozen=True, slots=True)
class Changes:
    """What changed from one plan to the next."""

    #: the modules that have to be placed, or placed again
    modules: frozenset[str] = frozenset()
    #: the tasks that are new
    tasks: frozenset[str] = frozenset()


def changes_since(last: LastPlan, cluster: ClusterState, now: float) -> Changes | None:
    """Returns what changed since the last plan; None if that may concern any module.

    A lost node concerns the modules that are placed there, a report those whose state, time or size is another one, and
    a new task its own that are not placed yet; a removed task concerns none. Any other change (of a task, definition,
    profile or setting, a node that joins or flaps, memory that is not enough any more) may concern all modules, and so
    does each change where a task has stand-ins, and all but a loss and a new task where one has no room.

    Args:
        last: The last plan.
        cluster: The site now.
        now: Monotonic seconds.
    """
    placement, usable = last.placement, frozenset(cluster.usable())
    # no node and no room helps a task whose model is unknown or invalid
    lack_room = any(isinstance(error, NoCapacityError) for error in placement.errors.values())
    gone = [node for node in last.usable if node not in usable]
    if (
        placement.held
        or placement.mapped
        or len(placement.ranks) + len(placement.errors) != len(last.cluster.tasks)
        or any(spec.stand_ins for one in (last.cluster, cluster) for spec in one.tasks.values())
        or placement.asleep
        or (lack_room and cluster.sleeping())
        or cluster.flapping.held(now)
        or len(last.usable) - len(gone) != len(usable)
        or _have_others_changed(last.cluster, cluster, usable, gone)
        or _have_definitions_changed(last.cluster, cluster)
    ):
        return None
    placement = _without_removed(placement, cluster)
    now_reported, was_reported = cluster.reported, last.cluster.reported
    reporting = {n for n in now_reported.keys() | was_reported if now_reported.get(n) is not was_reported.get(n)}
    reported = set[str]().union(*(_news(last.cluster, cluster, node) for node in reporting))
    removed = last.cluster.tasks.keys() - cluster.tasks
    if lack_room and (removed or reported or _may_serve_more(last, cluster, usable.intersection(reporting))):
        return None
    if not _fits(placement, cluster, usable.intersection(reporting)):
        return None
    lost = {
        module
        for copies in (placement.modules, placement.spare)
        for module, nodes in (copies.items() if gone else ())
        if not usable.issuperset(nodes)
    }
    new = cluster.tasks.keys() - last.cluster.tasks
    missing = {module for task in new for module in cluster.modules_of(task)} - placement.modules.keys()
    return Changes(frozenset((reported | lost) & placement.modules.keys() | missing), frozenset(new))


def _have_others_changed(
    before: ClusterState, after: ClusterState, usable: Collection[str], gone: Collection[str]
) -> bool:
    """Whether tasks of both plans, settings, profiles of nodes that may be used, or the dtypes of all these changed."""
    return (
        any(before.tasks.get(task, spec) is not spec for task, spec in after.tasks.items())
        or _most_replicas(before) != _most_replicas(after)
        or before.settings != after.settings
        or any(before.profiles.get(node) is not after.profiles[node] for node in usable)
        or not {after.profiles[node].dtype for node in usable}.issuperset(before.profiles[node].dtype for node in gone)
    )


def _have_definitions_changed(before: ClusterState, after: ClusterState) -> bool:
    """Whether tasks of both plans use another model or module: tasks that came or went may have defined it too."""
    if before.tasks.keys() == after.tasks.keys():
        return False
    old, new = before.catalogue.modules, after.catalogue.modules
    both = before.tasks.keys() & after.tasks.keys()
    return any(_differ(before.model_of(task), after.model_of(task)) for task in both) or any(
        _differ(old[module], new[module]) for task in both for module in after.modules_of(task)
    )


def _differ(one: object, other: object) -> bool:
    return one is not other and one != other


def _most_replicas(cluster: ClusterState) -> int:
    return max((spec.max_replicas for spec in cluster.tasks.values()), default=1)


def _news(before: ClusterState, after: ClusterState, node: str) -> set[str]:
    """Returns the modules of which a node says something else than before."""
    new, old = module_contents(after.reported.get(node)), module_contents(before.reported.get(node))
    return {module for module in new.keys() | old.keys() if new.get(module) != old.get(module)}


def _may_serve_more(last: LastPlan, cluster: ClusterState, reporting: Collection[str]) -> bool:
    """Whether a task without a model may be served now: its module may be tried again, or a node has more memory."""
    failed = cluster.failures.modules()
    return any(not failed.isdisjoint(cluster.modules_of(task)) for task in last.placement.errors) or any(
        _memory_mb(cluster, node) > _memory_mb(last.cluster, node) for node in reporting
    )


def _fits(placement: Placement, cluster: ClusterState, nodes: Collection[str]) -> bool:
    """Whether the copies that are placed on some nodes fit there."""
    left = {node: _memory_mb(cluster, node) for node in nodes}
    for copies in (placement.modules, placement.spare) if nodes else ():
        left = _left(cluster, left, copies)
    return all(left[node] >= -SLACK_MB for node in nodes)


def _memory_mb(cluster: ClusterState, node: str) -> float:
    """Returns a node's memory for modules, less what memory pressure takes of it, 10^6 bytes."""
    return cluster.memory_for_modules(node) - cluster.pressure(node)


def _left(cluster: ClusterState, memory_mb_by_node: MemoryByNode, copies: _Copies) -> dict[str, float]:
    """Returns the memory of each node that copies leave, 10^6 bytes; below 0 where they do not fit."""
    left = dict(memory_mb_by_node)
    for module, nodes in copies.items():
        size_mb = cluster.memory_of(cluster.catalogue.modules[module])
        for node in nodes:
            left[node] = left.get(node, 0.0) - size_mb
    return left


class _ConcernsMoreError(Exception):
    """Raised where modules have to move beyond those that were to be placed again."""


def place_changes(
    last: LastPlan, cluster: ClusterState, changes: Changes, solvers: Solvers, now: float
) -> Placement | None:
    """Returns a placement in which some modules are placed, or placed again, and all others stay where they are.

    The tasks that use these modules are placed as on a site without the others, whose copies take memory. Their other
    modules are pinned. Tasks without a model stay without; modules that no task uses any more have no place.

    Args:
        last: The last plan.
        cluster: The site now.
        changes: What changed since.
        solvers: Place modules, and second copies of these in spare memory.
        now: Monotonic seconds.

    Returns:
        The placement; None if others have to move too: there is no room, or the last plan was not carried out.
    """
    before, users = _without_removed(last.placement, cluster), cluster.users()
    concerned = {task for module in changes.modules for task in users.get(module, ())} & before.ranks.keys()
    tasks = sorted(concerned | changes.tasks)
    if not tasks:
        return before
    part = _Part(before, cluster, changes.modules, frozenset().union(*map(cluster.modules_of, tasks)))
    part_of_site = replace(cluster, tasks={task: cluster.tasks[task] for task in tasks})
    fill = solvers.fill
    beside = Solvers(
        part.pinned(solvers.solve), part.pinned(solvers.fits), None if fill is None else part.filled_beside(fill)
    )
    try:
        part.check()
        found = place_in(part_of_site, beside, now, part.memory_mb_by_node)
    except _ConcernsMoreError:
        return None
    if found.errors or found.mapped:
        return None
    return replace(
        before,
        modules={**before.modules, **found.modules},
        ranks={**before.ranks, **found.ranks},
        spare={**part.staying, **found.spare},
    )


def _without_removed(placement: Placement, cluster: ClusterState) -> Placement:
    """Returns the placement without tasks that are gone, and without modules that no task uses any more."""
    used, tasks = cluster.users(), cluster.tasks
    return replace(
        placement,
        modules={module: nodes for module, nodes in placement.modules.items() if module in used},
        spare={module: nodes for module, nodes in placement.spare.items() if module in used},
        ranks={task: rank for task, rank in placement.ranks.items() if task in tasks},
        missed={task: why for task, why in placement.missed.items() if task in tasks},
        errors={task: error for task, error in placement.errors.items() if task in tasks},
    )


class _Part:
    """The part of a site that is placed again, and what stays beside it.

    Args:
        placement: The last placement.
        cluster: The site now.
        modules: The modules to place again.
        of_tasks: All modules of the tasks that use these.
    """

    def __init__(
        self, placement: Placement, cluster: ClusterState, modules: Collection[str], of_tasks: Collection[str]
    ) -> None:
        self._cluster = cluster
        self._max_replicas = _most_replicas(cluster)
        self._pins = {module: placement.modules[module] for module in of_tasks if module not in modules}
        #: the first copies of the modules of other tasks, and the second copies of all but the modules to place
        self._others = {module: nodes for module, nodes in placement.modules.items() if module not in of_tasks}
        self.staying = {module: nodes for module, nodes in placement.spare.items() if module not in modules}
        self._full = {node: _memory_mb(cluster, node) for node in cluster.usable()}
        #: the memory that all these leave, 10^6 bytes
        self.memory_mb_by_node: MemoryByNode = _left(cluster, self._full, joined(self._others, self.staying))

    def check(self) -> None:
        """Checks that the copies that stay are in the published plans.

        Raises:
            _ConcernsMoreError: They are not.
        """
        held = {(spec.id, node) for node, plan in self._cluster.plans.items() for spec in plan.modules}
        copies = joined(self._others, self._pins, self.staying)
        if any((module, node) not in held for module, nodes in copies.items() for node in nodes):
            raise _ConcernsMoreError

    def pinned(self, solve: Solve) -> Solve:
        """Returns a function that places modules by another one, but for those that are pinned."""
        return lambda instance, current: solve(self._with_pins(instance, self._pins), current)

    def filled_beside(self, fill: Fill) -> Fill:
        """Returns a function that adds second copies by another one, beside those that stay."""

        def filled(instance: Instance, placement: _Copies, current: _Copies) -> _Copies:
            copies = joined(placement, self._others, self.staying)
            others = tuple(self._fixed(module, copies[module]) for module in sorted(copies.keys() - placement.keys()))
            devices = tuple(_with_memory(one, self._full[one.id]) for one in instance.devices)
            modules = (*self._with_pins(instance, copies).modules, *others)
            return fill(instance.model_copy(update={"devices": devices, "modules": modules}), copies, current)

        return filled

    def _with_pins(self, instance: Instance, copies: _Copies) -> Instance:
        """Returns the instance in which the pinned modules can be nowhere else than where these copies are."""
        able = {module.id: module.seconds for module in instance.modules}
        if any(node not in able[module] for module in self._pins.keys() & able for node in copies[module]):
            raise _ConcernsMoreError  # a node cannot load any more what it is to hold
        return pinned(instance, copies, self._pins).model_copy(update={"max_replicas": self._max_replicas})

    def _fixed(self, module: str, nodes: Collection[str]) -> PlacedModule:
        """Returns a module that no task of the part uses: it takes memory where it is."""
        size_mb = self._cluster.memory_of(self._cluster.catalogue.modules[module])
        return PlacedModule.model_construct(
            id=module, memory_mb=size_mb, input_kb=0.0, output_kb=0.0, seconds=dict.fromkeys(nodes, 1.0)
        )


def _with_memory(device: Device, memory_mb: float) -> Device:
    return device if device.memory_mb == memory_mb else device.model_copy(update={"memory_mb": memory_mb})
