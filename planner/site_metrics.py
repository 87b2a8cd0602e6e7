"""The planner's Prometheus gauges and health document: the number of nodes and tasks in each state."""

from collections.abc import Iterable

import structlog

from s2m3.broker import metrics
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import Decision
from s2m3.planner.site.published_documents import Documents
from s2m3.schemas.messages import Event, PlannerHealth

__all__ = ["count_changes", "count_site", "health_of"]

_log = structlog.get_logger(__name__)


def count_site(cluster: ClusterState, decision: Decision) -> None:
    """Sets the gauges of nodes and tasks by state."""
    nodes = cluster.nodes
    draining = nodes.present - nodes.ready
    for state, found in (("ready", nodes.ready), ("draining", draining), ("lost", nodes.lost)):
        metrics.NODES.labels(state).set(len(found))
    docs = decision.routes.values()
    refused = sum(1 for doc in docs if doc.error is not None)
    served = [doc for doc in docs if doc.error is None and all(step.replicas for step in doc.steps.values())]
    metrics.TASKS_ON_STAND_IN.set(sum(1 for doc in served if doc.rank > 0))
    ready = len(served)
    for state, count in (("ready", ready), ("refused", refused), ("waiting", len(docs) - ready - refused)):
        metrics.TASKS.labels(state).set(count)


def count_changes(changed: Iterable[str], documents: Documents) -> list[Event]:
    """Counts and logs the nodes whose plan changed; returns the event of each."""
    events = []
    for node in changed:
        metrics.PLAN_CHANGES.labels(node).inc()
        plan = documents.plan(node)
        held = " ".join(spec.id for spec in plan.modules) if plan is not None else ""
        _log.info("plan_changed", node=node, revision=documents.revision, modules=held)
        events.append(Event(event="plan_changed", node=node, detail=held))
    return events


def health_of(cluster: ClusterState, documents: Documents) -> PlannerHealth:
    """Returns the document for `planner/health`."""
    return PlannerHealth(
        epoch=documents.epoch,
        revision=documents.revision,
        nodes=len(cluster.nodes.present),
        tasks=len(cluster.tasks),
        plans=documents.plans_changed,
    )
