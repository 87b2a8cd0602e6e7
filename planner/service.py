"""The planner: listens to tasks and nodes, decides where modules live, and publishes plans and routes. One writer."""

import threading
import time
from functools import partial
from typing import Any, Literal

import structlog

from s2m3.broker import metrics
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.leader_election import next_epoch
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing, Will
from s2m3.planner.control import handle_control
from s2m3.planner.planner_observer import PlannerObserver
from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.decision import decide
from s2m3.planner.site.heartbeat_monitor import HeartbeatMonitor
from s2m3.planner.site.placement import Placement, place
from s2m3.planner.site.placer import Placer, second_copies_in_spare
from s2m3.planner.site.published_documents import Documents
from s2m3.planner.site_metrics import count_site, health_of
from s2m3.planner.task_sessions import TaskSessions
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.definitions import Catalogue
from s2m3.schemas.errors import S2M3Error, UnauthorisedError
from s2m3.schemas.sessions import planner_client_id
from s2m3.schemas.settings import PlannerSettings

__all__ = ["Planner"]

_log = structlog.get_logger(__name__)
_HEALTH_S = 10.0
#: After the broker has confirmed the subscriptions, retained documents come at once; planning starts this much later.
_REBUILD_S = 0.25
#: A broker that forgot everything is told of plans after the doors are open, or after this long.
_DOORS_S = 2.0
_SOON_S = 0.02
_SILENCE_S = 0.25
#: Measured times and links change what is best: looked at again this often.
_IMPROVE_S = 60.0


