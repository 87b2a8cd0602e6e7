"""Tells the planner of requests that want a sleeping node, seldom enough for any rate of requests."""

import time

import structlog

from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.sleep import Demand

__all__ = ["DemandPublisher"]

_log = structlog.get_logger(__name__)
#: Least time between two notices of demand for one task.
_DEMAND_S = 5.0


class DemandPublisher:
    """Publishes a requester's demand for tasks.

    Args:
        link: The connection.
    """

    def __init__(self, link: Link) -> None:
        self._link = link
        #: task -> time of the last notice, monotonic seconds
        self._published: dict[str, float] = {}

    def publish(self, task: str) -> None:
        """Publishes the demand for a task at QoS 0, as an older access list drops it; at most one in five seconds."""
        now = time.monotonic()
        if now - self._published.get(task, float("-inf")) >= _DEMAND_S:
            self._published[task] = now
            try:
                self._link.publish(Outgoing(topics.DEMAND.at(self._link.root, task=task), Demand().encode(), qos=0))
            except S2M3Error as error:  # the next request publishes it
                _log.debug("demand_not_published", task=task, error=str(error))
