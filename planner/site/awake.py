"""Finds the sleeping nodes that would serve a task better than it is served now, by placements with them. Pure."""

from dataclasses import replace

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import Placement, Solve, place
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.messages import NodeState

__all__ = ["with_wanted_sleepers"]

#: The rank of a task that has no model placed.
_NONE = float("inf")


def with_wanted_sleepers(cluster: ClusterState, placement: Placement, solve: Solve, now: float) -> Placement:
    """Returns the placement with the sleeping nodes that tasks without a model, or on a stand-in, want awake.

    Each sleeping node is tried alone, those of greater weight first, and all together where no single one brings the
    best model. A task wants the nodes that its best model that can be had so lies on.

    Args:
        cluster: The cluster state.
        placement: The placement without the sleeping nodes.
        solve: Places modules.
        now: Monotonic seconds.
    """
    sleeping = sorted(cluster.sleeping(), key=lambda node: (-cluster.weight(node), node))
    best = {task: rank for task in sorted(cluster.tasks) if (rank := _rank(placement, task)) > 0}
    wanted: dict[str, list[str]] = {}
    for nodes in [[node] for node in sleeping] + ([sleeping] if len(sleeping) > 1 else []):
        if not any(best.values()):
            break
        awake = _as_if_awake(cluster, nodes)
        found = place(awake, solve, now)
        for task, before in best.items():
            if (rank := _rank(found, task)) < before and (used := _used(awake, found, task, int(rank), nodes)):
                best[task], wanted[task] = rank, used
    return replace(placement, asleep=wanted)


def _rank(placement: Placement, task: str) -> float:
    """Returns the rank of a task's model that is placed; 0 if no node could help a task without one."""
    if (error := placement.errors.get(task)) is not None:
        return _NONE if isinstance(error, NoCapacityError) else 0
    return placement.ranks.get(task, 0)


def _used(awake: ClusterState, found: Placement, task: str, rank: int, nodes: list[str]) -> list[str]:
    """Returns the given nodes that hold a module of a task's model."""
    model = awake.model_of(task, rank)
    holders = {node for module in model.module_ids for node in found.modules.get(module, ())} if model else set()
    return [node for node in nodes if node in holders]


def _as_if_awake(cluster: ClusterState, nodes: list[str]) -> ClusterState:
    awake = cluster.snapshot()
    for node in nodes:
        boot, protocol = awake.nodes.boot(node) or "", awake.nodes.protocol(node)
        awake.nodes.update(node, NodeState(state="ready", boot=boot, protocol=protocol))
    return awake