class Planner:
    """The one planner of a site. Its state belongs to its loop's thread; it is not on the data path.

    Args:
        settings: Of this process.
        catalogue: The model definitions known.
        placer: Places modules.
        epoch: The newest epoch seen of another planner.
    """

    def __init__(self, settings: PlannerSettings, catalogue: Catalogue, *, placer: Placer, epoch: int = 0) -> None:
        self._settings = settings
        self._root, self._events = settings.root, topics.EVENT.at(settings.root)
        self._placer = placer
        self._improve = self._rebuilt = False
        self._cluster = ClusterState(catalogue)
        self._loop = Loop("planner")
        self._epoch = next_epoch(epoch)
        self._documents = Documents(self._root, self._epoch)
        self._task_sessions = TaskSessions(settings, self._loop, self._cluster, self._plan)
        self._heartbeats = HeartbeatMonitor()
        #: since the last connect: whether what the broker remembers was heard (a newer planner?) and ours told again
        self._in_touch = False
        #: and whether it told us of any planner: else it has forgotten everything
        self._is_known = False
        self._placement = Placement()
        self._timer: Timer | None = None
        self._retry: Timer | None = None
        self._stopping = False
        self.superseded = threading.Event()
        #: the newest epoch known of another; and whether that one is gone, and forgotten by the broker
        self.newest, self._is_outlived = epoch, False
        self.link = Link(
            settings,
            planner_client_id(settings),
            self._loop,
            will=Will(topics.PLANNER_STATE.at(self._root), m.PlannerState(state="offline", epoch=self._epoch).encode()),
            on_connected=self._on_connected,
        )
        self._observer = PlannerObserver(settings, self._loop, self._on_planner_state)

    # ---- life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connects, reads what is retained, and plans.

        Raises:
            UnauthorisedError: The broker refused the login.
            S2M3Error: There is no broker.
        """
        self._loop.start()
        listen(self.link, topics.TASK, self._on_task)
        listen(self.link, topics.NODE_PROFILE, self._on_profile)
        listen(self.link, topics.NODE_REPORTED, self._on_reported)
        listen(self.link, topics.NODE_LOAD, self._on_load)
        listen(self.link, topics.PLAN, self._on_plan)
        listen(self.link, topics.ROUTE, self._on_route)
        for verb in ("replan", "drain", "profile"):
            self.link.subscribe(topics.CONTROL.at(self._root, verb=verb), self._on_control)
        rebuild = partial(self._loop.after, _REBUILD_S, self._rebuild)
        listen(self.link, topics.NODE_STATE, self._on_node_state, on_subscribed=rebuild)
        self.link.start()
        self._loop.every(_SILENCE_S, self._look_for_silent)
        self._loop.every(_HEALTH_S, self._tell_health)
        self._loop.every(_IMPROVE_S, self._look_for_better)
        _log.info("planner_up", epoch=self._epoch, models=len(self._cluster.catalogue.models))

    @property
    def refused(self) -> UnauthorisedError | None:
        """Why the broker does not let this be the planner; None while it does."""
        return self.link.refused or self._task_sessions.refused or self._observer.refused

    def stop(self) -> None:
        """Says that nobody plans, and ends. Requests go on without us."""
        self._stopping = True  # before we hear ourselves say it
        if self._is_outlived or not self.superseded.is_set():
            self._tell_state("offline")
        self._loop.call(self._observer.stop)
        self.link.stop()
        self._loop.stop()
        _log.info("planner_down", epoch=self._epoch)

    def _on_connected(self) -> None:
        self._is_known = self._in_touch = False
        if self.superseded.is_set():
            return
        if not self._rebuilt:
            self._tell_state("online")
        if self._retry is not None:
            self._retry.cancel()
        self._observer.ask(self._restore)

    def _restore(self) -> None:
        """What the broker remembers was heard: now it is plain whether it forgot everything."""
        if self.superseded.is_set() or self._in_touch or not self._rebuilt:
            return
        if not self._is_known:
            _log.warning("broker_forgot_everything", epoch=self._epoch)
            self._cluster.sessions.clear()
            self._task_sessions.open_all()
        self._repeat(time.monotonic() + _DOORS_S)

    def _repeat(self, at_last: float) -> None:
        """Publishes all documents again. Plans once the task sessions are open: opening one disconnects its gateway."""
        if self._task_sessions.opening and time.monotonic() < at_last:
            self._retry = self._loop.after(_SOON_S, partial(self._repeat, at_last))
            return
        if self.superseded.is_set():
            return
        self._in_touch = True
        self._tell_state("online")
        for task, spec in self._cluster.tasks.items():
            self._publish_retained(topics.TASK.at(self._root, task=task), spec.encode())
        self._documents.repeat(self._publish_retained)
        self._cluster.sessions &= self._tasks_with_gateway()
        self._plan_soon()

    def _rebuild(self) -> None:
        """All that is retained is here: what a planner before us said is taken over, not torn down."""
        self._rebuilt = self._in_touch = True
        self._cluster.sessions |= self._tasks_with_gateway()
        self._improve = not self._cluster.plans  # a planner that takes over moves nothing just because it is new
        self._plan()

    def _tasks_with_gateway(self) -> set[str]:
        return {task for plan in self._cluster.plans.values() for task in plan.gateways}

    # ---- what comes in --------------------------------------------------------------------------------------------

    def _on_planner_state(self, state: m.PlannerState) -> None:
        if self.superseded.is_set():
            return
        self._is_known = True
        if state.epoch > self._epoch:  # online or gone again: nodes refuse plans of our epoch since
            self._give_way(state.epoch)
        elif state.epoch < self._epoch or state.state == "offline":
            self._loop.after(_REBUILD_S, self._contradict)

    def _give_way(self, newest: int) -> None:
        _log.warning("superseded", epoch=self._epoch, by=newest)
        self.newest = newest
        self.superseded.set()

    def _contradict(self) -> None:
        """An old will that came late, or a planner that does not know of us yet; unless our own loss is read late."""
        is_ours = not (self._stopping or self.superseded.is_set())
        if is_ours and self.link.connected and (self._in_touch or not self._rebuilt):
            self._tell_state("online")

    def _on_task(self, task: str, spec: m.TaskSpec | None) -> None:
        if spec is None:
            if self._cluster.want(task, None):
                _log.info("task_removed", task=task)
                self._task_sessions.close(task)
                self._plan_soon()
        elif self._cluster.want(task, spec):
            _log.info("task_wanted", task=task, model=spec.model)
            self._improve = True
            self._plan_soon()

    def _look_for_silent(self) -> None:
        """Tells everybody that a node is lost which the broker still takes to be there. If it is: it will say so."""
        there = self._cluster.keepalives() if self._rebuilt and self.link.connected else {}
        for node in self._heartbeats.look(there, time.monotonic()):
            _log.warning("node_silent", node=node)
            lost = m.NodeState(state="lost", boot=self._cluster.nodes.boot(node) or "")
            self._publish_retained(topics.NODE_STATE.at(self._root, node=node), lost.encode())

    def _on_node_state(self, node: str, state: m.NodeState | None) -> None:
        self._heartbeats.heard(node, time.monotonic())
        nodes = self._cluster.nodes
        boot, was = nodes.boot(node), nodes.state(node)
        if not nodes.update(node, state):
            return
        if state is None:
            self._cluster.flapping.forget(node)
        elif state.boot != boot:
            self._cluster.forget_failures(node)
        if state is not None and state.state == "lost":
            metrics.NODES_LOST.labels(node).inc()
            self._note("node_lost", node)
            self._plan()
            return
        if was in (None, "lost") and state is not None:
            self._note("node_joined", node)
            self._improve = True
        self._plan_soon()

    def _note(self, event: Literal["node_joined", "node_lost"], node: str) -> None:
        _log.info(event, node=node)
        if self._rebuilt:  # before that, nobody can tell how long it has been there
            self._publish(self._events, m.Event(event=event, node=node).encode())
            note = self._cluster.note_loss if event == "node_lost" else self._cluster.flapping.came
            note(node, time.monotonic())

    def _on_profile(self, node: str, profile: m.NodeProfile | None) -> None:
        self._heartbeats.heard(node, time.monotonic())
        self._cluster.take_profile(node, profile)
        self._plan_soon()

    def _on_reported(self, node: str, reported: m.Reported | None) -> None:
        self._heartbeats.heard(node, time.monotonic())
        for module in self._cluster.take_report(node, reported, time.monotonic()):
            _log.warning("module_failed", node=node, module=module)
        self._plan_soon()

    def _on_load(self, node: str, load: m.NodeLoad | None) -> None:
        self._heartbeats.heard(node, time.monotonic())
        for task, finished in (load.finished if load else {}).items():
            if task in self._cluster.tasks:
                self._cluster.rates.add(task, finished, time.monotonic())

    def _on_plan(self, node: str, plan: m.Plan | None) -> None:
        """What a planner before us said; perhaps only now, for it had that under way when it was frozen or cut off."""
        if plan is not None and plan.epoch < self._epoch:
            if not self._rebuilt:
                self._cluster.plans[node] = plan
            self._documents.inherit([node], [])
            self._plan_soon()

    def _on_route(self, task: str, doc: m.RouteDoc | None) -> None:
        if doc is not None and doc.epoch < self._epoch:
            self._documents.inherit([], [task])
            self._plan_soon()

    def _on_control(self, message: Message) -> None:
        verb = (topics.CONTROL.ids(self._root, message.topic) or {})["verb"]
        response = handle_control(verb, message.payload, self._cluster.nodes.present, self._plan_afresh)
        self._publish(topics.CONTROL_RESPONSE.at(self._root, verb=verb), response.encode())

    def _plan_afresh(self) -> dict[str, Any]:
        self._improve = True
        self._plan()
        return {"epoch": self._epoch, "revision": self._documents.revision}

    # ---- planning -------------------------------------------------------------------------------------------------

    def _plan_soon(self) -> None:
        """Changes that come close together are planned once."""
        if self._timer is None and self._rebuilt:
            self._timer = self._loop.after(self._settings.settle_s, self._plan)

    def _look_for_better(self) -> None:
        self._improve = True
        self._plan_soon()

    def _plan(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not (self._in_touch and self.link.connected) or self.superseded.is_set():
            return  # `_repeat` plans as soon as the broker is back
        if (followed := self._cluster.epoch_followed()) > self._epoch:  # its clock was ahead of ours
            self._is_outlived = True
            self._give_way(followed)
            return
        self._task_sessions.open_all()
        now = time.monotonic()
        improve, self._improve = self._improve, False
        fill, before = second_copies_in_spare if self._settings.spare else None, self._placement.held
        with metrics.PLAN_SECONDS.time():
            self._placement = place(self._cluster, self._placer(improve), now, fill)
            decision = decide(self._cluster, self._placement)
        if self._placement.held != before:
            _log.info("nodes_held_back", nodes=" ".join(self._placement.held))
            self._tell_state("online")
        changed = self._documents.update(decision, self._publish_retained)
        count_site(self._cluster, decision)
        self._cluster.plans = dict(self._documents.plans)
        for node in changed:
            metrics.PLAN_CHANGES.labels(node).inc()
            held = [spec.id for spec in self._cluster.plans[node].modules] if node in self._cluster.plans else []
            _log.info("plan_changed", node=node, revision=self._documents.revision, modules=" ".join(held))
            self._publish(self._events, m.Event(event="plan_changed", node=node, detail=" ".join(held)).encode())
        for task, error in self._placement.errors.items():
            _log.warning("task_not_placed", task=task, error=str(error))
        self._plan_again_at(self._cluster.next_retry(now), now)

    def _plan_again_at(self, when: float | None, now: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = None if when is None else self._loop.after(when - now + 0.01, self._plan)

    # ---- what goes out --------------------------------------------------------------------------------------------

    def _tell_state(self, state: str) -> None:
        document = m.PlannerState.model_validate({"state": state, "epoch": self._epoch, "held": self._placement.held})
        self._publish_retained(topics.PLANNER_STATE.at(self._root), document.encode())

    def _tell_health(self) -> None:
        health = health_of(self._cluster, self._documents).encode()
        self._publish(topics.PLANNER_HEALTH.at(self._root), health, qos=0)

    def _publish_retained(self, topic: str, payload: bytes) -> None:
        self._publish(topic, payload, retain=True)

    def _publish(self, topic: str, payload: bytes, *, qos: int = 1, retain: bool = False) -> None:
        try:
            self.link.publish(Outgoing(topic, payload, qos=qos, retain=retain))
        except S2M3Error as error:  # said again on the next connect
            _log.warning("not_published", topic=topic, error=str(error))
