"""A read-only view of the site's topics: read once for `status`, kept up to date for `watch` and for waiting."""

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Self, TypeVar

from s2m3 import logs
from s2m3.broker.event_loop import Loop, Timer
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Outgoing
from s2m3.broker.node_states import NodeStates
from s2m3.broker.roll_call import ask_who_is_there
from s2m3.broker.roll_call_times import EVERY_S, LATEST_S, AskTimes
from s2m3.missing_documents import missing_documents
from s2m3.schemas import bridge as b
from s2m3.schemas import messages as m
from s2m3.schemas import sleep, topics
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.gateways import gateway_of
from s2m3.schemas.settings import BrokerSettings
from s2m3.unconfirmed import Unconfirmed

__all__ = ["Site"]

logs.quiet_by_default()

D = TypeVar("D")
_CONFIRM_S = 5.0
_EVENTS = 99
#: Retained messages arrive right after the SUBACK, many of them in parts: if none arrives for this long after it, all
#: have arrived.
_QUIET_S = 0.15
#: On a large site documents change all the time: after this long, seconds, what is there is taken as it is.
_SETTLED_S = 5.0


class Site:
    """All documents of a site, kept up to date while the context manager is open.

    Args:
        settings: The broker's address, and the login.
        roll_call: The name under which to ask for a roll call, at the start and when documents are missing; None asks
            for none and shows what the broker has retained.
        with_node_settings: Whether to read the operator's settings of nodes, which no other login may read.
    """

    def __init__(
        self, settings: BrokerSettings, *, roll_call: str | None = None, with_node_settings: bool = False
    ) -> None:
        self.root = settings.root
        self._asker, self._ask_times = roll_call, AskTimes()
        self._with_node_settings = with_node_settings
        #: whether the broker has logins; then it may deny a login to read topics without an error
        self.is_secured = settings.tls_ca is not None or settings.username is not None
        self.planner: m.PlannerState | None = None
        self.nodes = NodeStates()
        self.profiles: dict[str, m.NodeProfile] = {}
        #: node -> the operator's settings, if they were requested
        self.settings: dict[str, sleep.NodeSettings] = {}
        self.reported: dict[str, m.Reported] = {}
        self.loads: dict[str, m.NodeLoad] = {}
        self.tasks: dict[str, m.TaskSpec] = {}
        self.plans: dict[str, m.Plan] = {}
        self.routes: dict[str, m.RouteDoc] = {}
        self.bindings: dict[str, b.Binding] = {}
        self.reports: dict[str, b.BindingReport] = {}
        self.bridge: b.BridgeState | None = None
        #: the last events, and the number of all that were heard
        self.events: list[m.Event] = []
        self.events_heard = 0
        self._changed = threading.Condition()
        self._last = time.monotonic()
        name = f"view-{secrets.token_hex(6)}"
        self._loop = Loop(name)
        self.link = Link(settings, f"s2m3-{name}", self._loop)
        self.link.on_connection_change(on_disconnect=self._on_disconnect, on_reconnect=self._on_reconnect)
        self._unconfirmed = Unconfirmed()
        #: node -> its state: of a kind that `nodes` keeps, for the key alone
        self._states: dict[str, m.NodeState] = {}
        self._timer: Timer | None = None

    def __enter__(self) -> Self:
        self._loop.start()
        self.link.start(patient=False)
        confirmed, all_sent = threading.Event(), threading.Event()
        listen(self.link, topics.PLANNER_STATE, self._on_planner)
        listen(self.link, topics.NODE_PROFILE, partial(self._store, self.profiles))
        if self._with_node_settings:
            listen(self.link, topics.NODE_SETTINGS, partial(self._store, self.settings))
        listen(self.link, topics.NODE_REPORTED, partial(self._store, self.reported))
        listen(self.link, topics.NODE_LOAD, self._on_load)
        listen(self.link, topics.TASK, partial(self._store, self.tasks))
        listen(self.link, topics.PLAN, partial(self._store, self.plans))
        listen(self.link, topics.ROUTE, partial(self._store, self.routes))
        listen(self.link, topics.BIND, partial(self._store, self.bindings))
        listen(self.link, topics.BRIDGE_BINDING, partial(self._store, self.reports))
        listen(self.link, topics.BRIDGE_STATE, self._on_bridge)
        listen(self.link, topics.NODE_STATE, self._on_state, on_subscribed=confirmed.set)
        try:
            self._wait_for(confirmed, "confirm our subscriptions")
            # Nothing of this topic is retained: its SUBACK comes behind what is retained of the topics before.
            listen(self.link, topics.EVENT, self._on_event, on_subscribed=all_sent.set)
            self._wait_for(all_sent, "confirm our subscriptions")
        except S2M3Error:
            self.__exit__()
            raise
        if self._asker is not None:
            self._ask_times.asked(time.monotonic())
            ask_who_is_there(self.link, self._asker)
        self._wait_until_quiet()
        if self._asker is not None:
            self.wait(lambda site: not site.missing(), LATEST_S + _QUIET_S)
        return self

    def missing(self) -> frozenset[str]:
        """Returns the topics, below the root, of documents that other documents refer to and that did not arrive."""
        with self._changed:
            return missing_documents(
                self.planner,
                self.nodes,
                profiles=self.profiles,
                tasks=self.tasks,
                plans=self.plans,
                routes=self.routes,
                others=[*self.reported, *self.loads],
            )

    def look_for_missing(self) -> None:
        """Asks for a roll call if documents have been missing for a while."""
        if self._asker is not None and self._ask_times.is_due(self.missing(), time.monotonic()):
            ask_who_is_there(self.link, self._asker)

    def __exit__(self, *_: object) -> None:
        self.link.stop()
        self._loop.stop()

    def wait(self, until: Callable[["Site"], bool], timeout_s: float) -> bool:
        """Waits until a condition holds; returns whether it holds, at the latest after the time-out."""
        with self._changed:
            return self._changed.wait_for(lambda: until(self), timeout_s)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Has no document change as long as the context lasts: for readers of several documents, or of many."""
        with self._changed:
            yield

    def _wait_for(self, event: threading.Event, what: str) -> None:
        if not self.link.wait_for(event, _CONFIRM_S):
            raise S2M3Error(f"the broker did not {what} in {_CONFIRM_S:g} s")

    def publish(self, path: topics.TopicPath, payload: bytes, **ids: str) -> None:
        """Publishes one document and waits for the broker's acknowledgement.

        Raises:
            UnauthorisedError: The broker denies the publication to this login.
            S2M3Error: The acknowledgement did not arrive in time.
        """
        acknowledged = threading.Event()
        topic = path.at(self.root, **ids)
        self.link.publish(Outgoing(topic, payload, retain=path.retain), on_delivered=acknowledged.set)
        self._wait_for(acknowledged, f"acknowledge {topic}")

    def ready(self, task: str) -> bool:
        """Whether every step of a task has a ready copy on a present node."""
        doc = self.routes.get(task)
        return doc is not None and doc.ready_on(self.nodes.present)

    def gateway(self, task: str) -> str | None:
        """Returns the present node whose plan makes it the gateway of a task; None if there is none."""
        return gateway_of(task, self.plans, self.nodes.present)

    def answers(self, task: str) -> bool:
        """Whether a plain request of a task would be answered: the task is ready and has a gateway."""
        return self.ready(task) and self.gateway(task) is not None

    def rank(self, task: str) -> int | None:
        """Returns the rank of the best of a task's models that can serve requests; None if none can."""
        doc = self.routes.get(task)
        return None if doc is None else doc.rank_on(self.nodes.present)

    def _wait_until_quiet(self) -> None:
        """Waits until no document has come for a moment. Telemetry does not count: on a large site it never ceases."""
        with self._changed:
            self._last = time.monotonic()
            settled = self._last + _SETTLED_S
            while (left := min(self._last + _QUIET_S, settled) - time.monotonic()) > 0:
                self._changed.wait(left)

    def _store(self, documents: dict[str, D], key: str, document: D | None) -> None:
        with self._change():
            self._unconfirmed.heard(documents, key)
            _set(documents, key, document)

    def _on_load(self, node: str, load: m.NodeLoad | None) -> None:
        with self._change(is_telemetry=True):
            self._unconfirmed.heard(self.loads, node)
            _set(self.loads, node, load)

    def _on_state(self, node: str, state: m.NodeState | None) -> None:
        with self._change():
            self._unconfirmed.heard(self._states, node)
            _set(self._states, node, state)
            self.nodes.update(node, state)

    def _on_disconnect(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._change():
            named = (self.profiles, self.settings, self.reported, self.loads, self.tasks, self.plans, self.routes)
            self._unconfirmed.link_down([*named, self.bindings, self.reports, self._states])

    def _on_reconnect(self) -> None:
        """Asks for a roll call: after it, what has not arrived again was removed while the connection was down."""
        if self._asker is not None:
            ask_who_is_there(self.link, self._asker)
            self._timer = self._loop.after(EVERY_S + LATEST_S + _QUIET_S, self._drop_removed)

    def _drop_removed(self) -> None:
        with self._change():
            self._unconfirmed.drop()
            for node in (self.nodes.present | self.nodes.lost) - self._states.keys():
                self.nodes.update(node, None)

    def _on_planner(self, _: str, state: m.PlannerState | None) -> None:
        with self._change():
            self.planner = state

    def _on_bridge(self, _: str, state: b.BridgeState | None) -> None:
        with self._change():
            self.bridge = state

    def _on_event(self, _: str, event: m.Event | None) -> None:
        with self._change(is_telemetry=True):
            if event is not None:
                self.events, self.events_heard = [*self.events[-_EVENTS:], event], self.events_heard + 1

    @contextmanager
    def _change(self, *, is_telemetry: bool = False) -> Iterator[None]:
        with self._changed:
            yield
            if not is_telemetry:
                self._last = time.monotonic()
            self._changed.notify_all()


def _set(documents: dict[str, D], key: str, document: D | None) -> None:
    if document is None:
        documents.pop(key, None)
    else:
        documents[key] = document
