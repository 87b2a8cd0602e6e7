"""Finds documents of a site that other documents refer to and that the broker never delivered. Pure: no I/O."""

from collections.abc import Iterable, Mapping

from s2m3.broker.node_states import NodeStates
from s2m3.schemas import messages as m

__all__ = ["missing_documents"]


def missing_documents(
    planner: m.PlannerState | None,
    nodes: NodeStates,
    *,
    profiles: Mapping[str, m.NodeProfile],
    tasks: Iterable[str],
    plans: Mapping[str, m.Plan],
    routes: Mapping[str, m.RouteDoc],
    others: Iterable[str] = (),
) -> frozenset[str]:
    """Returns the topics, below the root, of documents that others refer to, or that every site has.

    Args:
        planner: The planner's state; None if it is missing.
        nodes: The nodes' states.
        profiles: Node -> profile.
        tasks: Names of the desired tasks.
        plans: Node -> plan.
        routes: Task -> route document.
        others: Nodes that have other documents.
    """
    found = set() if planner is not None else {"planner/state"}
    named = {node for doc in routes.values() for node in doc.nodes}
    named |= {node for node, plan in plans.items() if plan.modules or plan.gateways}
    found |= {f"node/{node}/state" for node in named.union(profiles, others) if nodes.state(node) is None}
    found |= {f"node/{node}/profile" for node in nodes.present if node not in profiles}
    found |= {f"task/{task}" for task in routes.keys() - set(tasks)}
    if planner is not None and planner.state == "online":
        found |= {f"route/{task}" for task in set(tasks) - routes.keys()}
    return frozenset(found)
