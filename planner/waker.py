"""Wakes sleeping nodes for requests that need them, by orders to other nodes to send magic packets."""

import time
from collections.abc import Callable, Mapping

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.waking import Waking, helpers
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.settings import PlannerSettings
from s2m3.schemas.sleep import Demand, WakeOrder

__all__ = ["Waker"]

_log = structlog.get_logger(__name__)
_LOOK_S = 0.5
#: Requests of this time count when a plan says that a sleeping node is wanted.
_RECENT_S = 30.0


class Waker:
    """Takes requests (`demand/<task>`) and wake orders of people, and tells nodes to send magic packets.

    All methods run in the loop's thread.

    Args:
        settings: The interval of magic packets.
        link: The planner's connection.
        loop: The planner's event loop.
        cluster: Knows nodes and their settings.
        publish: Publishes a message, given topic and payload.
        leads: Whether this planner leads and knows the site.
        on_asleep: Called with a text for each sleeping node: what is done to wake it.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        link: Link,
        loop: Loop,
        cluster: ClusterState,
        *,
        publish: Callable[[str, bytes], object],
        leads: Callable[[], bool],
        on_asleep: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._link, self._loop = link, loop
        self._cluster = cluster
        self._publish, self._leads, self._on_asleep = publish, leads, on_asleep
        self._waking = Waking(settings.wake_interval_s)
        #: task -> sleeping nodes that would serve it better
        self._wanted: Mapping[str, list[str]] = {}
        #: task -> time of its newest request
        self._requested: dict[str, float] = {}

    def start(self) -> None:
        """Subscribes to demands."""
        # not required: the access list of an older release lacks the topic, and nobody sleeps there
        listen(self._link, topics.DEMAND, self._on_demand, required=False)
        self._loop.every(_LOOK_S, self._look)

    def adopt(self, wanted: Mapping[str, list[str]]) -> None:
        """Sets the sleeping nodes that a new plan wants, by task."""
        self._wanted = wanted
        since = time.monotonic() - _RECENT_S
        self._requested = {task: at for task, at in self._requested.items() if at > since}
        for task in wanted.keys() & self._requested.keys():
            self._want(task)

    def requested(self, task: str) -> None:
        """Notes that there are requests for a task."""
        if task in self._cluster.tasks and self._cluster.settings:
            self._requested[task] = time.monotonic()
            self._want(task)

    def wake(self, node: str) -> None:
        """Wakes a sleeping node by order of a person, also one that was given up."""
        self._waking.want(node, "somebody who asked for it", time.monotonic(), afresh=True)
        self._look()

    def _on_demand(self, task: str, demand: Demand | None) -> None:
        if demand is not None:
            self.requested(task)

    def _want(self, task: str) -> None:
        if nodes := self._wanted.get(task):
            for node in nodes:
                self._waking.want(node, f"the task {task}", time.monotonic())
            self._look()

    def _look(self) -> None:
        """Sends the magic packets that are due."""
        if not self._leads():
            return
        now, sleeping = time.monotonic(), self._cluster.sleeping()
        for node in self._waking.nodes:
            if node not in sleeping:
                self._waking.forget(node)
        for node in self._waking.due(now):
            self._send(node, now)
        self._on_asleep({node: self._waking.text(node) for node in sleeping})

    def _send(self, node: str, now: float) -> None:
        able = helpers(self._cluster, node)
        helper = able[self._waking.packets(node) % len(able)] if able else None
        settings = self._cluster.settings[node]
        if helper is not None and settings.wake is not None:
            order = WakeOrder(
                node=node, wake=settings.wake, wake_address=settings.wake_address, wake_port=settings.wake_port
            )
            self._publish(topics.WAKE.at(self._link.root, helper=helper), order.encode())
        self._waking.sent(node, helper, now)
        text = self._waking.text(node)
        _log.info("node_woken", node=node, by=helper, what=text)
        event = m.Event(event="node_woken", node=node, detail=text)
        self._publish(topics.EVENT.at(self._link.root), event.encode())
