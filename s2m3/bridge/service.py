"""The bridge service: runs the bindings, answers questions, and publishes the site for home automation.

It is a service of its own: without the bridge, requests and planning go on.
"""

import secrets
import threading
from functools import partial
from importlib.metadata import version
from typing import TypeVar

import structlog

from s2m3.bindings.bindings import Bindings
from s2m3.bridge.leftovers import Leftovers
from s2m3.bridge.questions import Questions
from s2m3.bridge.requests import Requests
from s2m3.bridge.retention import Retention
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.leader_election import next_epoch
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing, Will
from s2m3.broker.requests.dispatcher import Dispatcher
from s2m3.broker.roll_call import answer_roll_calls
from s2m3.history.finder import Finder
from s2m3.history.service import History
from s2m3.homeassistant.announcer import Announcer
from s2m3.homeassistant.discovery import Devices
from s2m3.homeassistant.view import View
from s2m3.schemas import bridge as b
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error, UnauthorisedError
from s2m3.schemas.sessions import bridge_client_id
from s2m3.schemas.settings import BridgeSettings

__all__ = ["Bridge"]

_log = structlog.get_logger(__name__)
_REPORT_S = 1.0
#: Interval of the state. A bridge that stands by takes over after 2.5 intervals without it (broker/leader_election).
_BEAT_S = 5.0
#: Retained documents arrive right after the SUBACK: the broker has no others if they have not arrived by then.
_SETTLED_S = 1.0
D = TypeVar("D")


