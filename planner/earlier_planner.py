"""Takes over the plans and routes that an earlier planner has left: ours replace or clear each of them."""

from collections.abc import Callable

from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.missing_documents import MissingDocuments
from s2m3.planner.site.published_documents import Documents
from s2m3.schemas import messages as m
from s2m3.schemas import topics

__all__ = ["EarlierPlanner"]


class EarlierPlanner:
    """Listens to plans and routes. All methods run in the loop's thread.

    A document of an earlier planner may arrive after the start: that planner was frozen or disconnected.

    Args:
        link: The planner's connection.
        cluster: The cluster state; it gets the plans that arrive before the first own plan.
        documents: Our own documents.
        missing: Notes the nodes that such documents name.
        is_rebuilt: Whether the first own plan is made.
        on_change: Called when a document has to be replaced.
    """

    def __init__(
        self,
        link: Link,
        cluster: ClusterState,
        documents: Documents,
        missing: MissingDocuments,
        *,
        is_rebuilt: Callable[[], bool],
        on_change: Callable[[], object],
    ) -> None:
        self._link, self._cluster = link, cluster
        self._documents, self._missing = documents, missing
        self._is_rebuilt, self._on_change = is_rebuilt, on_change

    def start(self) -> None:
        """Subscribes to all plans and routes."""
        listen(self._link, topics.PLAN, self._on_plan)
        listen(self._link, topics.ROUTE, self._on_route)

    def _on_plan(self, node: str, plan: m.Plan | None) -> None:
        if plan is not None and plan.epoch < self._documents.epoch:
            if not self._is_rebuilt():
                self._cluster.plans[node] = plan
            self._documents.inherit([node], [])
            self._missing.on_plan(node)
            self._on_change()

    def _on_route(self, task: str, doc: m.RouteDoc | None) -> None:
        if doc is not None and doc.epoch < self._documents.epoch:
            self._documents.inherit([], [task])
            self._missing.on_route(task, doc)
            self._on_change()
