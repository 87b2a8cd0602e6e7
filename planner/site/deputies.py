"""Deputies of gateways, at the other brokers of a cluster: they answer plain requests while it is cut in two. Pure."""

from collections import Counter
from collections.abc import Mapping

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.schemas.definitions import ModelSpec

__all__ = ["deputies"]

#: Most deputies of one task: each of them hears all of its plain requests.
_MOST = 2


def deputies(cluster: ClusterState, gateways: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Returns node -> task -> gateway, of the deputies of each task: one at each broker that is not the gateway's.

    A deputy holds a ready copy of the head of one of the task's models: nobody else at its broker could answer. Of
    several the current deputy stays, else the node with the fewest deputies is taken. A current one stays at the
    gateway's broker too: the gateway may have gone there because its own broker died, and with that some answers.

    Args:
        cluster: The cluster state.
        gateways: Task -> its gateway.
    """
    found: dict[str, dict[str, str]] = {}
    brokers = {node: profile.broker for node, profile in cluster.profiles.items() if profile.broker}
    different = {broker for node, broker in brokers.items() if node in cluster.nodes.present}
    if len(different) < 2 and not any(plan.deputies for plan in cluster.plans.values()):  # noqa: PLR2004  # one broker
        return found
    usable = {node for node in cluster.usable() if cluster.profiles[node].gateway}
    taken: Counter[str] = Counter()
    for task, gateway in sorted(gateways.items()):
        if gateway not in brokers:  # of a release that does not claim what it takes
            continue
        best: dict[str, tuple[bool, bool, int, str]] = {}
        for node in _answering(cluster, task) & usable & brokers.keys() - {gateway}:
            is_near, is_current = brokers[node] == brokers[gateway], _is_deputy(cluster, node, task)
            if not is_near or is_current:
                rank = is_near, not is_current, taken[node], node
                best[brokers[node]] = min(best.get(brokers[node], rank), rank)
        for *_, node in sorted(best.values())[:_MOST]:
            taken[node] += 1
            found.setdefault(node, {})[task] = gateway
    return found


def _answering(cluster: ClusterState, task: str) -> set[str]:
    """Returns the nodes with a ready copy of the head of one of a task's models."""
    models = [model for model in cluster.ranks_of(task) if isinstance(model, ModelSpec)]
    return {node for model in models for node in cluster.ready_nodes(model.steps[model.head].module)}


def _is_deputy(cluster: ClusterState, node: str, task: str) -> bool:
    return node in cluster.plans and task in cluster.plans[node].deputies
