"""Which modules may have their weights mapped from the disk for want of memory, and what plans say of it. Pure."""

from collections.abc import Collection, Iterable, Iterator, Sequence

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas.definitions import ModelSpec, ModuleSpec

__all__ = ["asked_modules", "may_be_mapped", "numbers_to_try", "with_mapping"]


def asked_modules(cluster: ClusterState) -> frozenset[str]:
    """Returns the modules whose weights may be mapped: those of a task that asks for it, or whose definition does."""
    asking = [task for task, spec in cluster.tasks.items() if spec.map_weights]
    models = [model for task in asking for model in cluster.ranks_of(task) if isinstance(model, ModelSpec)]
    by_task = {module for model in models for module in model.module_ids}
    defined = {name for name, spec in cluster.catalogue.modules.items() if spec.map_weights in ("if-needed", "always")}
    return frozenset(by_task | defined)


def may_be_mapped(cluster: ClusterState, nodes: Collection[str]) -> list[str]:
    """Returns the modules that would take less memory mapped, those that take most first.

    A module that a node holds in its memory stays there: it is counted as it is.

    Args:
        cluster: The cluster state.
        nodes: The nodes to use.
    """
    found = []
    for module in asked_modules(cluster):
        spec = cluster.catalogue.modules[module]
        read_mb = cluster.memory_of(spec)
        if cluster.memory_of(spec, mapped=True) < read_mb and not _is_in_memory(cluster, module, nodes):
            found.append((-read_mb, module))
    return [module for _, module in sorted(found)]


def _is_in_memory(cluster: ClusterState, module: str, nodes: Iterable[str]) -> bool:
    reports = (cluster.holds(node, module) for node in nodes)
    return any(report is not None and report.state == "ready" and not report.mapped for report in reports)


def numbers_to_try(modules: Sequence[str]) -> Iterator[int]:
    """Yields of how many of the modules a placement with mapped weights is tried: as few as do, in few attempts."""
    number = 1
    while number < len(modules):
        yield number
        number *= 2
    if modules:
        yield len(modules)


def with_mapping(
    cluster: ClusterState, node: str, specs: Sequence[ModuleSpec], mapped: Collection[str], asked: Collection[str]
) -> tuple[ModuleSpec, ...]:
    """Returns the modules of a node's plan, each with whether its weights are to be mapped there.

    Where all of the node's modules fit into its memory, none is; the node maps the weights of one that may be so if the
    node finds that it lacks memory nevertheless.

    Args:
        cluster: The cluster state.
        node: The node.
        specs: Its modules.
        mapped: The modules that the placement counts as mapped.
        asked: The modules that may be mapped.
    """
    if not any(spec.id in asked for spec in specs) or node not in cluster.profiles:
        return tuple(specs)
    fits = sum(map(cluster.memory_of, specs)) <= cluster.memory_for_modules(node)
    said = {spec.id: "always" if spec.id in mapped and not fits else "if-needed" for spec in specs if spec.id in asked}
    return tuple(spec.model_copy(update={"map_weights": said.get(spec.id)}) for spec in specs)
