"""From cluster state to a placement: the best models that fit, stand-ins, and second copies in spare memory. Pure."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from s2m3.planner.site.changing_tasks import change_to, changing_tasks, why_stuck
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.mapped_weights import may_be_mapped, numbers_to_try
from s2m3.planner.site.model_choice import ModelChoice, Solve
from s2m3.planner.site.placement_instance import MemoryByNode, SiteInstances, full_memory
from s2m3.planner.solving.changeover import ChangeOver, Changing
from s2m3.planner.solving.fitting import Fitting
from s2m3.planner.solving.stand_ins import RankedTask, stand_ins
from s2m3.schemas.errors import NoCapacityError, S2M3Error
from s2m3.schemas.instance import Instance

__all__ = ["Fill", "Placement", "Solve", "Solvers", "joined", "pinned", "place", "place_in"]

#: (instance, new placement, current placement) -> further copies, module -> devices
Fill = Callable[[Instance, Mapping[str, list[str]], Mapping[str, list[str]]], Mapping[str, list[str]]]


@dataclass(frozen=True, slots=True)
class Placement:
    """The desired nodes of every module, and the error of each task that cannot be served."""

    modules: Mapping[str, list[str]] = field(default_factory=dict)
    #: task -> rank of the model that is placed; a task that is not in it has none
    ranks: Mapping[str, int] = field(default_factory=dict)
    #: task -> rank of a better model -> why that is not placed
    missed: Mapping[str, Mapping[int, S2M3Error]] = field(default_factory=dict)
    #: module -> nodes that hold copies which answer tasks while a better model is loaded
    transit: Mapping[str, list[str]] = field(default_factory=dict)
    #: the tasks whose model is unloaded to free memory, once another model of theirs is ready
    yielding: Collection[str] = frozenset()
    #: whether tasks for which a lower rank is placed may be without an answer until that rank is loaded
    breaks: bool = False
    #: copies of stand-ins in spare memory, module -> nodes
    stand_ins: Mapping[str, list[str]] = field(default_factory=dict)
    #: further copies in spare memory, module -> nodes
    spare: Mapping[str, list[str]] = field(default_factory=dict)
    errors: Mapping[str, S2M3Error] = field(default_factory=dict)
    #: present nodes that are held down because they flap, node -> reason
    held: Mapping[str, str] = field(default_factory=dict)
    #: task -> sleeping nodes that would serve it better than it is served now
    asleep: Mapping[str, list[str]] = field(default_factory=dict)
    #: the modules that are counted with mapped weights
    mapped: Collection[str] = frozenset()

    @property
    def shortfall(self) -> tuple[int, int]:
        """The shortfall of the placement: the number of tasks without a model, and the sum of all ranks."""
        return len(self.errors), sum(self.ranks.values())


def joined(*placements: Mapping[str, Collection[str]]) -> dict[str, list[str]]:
    """Returns the copies of several placements together, module -> nodes."""
    found: dict[str, list[str]] = {}
    for placement in placements:
        for module, nodes in placement.items():
            held = found.setdefault(module, [])
            held += [node for node in nodes if node not in held]
    return found


def place(
    cluster: ClusterState, solve: Solve, now: float, fill: Fill | None = None, fits: Solve | None = None
) -> Placement:
    """Returns a placement of the best model of each task if they fit, else of those that cost least to do without.

    `choose_ranks` defines the cost: a task without any model costs most, then each rank below the best. Of equal
    choices, tasks that are placed now come first, then the order of names.

    Args:
        cluster: The cluster state.
        solve: Places modules.
        now: Monotonic seconds.
        fill: Adds further copies in spare memory; None adds neither stand-ins nor second copies.
        fits: Places modules in less time than `solve`, to find out which models fit; None takes `solve`.

    Returns:
        The placement. In the moments after a loss, tasks that do not fit have no error: the node may return. Nor has a
        new task whose checkpoint no node has offered yet.
    """
    with cluster.indexed():
        placement = _place_on_the_steady(cluster, Solvers(solve, fits or solve, fill), now)
    hoped = {t for t, e in placement.errors.items() if isinstance(e, NoCapacityError) and cluster.hopes(t, now)}
    return replace(placement, errors={t: e for t, e in placement.errors.items() if t not in hoped})


@dataclass(frozen=True, slots=True)
class Solvers:
    """How modules are placed: well, fast, and in spare memory."""

    solve: Solve
    fits: Solve
    fill: Fill | None


def _place_on_the_steady(cluster: ClusterState, solvers: Solvers, now: float) -> Placement:
    """Places on nodes that are not held down, if all tasks fit there, else on all nodes.

    Memory pressure reduces a node's memory unless tasks would not fit; then only further copies are given up.
    """
    held = cluster.flapping.held(now)
    full = full_memory(cluster)
    pressed = {node: max(0.0, memory_mb_by_node - cluster.pressure(node)) for node, memory_mb_by_node in full.items()}
    steady = {node: memory_mb_by_node for node, memory_mb_by_node in pressed.items() if node not in held}
    if len(steady) < len(full):
        with suppress(NoCapacityError):  # no way from what answers now to a better model, without the nodes held down
            placement = replace(place_in(cluster, solvers, now, steady), held=held)
            if not placement.errors:
                return placement
    placement = place_in(cluster, solvers, now, pressed)
    if pressed != full and any(placement.shortfall):  # required copies stay in spite of the pressure; others go
        unpressed = place_in(cluster, replace(solvers, fill=None), now, full)
        return unpressed if unpressed.shortfall < placement.shortfall else placement
    return placement


def place_in(cluster: ClusterState, solvers: Solvers, now: float, memory_mb_by_node: MemoryByNode) -> Placement:
    """Places with all weights in memory; if not all tasks fit so, with as few mapped from the disk as let more fit."""
    best = last = _place_mapping(cluster, solvers, now, memory_mb_by_node, frozenset())
    modules = may_be_mapped(cluster, memory_mb_by_node) if any(best.shortfall) else []
    for number in numbers_to_try(modules):
        last = _place_mapping(cluster, solvers, now, memory_mb_by_node, frozenset(modules[:number]))
        best = last if last.shortfall < best.shortfall else best
        if not any(best.shortfall):
            return best
    return replace(best, errors={task: last.errors.get(task, error) for task, error in best.errors.items()})


def _place_mapping(
    cluster: ClusterState,
    solvers: Solvers,
    now: float,
    memory_mb_by_node: MemoryByNode,
    mapped: Collection[str],
) -> Placement:
    nodes = SiteInstances(cluster, now, memory_mb_by_node, mapped)
    options, missed = nodes.loadable()
    errors = {task: missed[task][0] for task in sorted(cluster.tasks) if task not in options}
    if not options:
        return Placement(errors=errors)
    at_most = max(map(len, options.values()))
    modules = frozenset[str]().union(
        *(
            nodes.modules_of({task: ranks[at] for task, ranks in options.items() if at < len(ranks)})
            for at in range(at_most)
        )
    )
    fitting = Fitting(nodes.of_modules(sorted(modules)), nodes.current)
    found = _place_best(nodes, options, missed, solvers, fitting, breaks=False)
    if found.left_out and any(spec.stand_ins for spec in cluster.tasks.values()):
        # that a task gets an answer at all is worth that others are without one while a model below theirs is loaded
        broken = _place_best(nodes, options, missed, solvers, fitting, breaks=True)
        found = broken if len(broken.left_out) < len(found.left_out) else found
    errors |= found.left_out
    if found.instance is None:
        return Placement(errors=errors)
    change = found.change
    placement = Placement(
        found.modules,
        found.ranks,
        found.missed,
        change.transit,
        change.yielding,
        found.breaks,
        errors=errors,
        mapped=mapped,
    )
    if solvers.fill is None:
        return placement
    warm = _stand_ins(nodes, options, found.ranks, joined(found.modules, change.transit))
    if found.left_out:
        return replace(placement, stand_ins=warm)
    further = joined(change.transit, warm)
    size_mb = {module: nodes.memory_mb(module) for module in further}
    # no second copies of mapped modules: spare memory is better used for their pages
    rest, held = _beside(pinned(found.instance, found.modules, mapped), found.modules, further, size_mb)
    return replace(placement, stand_ins=warm, spare=solvers.fill(rest, held, nodes.current))


@dataclass(frozen=True, slots=True)
class _Placed:
    """The models that are placed, and how tasks change over to them."""

    instance: Instance | None = None
    modules: Mapping[str, list[str]] = field(default_factory=dict)
    change: ChangeOver = field(default_factory=ChangeOver)
    ranks: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, NoCapacityError] = field(default_factory=dict)
    missed: Mapping[str, Mapping[int, S2M3Error]] = field(default_factory=dict)
    breaks: bool = False


def pinned(instance: Instance, placement: Mapping[str, Sequence[str]], modules: Collection[str]) -> Instance:
    """Returns an instance in which some modules can be nowhere else than where they are placed."""
    pinned_modules = [
        one.model_copy(update={"seconds": {node: one.seconds[node] for node in placement[one.id]}})
        if one.id in modules
        else one
        for one in instance.modules
    ]
    return instance.model_copy(update={"modules": tuple(pinned_modules)})


def _place_best(
    nodes: SiteInstances,
    options: Mapping[str, Sequence[int]],
    missed: Mapping[str, Mapping[int, S2M3Error]],
    solvers: Solvers,
    fitting: Fitting,
    *,
    breaks: bool,
) -> _Placed:
    """Places the best model of each task if they fit, else those that cost least to do without."""
    why_missed = {task: dict(why) for task, why in missed.items()}

    def attempt(ranks: Mapping[str, int], solve: Solve) -> _Placed:
        return _attempt(nodes, options, ranks, solve, breaks=breaks)

    best = {task: found[0] for task, found in options.items()}
    placed = _first(attempt, best, [solvers.solve]) if fitting.why_not(nodes.modules_of(best)) is None else None
    if placed is None:
        choice = ModelChoice(nodes, options, solvers.fits, fitting, lambda some, solve: attempt(some, solve).modules)
        ranks, left_out = choice.made(why_missed)
        if not ranks:
            return _Placed(left_out=left_out)
        # the solvers may find no way to a better place, or no room for what just fits
        placed = _first(attempt, ranks, [solvers.solve, solvers.fits]) or attempt(ranks, choice.packing)
        placed = replace(placed, left_out=left_out)
    return replace(placed, missed=why_missed, breaks=breaks)


def _first(
    attempt: Callable[[Mapping[str, int], Solve], _Placed], ranks: Mapping[str, int], solves: Sequence[Solve]
) -> _Placed | None:
    """Returns what the first function places that can place the models of these ranks; None if none can."""
    for solve in solves:
        with suppress(NoCapacityError):
            return attempt(ranks, solve)
    return None


def _attempt(
    nodes: SiteInstances, options: Mapping[str, Sequence[int]], ranks: Mapping[str, int], solve: Solve, *, breaks: bool
) -> _Placed:
    """Places the models of these ranks so that they can be loaded while all tasks keep an answer.

    Raises:
        NoCapacityError: They do not fit, or only in the memory of models that answer meanwhile and fit nowhere else.
    """
    instance = nodes.of_units({task: (task, rank) for task, rank in ranks.items()})
    modules = solve(instance, nodes.current)
    changing = changing_tasks(nodes, options, ranks, breaks=breaks)
    change = change_to(nodes, modules, changing)
    if change.stuck:
        why = NoCapacityError(why_stuck(nodes, change.stuck[0], ranks))
        try:
            modules = solve(_beside_answers(nodes, instance, changing), nodes.current)
        except NoCapacityError:
            raise why from None
        change = change_to(nodes, modules, changing)
        if change.stuck:
            raise why
    return _Placed(instance, modules, change, ranks)


def _beside_answers(nodes: SiteInstances, instance: Instance, changing: Mapping[str, Changing]) -> Instance:
    """Returns an instance without the memory of the models that answer until better ones do."""
    known = {module.id for module in instance.modules}
    answering = {module for one in changing.values() for module in one.others[0] if module not in known}
    usable = nodes.memory_mb_by_node
    held = {module: [node for node in nodes.cluster.ready_nodes(module) if node in usable] for module in answering}
    return _beside(instance, {}, held, {module: nodes.memory_mb(module) for module in answering})[0]


def _stand_ins(
    nodes: SiteInstances,
    options: Mapping[str, Sequence[int]],
    ranks: Mapping[str, int],
    placement: Mapping[str, list[str]],
) -> dict[str, list[str]]:
    """Returns the copies of stand-ins, module -> nodes."""
    models = {task: [rank for rank in options[task] if rank >= placed] for task, placed in ranks.items()}
    tasks = {
        task: RankedTask(ranks[task], {rank: nodes.model(task, rank).module_ids for rank in known})
        for task, known in models.items()
        if len(known) > 1
    }
    if not tasks:
        return {}
    units = {task: (task, rank) for task, rank in ranks.items()}
    lower = {f"{task}@{rank}": (task, rank) for task, one in tasks.items() for rank in one.lower}  # no id has an @
    instance = nodes.of_units({**units, **lower})
    known = {module.id for module in instance.modules}
    held = {module: where for module, where in placement.items() if module in known}
    return stand_ins(instance, held, tasks, current=nodes.current).copies


def _beside(
    instance: Instance,
    placement: Mapping[str, list[str]],
    warm: Mapping[str, list[str]],
    size_mb: Mapping[str, float],
) -> tuple[Instance, Mapping[str, list[str]]]:
    """Returns an instance and its placement with the copies of stand-ins: as copies, or as memory that is taken."""
    known = {module.id for module in instance.modules}
    held = {module: [*devices, *warm.get(module, ())] for module, devices in placement.items()}
    taken = {device.id: 0.0 for device in instance.devices}
    for module in warm.keys() - known:
        for device in warm[module]:
            taken[device] += size_mb[module]
    devices = tuple(
        device.model_copy(update={"memory_mb": max(0.0, device.memory_mb - taken[device.id])})
        for device in instance.devices
    )
    return instance.model_copy(update={"devices": devices}), held
