"""Takes nodes' states, profiles, reports and telemetry into the planner's cluster state."""

import time
from collections.abc import Callable
from functools import partial
from typing import Literal, Protocol

import structlog

from s2m3.broker import metrics
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.heartbeat_monitor import HeartbeatMonitor
from s2m3.planner.site.missing_documents import MissingDocuments
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error

__all__ = ["NodeListener"]

_log = structlog.get_logger(__name__)


class OnChange(Protocol):
    """Called when a new plan is needed: `improve` if modules may move to better places, `lost` if a node is lost."""

    def __call__(self, *, improve: bool = False, lost: bool = False) -> None: ...


class NodeListener:
    """Subscribes to the documents of all nodes. All methods run in the loop's thread.

    Args:
        link: The planner's connection.
        cluster: The cluster state to update.
        missing: Notes the nodes that send telemetry.
        publish: Publishes a message, given topic, payload and whether it is retained.
        on_change: Called when a new plan is needed.
        is_settled: Whether all retained documents have arrived. Only changes after that are published as events.
        is_complete: Whether they have arrived on this connection too.
        is_retaining: Whether the broker still has what it retained before the last connect.
        on_requests: Called with each task of which requests have finished.
    """

    def __init__(
        self,
        link: Link,
        cluster: ClusterState,
        missing: MissingDocuments,
        *,
        publish: Callable[[str, bytes, bool], object],
        on_change: OnChange,
        is_settled: Callable[[], bool],
        is_complete: Callable[[], bool],
        is_retaining: Callable[[], bool],
        on_requests: Callable[[str], object],
    ) -> None:
        self._link = link
        self._cluster = cluster
        self._missing = missing
        self._publish = publish
        self._on_change = on_change
        self._is_settled, self._is_complete, self._is_retaining = is_settled, is_complete, is_retaining
        self._on_requests = on_requests
        self._heartbeats = HeartbeatMonitor()
        #: nodes whose state has arrived since the last connect
        self._confirmed: set[str] = set()

    def start(self, on_subscribed: Callable[[], object]) -> None:
        """Subscribes to all topics of nodes; `on_subscribed` is called at the SUBACK of the last one."""
        listen(self._link, topics.NODE_PROFILE, self._on_profile)
        listen(self._link, topics.NODE_REPORTED, self._on_reported)
        listen(self._link, topics.NODE_LOAD, self._on_load)
        listen(self._link, topics.NODE_STATE, self._on_state, on_subscribed=on_subscribed)

    def on_connected(self) -> None:
        """Handles a new connection: the retained documents come again."""
        self._confirmed.clear()

    def look_for_silent(self) -> None:
        """Publishes `lost` for nodes without a heartbeat; a node that is alive publishes its own state again.

        A node whose state the broker does not have any more was forgotten while the connection was down: it stays so.
        """
        is_known = self._is_settled() and self._is_complete() and self._link.connected
        keepalives = self._cluster.keepalives() if is_known else {}
        for node in self._heartbeats.look(keepalives, time.monotonic()):
            if node not in self._confirmed and self._is_retaining():
                self._forget(node)
                continue
            _log.warning("node_silent", node=node)
            boot, protocol = self._cluster.nodes.boot(node) or "", self._cluster.nodes.protocol(node)
            lost = m.NodeState(state="lost", boot=boot, protocol=protocol)
            self._publish_lost(node, lost)

    def _publish_lost(self, node: str, lost: m.NodeState) -> None:
        message = Outgoing(topics.NODE_STATE.at(self._link.root, node=node), lost.encode(), retain=True)
        try:
            self._link.publish(message, on_refused=partial(self._may_not_publish, node, lost))
        except S2M3Error as error:
            _log.warning("not_published", topic=message.topic, error=str(error))

    def _may_not_publish(self, node: str, lost: m.NodeState, error: S2M3Error) -> None:
        """Plans without the node all the same: an access list of an earlier release lets only the node say so."""
        _log.warning("lost_not_published", node=node, error=str(error), remedy="s2m3 secure init, once more")
        if self._cluster.nodes.boot(node) == lost.boot:
            self._on_state(node, lost)

    def _forget(self, node: str) -> None:
        _log.info("node_forgotten", node=node)
        self._cluster.take_profile(node, None)
        self._cluster.take_report(node, None, time.monotonic())
        self._on_state(node, None)

    def _on_state(self, node: str, state: m.NodeState | None) -> None:
        self._heartbeats.heard(node, time.monotonic())
        self._confirmed.add(node)
        nodes = self._cluster.nodes
        boot, was = nodes.boot(node), nodes.state(node)
        if not nodes.update(node, state):
            return
        if state is None:
            self._cluster.flapping.forget(node)
        elif state.boot != boot:
            self._cluster.failures.forget(node)
        if state is not None and state.state == "lost":
            metrics.NODES_LOST.labels(node).inc()
            self._missing.on_lost(node)
            self._record("node_lost", node, asleep=state.asleep)
            self._on_change(lost=True)
            return
        has_joined = was in (None, "lost") and state is not None
        if has_joined:
            self._record("node_joined", node)
        self._on_change(improve=has_joined)

    def _record(self, event: Literal["node_joined", "node_lost"], node: str, *, asleep: bool = False) -> None:
        _log.info(event, node=node, asleep=asleep or None)
        if self._is_settled():  # a retained state does not tell when the node joined or was lost
            document = m.Event(event=event, node=node, detail="asleep" if asleep else None)
            self._publish(topics.EVENT.at(self._link.root), document.encode(), False)  # noqa: FBT003
            lost = self._cluster.note_sleep if asleep else self._cluster.note_loss
            note = lost if event == "node_lost" else self._cluster.flapping.came
            note(node, time.monotonic())

    def _on_profile(self, node: str, profile: m.NodeProfile | None) -> None:
        self._heartbeats.heard(node, time.monotonic())
        if self._cluster.take_profile(node, profile):
            self._on_change()

    def _on_reported(self, node: str, reported: m.Reported | None) -> None:
        self._heartbeats.heard(node, time.monotonic())
        if reported is not None and reported == self._cluster.reported.get(node):
            return  # published again to answer a roll call
        matters = self._cluster.matters(node, reported)
        for module in self._cluster.take_report(node, reported, time.monotonic()):
            _log.warning("module_failed", node=node, module=module)
        if matters:
            self._on_change()

    def _on_load(self, node: str, load: m.NodeLoad | None) -> None:
        self._heartbeats.heard(node, time.monotonic())
        self._missing.on_load(node)
        for task, finished in (load.finished if load else {}).items():
            if task in self._cluster.tasks:
                self._cluster.rates.add(task, finished, time.monotonic())
                self._on_requests(task)
