"""Previews a task: the memory and the nodes that it would take, by a plan that is made and not published. Pure."""

from dataclasses import replace

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import Placement, Solve, place
from s2m3.planner.site.placement_instance import SiteInstances, full_memory
from s2m3.planner.site.run_times import RunTimes
from s2m3.schemas.definitions import ModelSpec
from s2m3.schemas.dtypes import share_of
from s2m3.schemas.errors import NotReadyError, S2M3Error
from s2m3.schemas.messages import ErrorBody, TaskSpec
from s2m3.schemas.preview import KnownModel, ModelList, PreviewedModule, TaskPreview

__all__ = ["known_models", "preview_task"]


def preview_task(snapshot: ClusterState, task: str, spec: TaskSpec, solve: Solve, now: float) -> TaskPreview:
    """Returns the outcome that adding a task, or changing it to `spec`, would have.

    Args:
        snapshot: A copy of the cluster state (`ClusterState.snapshot`); not changed.
        task: The task's name.
        spec: Its document.
        solve: Places modules.
        now: Monotonic seconds.

    Raises:
        NoCapacityError: It does not fit beside the other tasks, or no node can load one of its modules.
        NotReadyError: A node was lost a moment ago; the capacity is known once it is back or given up.
        S2M3Error: Its model is unknown or invalid.
    """
    without = replace(snapshot, run_times=RunTimes(), tasks=dict(snapshot.tasks))
    with_task = replace(without, tasks={**snapshot.tasks, task: spec}, _known=[])
    after = place(with_task, solve, now)
    if (error := after.errors.get(task)) is not None:
        raise error
    if task not in after.ranks:
        raise NotReadyError("a node was lost a moment ago: ask again in 10 s")
    rank = after.ranks[task]
    model = with_task.ranks_of(task)[rank]
    if isinstance(model, S2M3Error):
        raise model
    held = _held(snapshot)
    modules = [_previewed(with_task, after, held, module) for module in model.module_ids]
    before = place(without, solve, now)
    return TaskPreview(
        model=model.id,
        rank=rank,
        modules=modules,
        added_mb=round(sum(one.memory_mb * len(one.nodes) for one in modules if one.is_new), 1),
        displaced={name: why for name, why in _displaced(before, after).items() if name != task},
    )


def known_models(snapshot: ClusterState, now: float) -> ModelList:
    """Returns the models of the definitions in files, with the memory that each needs beside the modules held now."""
    cluster = replace(snapshot, run_times=RunTimes())
    held = _held(cluster)
    with cluster.indexed():
        nodes = SiteInstances(cluster, now, full_memory(cluster))
        return ModelList(models=[_known(nodes, held, model) for _, model in sorted(cluster.in_files.models.items())])


def _known(nodes: SiteInstances, held: frozenset[str], model: ModelSpec) -> KnownModel:
    sizes = {module: nodes.memory_mb(module) for module in model.module_ids}
    return KnownModel(
        id=model.id,
        description=model.description,
        inputs=dict(model.inputs),
        answer=model.answer,
        memory_mb=round(sum(sizes.values()), 1),
        added_mb=round(sum(mb for module, mb in sizes.items() if module not in held), 1),
        error=_why_not(nodes, model),
    )


def _why_not(nodes: SiteInstances, model: ModelSpec) -> ErrorBody | None:
    try:
        for module in model.module_ids:
            nodes.check_loadable(module)
    except S2M3Error as error:
        return ErrorBody(**error.as_dict())
    return None


def _held(cluster: ClusterState) -> frozenset[str]:
    """Returns the modules that are planned on any node now."""
    return frozenset(spec.id for plan in cluster.plans.values() for spec in plan.modules)


def _previewed(cluster: ClusterState, after: Placement, held: frozenset[str], module: str) -> PreviewedModule:
    spec = cluster.catalogue.modules[module]
    nodes = list(after.modules.get(module, ()))
    # a module's memory is counted as of float32 weights, whatever the node's dtype (ClusterState.memory_for_modules)
    share = share_of(cluster.profiles[nodes[0]].dtype) if nodes else 1.0
    mapped = module in after.mapped
    return PreviewedModule(
        id=module,
        role=spec.role,
        memory_mb=round(cluster.memory_of(spec, mapped=mapped) * share, 1),
        nodes=nodes,
        is_new=module not in held,
        mapped=mapped,
    )


def _displaced(before: Placement, after: Placement) -> dict[str, str]:
    found = {task: str(error) for task, error in after.errors.items() if task not in before.errors}
    for task, rank in after.ranks.items():
        if rank > before.ranks.get(task, rank):
            found[task] = str(after.missed.get(task, {}).get(before.ranks[task], "its model does not fit any more"))
    return found
