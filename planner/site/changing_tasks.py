"""Finds the model that answers each task now, and the change of tasks on a stand-in to the placed model. Pure."""

from collections.abc import Mapping, Sequence

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement_instance import SiteInstances
from s2m3.planner.solving.changeover import ChangeOver, Changing, Memory, change_over
from s2m3.schemas.definitions import ModelSpec

__all__ = ["answering_rank", "change_to", "changing_tasks", "why_stuck"]


def answering_rank(cluster: ClusterState, task: str, now: float) -> int | None:
    """Returns the rank that answers a task now: the best rank whose modules are all ready, a steady one if possible."""
    complete = [
        rank
        for rank, model in enumerate(cluster.ranks_of(task))
        if isinstance(model, ModelSpec) and cluster.is_ready(model)
    ]
    unsteady = cluster.steadiness.unsteady(task, now)
    return next(iter([rank for rank in complete if rank not in unsteady] or complete), None)


def changing_tasks(
    nodes: SiteInstances, options: Mapping[str, Sequence[int]], ranks: Mapping[str, int], *, breaks: bool
) -> dict[str, Changing]:
    """Returns the tasks with stand-ins that have an answer now, and are to keep one.

    Args:
        nodes: The site.
        options: Task -> ranks that some nodes can load.
        ranks: Task -> rank of the model that is placed.
        breaks: Whether tasks for which a lower rank is placed may be without an answer until it is loaded.
    """
    found = {}
    for task, placed in ranks.items():
        if not nodes.cluster.tasks[task].stand_ins:
            continue
        answers = answering_rank(nodes.cluster, task, nodes.now)
        if answers is not None and (answers >= placed or not breaks):
            further = [rank for rank in options[task] if rank > min(placed, answers) and rank != answers]
            others = tuple(nodes.model(task, rank).module_ids for rank in (answers, *further))
            found[task] = Changing(nodes.model(task, placed).module_ids, others)
    return found


def change_to(
    nodes: SiteInstances, placement: Mapping[str, Sequence[str]], tasks: Mapping[str, Changing]
) -> ChangeOver:
    """Returns how tasks change over to the models of a placement.

    Args:
        nodes: The site.
        placement: Module -> nodes.
        tasks: The tasks that a model below the placed one answers now.
    """
    if not tasks:
        return ChangeOver()
    modules = {module for one in tasks.values() for models in (one.placed, *one.others) for module in models}
    ready = {module: nodes.cluster.ready_nodes(module) for module in modules.union(placement)}
    memory = Memory(
        room_mb=nodes.memory_mb_by_node,
        size_mb={module: nodes.memory_mb(module) for module in ready},
        able={module: nodes.able(module) for module in modules},
    )
    return change_over(placement, ready, nodes.current, tasks, memory)


def why_stuck(nodes: SiteInstances, task: str, ranks: Mapping[str, int]) -> str:
    """Returns why the placed model of a task cannot be loaded."""
    better, answers = nodes.model(task, ranks[task]), answering_rank(nodes.cluster, task, nodes.now)
    meanwhile = nodes.model(task, answers).id if answers is not None else "another"
    return f"{better.id} fits only where {meanwhile} is, which answers {task} and fits nowhere else meanwhile"
