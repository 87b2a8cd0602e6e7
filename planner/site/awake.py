"""Which sleeping nodes would serve a task better than it is served now: placements as if they were awake. Pure."""

from dataclasses import replace

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.placement import Placement, Solve, place
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.messages import NodeState

__all__ = ["with_wanted_sleepers"]


def with_wanted_sleepers(cluster: ClusterState, placement: Placement, solve: Solve, now: float) -> Placement:
    """Returns the placement with the sleeping nodes that tasks want awake: those without a place, or on a stand-in.

    Each sleeping node is tried alone, those of greater weight first; what no single one serves better gets all those
    that its modules lie on when all are awake.

    Args:
        cluster: The cluster state.
        placement: The placement without the sleeping nodes.
        solve: Places modules.
        now: Monotonic seconds.
    """
    sleeping = sorted(cluster.sleeping(), key=lambda node: (-cluster.weight(node), node))
    missing = {task for task, error in placement.errors.items() if isinstance(error, NoCapacityError)}
    missing |= {task for task, rank in placement.ranks.items() if rank > 0}
    wanted: dict[str, list[str]] = {}
    for nodes in [[node] for node in sleeping] + ([sleeping] if len(sleeping) > 1 else []):
        if not missing:
            break
        awake = _as_if_awake(cluster, nodes)
        found = place(awake, solve, now)
        for task in sorted(missing & found.ranks.keys()):
            rank = found.ranks[task]
            model = awake.model_of(task, rank) if rank < placement.ranks.get(task, rank + 1) else None
            holders = (
                {node for module in model.module_ids for node in found.modules.get(module, ())} if model else set()
            )
            if used := [node for node in nodes if node in holders]:
                wanted[task] = used
                missing.discard(task)
    return replace(placement, asleep=wanted)


def _as_if_awake(cluster: ClusterState, nodes: list[str]) -> ClusterState:
    awake = cluster.snapshot()
    for node in nodes:
        boot, protocol = awake.nodes.boot(node) or "", awake.nodes.protocol(node)
        awake.nodes.update(node, NodeState(state="ready", boot=boot, protocol=protocol))
    return awake