class Bridge:
    """The bridge of a site. All state belongs to its loop's thread.

    Args:
        settings: The settings of this process.
        epoch: The newest epoch seen of another bridge; 0 if none.
    """

    def __init__(self, settings: BridgeSettings, epoch: int = 0) -> None:
        self._settings = settings
        self._root = settings.root
        self._loop = Loop("bridge")
        self._epoch = next_epoch(epoch)
        self._process = secrets.token_hex(4)
        self._stopping = False
        #: whether the retained documents have arrived since the last connect, and no other bridge has taken over
        self._settled = False
        self.superseded, self.newest = threading.Event(), epoch
        offline = b.BridgeState(state="offline", epoch=self._epoch)
        self._link = Link(
            settings,
            bridge_client_id(settings, self._process),
            self._loop,
            will=Will(topics.BRIDGE_STATE.at(self._root), offline.encode()),
            on_connected=self._on_connected,
        )
        self._asking = Link(settings, bridge_client_id(settings, self._process, "ask"), self._loop)
        self._dispatcher = Dispatcher(self._asking, self._loop, "bridge")
        self._view = View()
        prefix = settings.discovery_prefix
        retention = Retention(settings.pictures, settings.answers)
        devices = Devices(self._root, prefix, version("s2m3"), pictures=settings.pictures > 0)
        shown = devices if settings.homeassistant else None
        self._announcer = Announcer(self._link, self._loop, self._view, shown, self._republish, retention=retention)
        self._history = History(self._link, self._loop, settings, Finder(self._dispatcher))
        self._requests = asks = Requests(
            self._link,
            self._dispatcher,
            self._view,
            self._announcer,
            record=self._history.record,
            binding_changed=self._publish_reports,
        )
        shows = self._announcer.last_picture
        self._questions = Questions(self._root, kinds=asks.kinds, last_picture=shows, ask=asks.ask, refuse=asks.refuse)
        self._bindings = Bindings(settings, self._loop, asks, self._process, answers_s=settings.answers)
        self._leftovers = Leftovers(self._link, self._announcer, self._bindings)
        self._reports: dict[str, b.BindingReport] = {}
        #: (kind, name) of documents that were known or retained, and have not arrived since the last connect
        self._unconfirmed: set[tuple[str, str]] = set()
        #: binding -> payload of its document, as a newer release may have written keys that this one does not know
        self._payloads: dict[str, bytes] = {}
        #: whether the state of any bridge has arrived since the last connect; if not, the broker has lost its documents
        self._is_known = False
        #: timers of the last connect
        self._timers: list[Timer] = []

    # ---- start and stop -------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Connects, and reads the retained documents.

        Raises:
            UnauthorisedError: The broker refused the login.
            S2M3Error: There is no broker.
        """
        link, view = self._link, self._view
        self._loop.start()
        listen(link, topics.BRIDGE_STATE, self._on_bridge_state)
        listen(link, topics.PLANNER_STATE, self._on_planner)
        listen(link, topics.TASK, self._on_task)
        listen(link, topics.ROUTE, self._on_route)
        listen(link, topics.PLAN, self._on_plan)
        listen(link, topics.NODE_PROFILE, partial(self._keep, view.profiles))
        listen(link, topics.NODE_REPORTED, partial(self._keep, view.reported))
        listen(link, topics.NODE_LOAD, partial(self._keep, view.loads))
        listen(link, topics.NODE_STATE, self._on_node_state)
        listen(link, topics.BIND, self._on_binding, counts=self._keep_binding)
        answer_roll_calls(link, self._loop, self._answer_roll_call)
        self._requests.listen(pictures=self._settings.pictures > 0)
        link.subscribe(topics.BRIDGE_ASK.all(self._root), self._questions.take)
        self._leftovers.listen()
        self._history.start()
        for path in (topics.BRIDGE_TASK, topics.BRIDGE_NODE, topics.BRIDGE_BINDING):  # of an earlier bridge
            link.subscribe(path.all(self._root), partial(self._on_left, path))
        self._dispatcher.start()
        self._asking.start()
        link.start()
        self._loop.every(_REPORT_S, self._publish_reports)
        self._loop.every(_BEAT_S, self._beat)
        _log.info("bridge_up", epoch=self._epoch, homeassistant=self._settings.homeassistant)

    def stop(self) -> None:
        """Publishes that the bridge is offline, and disconnects."""
        self._stopping = True
        is_ours = not self.superseded.is_set()  # else the retained documents are another bridge's
        self._bindings.stop(clear=is_ours)
        if is_ours:
            self._loop.call(self._announcer.end)
            self._history.forget_state()
            self._publish_state("offline")
        self._history.stop()
        self._asking.stop(timeout_s=1.0)
        self._link.stop()
        self._loop.stop()
        _log.info("bridge_down", epoch=self._epoch)

    @property
    def refused(self) -> UnauthorisedError | None:
        """The error with which the broker refused one of the bridge's connections; None if it did not."""
        return self._link.refused or self._asking.refused

    def _on_connected(self) -> None:
        if self.superseded.is_set():
            return
        view = self._view
        self._unconfirmed |= {("node", n) for n in view.nodes.present | view.nodes.lost}
        self._unconfirmed |= {("task", task) for task in view.tasks} | {("binding", n) for n in self._bindings.wanted}
        self._settled = self._is_known = False
        self._announcer.hold()
        self._announcer.changed("planner")
        for timer in self._timers:
            timer.cancel()
        self._timers = [
            self._loop.after(_SETTLED_S, self._settle),
            self._loop.after(self._settings.forget_s, self._forget_unconfirmed),
        ]
        self._reports = {}

    def _republish(self) -> None:
        """Publishes all retained documents: the broker may have lost them, or Home Assistant has just started."""
        self._publish_state("online")
        self._announcer.repeat()
        self._history.publish_state()

    def _answer_roll_call(self) -> None:
        """Publishes the documents that askers of roll calls read: no pictures, and none outside the root."""
        if self._settled and self._link.connected and not self.superseded.is_set():
            self._publish_state("online")
            self._announcer.repeat_documents()
            self._history.publish_state()
            self._reports = {}
            self._publish_reports()

    def _settle(self) -> None:
        """Handles the end of the retained documents: restores bindings that the broker lost, notes absent nodes."""
        if self.superseded.is_set() or not self._link.connected:
            return
        self._settled = True
        self._announcer.release()
        self._republish()
        if not self._is_known:
            for name, payload in self._payloads.items():
                if ("binding", name) in self._unconfirmed:
                    self._retain(topics.BIND.at(self._root, binding=name), payload)
        self._view.silent = {name for kind, name in self._unconfirmed if kind == "node"}
        for node in self._view.silent:
            self._announcer.changed("node", node)
            self._announcer.changed("presence", node)

    def _forget_unconfirmed(self) -> None:
        if not self._link.connected:
            return
        for path in (topics.BRIDGE_TASK, topics.BRIDGE_NODE, topics.BRIDGE_BINDING):
            self._link.unsubscribe(path.all(self._root))
        self._leftovers.stop_listening()
        unconfirmed, self._unconfirmed = self._unconfirmed, set()
        for kind, name in unconfirmed:
            _log.info("forgotten", kind=kind, name=name)
            if kind == "node":
                self._on_node_state(name, None)
            elif kind == "task":
                self._on_task(name, None)
            else:
                self._on_binding(name, None)

    # ---- incoming documents ---------------------------------------------------------------------------------------

    def _on_bridge_state(self, _: str, state: b.BridgeState | None) -> None:
        if state is None or self._stopping:
            return
        self._is_known = True
        if state.epoch > self._epoch and state.state == "online":
            _log.warning("superseded", epoch=self._epoch, by=state.epoch)
            self.newest = state.epoch
            self.superseded.set()
        elif state.epoch < self._epoch or state.state == "offline":  # of a bridge that was frozen, or a late last will
            self._publish_state("online")

    def _on_left(self, path: topics.TopicPath, message: Message) -> None:
        kind, name = next(iter((path.ids(self._root, message.topic) or {"": ""}).items()))
        nodes = self._view.nodes
        if message.retain and kind == "binding":
            self._leftovers.of_report(name, message.payload)
        known = {"node": nodes.present | nodes.lost, "task": self._view.tasks, "binding": self._bindings.wanted}
        if message.retain and name and name not in known[kind]:
            self._unconfirmed.add((kind, name))

    def _on_planner(self, _: str, state: m.PlannerState | None) -> None:
        asleep = self._view.asleep
        self._view.planner = state
        for node in asleep ^ self._view.asleep:
            self._announcer.changed("node", node)
        self._announcer.changed("planner")

    def _on_task(self, task: str, spec: m.TaskSpec | None) -> None:
        self._unconfirmed.discard(("task", task))
        if spec is None:
            self._view.tasks.pop(task, None)
            self._announcer.forget("task", task)
            self._bindings.task_gone(task)
            self._announcer.changed("planner")
        else:
            self._view.tasks[task] = spec
            self._announcer.changed("task", task)

    def _on_route(self, task: str, doc: m.RouteDoc | None) -> None:
        self._keep(self._view.routes, task, doc, kind="task")

    def _on_plan(self, node: str, plan: m.Plan | None) -> None:
        """Takes a node's plan, for its gateways: a task without one is not ready."""
        before = self._view.plans.pop(node, None)
        if plan is not None:
            self._view.plans[node] = plan
        for task in {*(before.gateways if before else ())} ^ {*(plan.gateways if plan else ())}:
            if task in self._view.tasks:
                self._announcer.changed("task", task)
                self._announcer.changed("planner")

    def _on_node_state(self, node: str, state: m.NodeState | None) -> None:
        self._unconfirmed.discard(("node", node))
        is_news = self._view.nodes.update(node, state) or node in self._view.silent
        self._view.silent.discard(node)
        if state is None:
            self._on_plan(node, None)
            for kept in (self._view.profiles, self._view.reported, self._view.loads):
                kept.pop(node, None)
            self._announcer.forget("node", node)
        elif is_news:
            self._announcer.changed("node", node)
        if is_news:
            self._announcer.changed("presence", node)

    def _keep(self, kept: dict[str, D], name: str, document: D | None, kind: str = "node") -> None:
        if kept.get(name) == document:
            return  # a heartbeat of an idle node, or a document that answers a roll call
        if document is None:
            kept.pop(name, None)
        else:
            kept[name] = document
        if kind == "task" or self._view.nodes.state(name) is not None:
            self._announcer.changed(kind, name)

    def _keep_binding(self, name: str, payload: bytes) -> bool:
        self._payloads[name] = payload
        return True

    def _on_binding(self, name: str, binding: b.Binding | None) -> None:
        self._unconfirmed.discard(("binding", name))
        before = self._bindings.wanted.get(name)
        self._bindings.update(name, binding)
        self._reports.pop(name, None)  # published again even without a change: the binding's publisher waits for it
        if binding is None:
            self._payloads.pop(name, None)
            self._retain(topics.BRIDGE_BINDING.at(self._root, binding=name), b"")
            self._announcer.forget_binding(name, before.task if before is not None else None)
            for topic in self._bindings.left_by(name):
                self._retain(topic, b"")
        self._publish_reports()

    # ---- outgoing documents ---------------------------------------------------------------------------------------

    def _beat(self) -> None:
        if self._settled and self._link.connected:
            self._publish_state("online")
            self._history.look(self._view.routes)
            self._history.publish_state(again=False)

    def _publish_state(self, state: str) -> None:
        if state == "online" and self.superseded.is_set():
            return
        document = b.BridgeState.model_validate({"state": state, "epoch": self._epoch})
        self._retain(topics.BRIDGE_STATE.at(self._root), document.encode())

    def _publish_reports(self) -> None:
        if not self._settled:
            return
        reports = self._bindings.reports()
        for name, report in reports.items():
            if self._reports.get(name) != report:
                self._retain(topics.BRIDGE_BINDING.at(self._root, binding=name), report.encode())
        self._reports = reports

    def _retain(self, topic: str, payload: bytes) -> None:
        self._try_to_publish(Outgoing(topic, payload, retain=True))

    def _try_to_publish(self, message: Outgoing) -> None:
        try:
            self._link.publish(message)
        except S2M3Error as error:
            _log.warning("not_published", topic=message.topic, error=str(error))
