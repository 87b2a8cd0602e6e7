"""The site as its topics tell it: read once for `status`, kept for `watch` and for whoever waits for something."""

import secrets
import threading
import time
from collections.abc import Callable
from typing import Self

from broker.link import Link
from broker.loop import Loop
from broker.message import Message, Outgoing
from broker.nodes import Nodes
from schemas import messages as m
from schemas import topics
from schemas.errors import S2M3Error
from schemas.settings import BrokerSettings

__all__ = ["Site"]

_CONFIRM_S = 5.0
#: After the broker has confirmed, retained messages come at once; this long without one more, and all are here.
_QUIET_S = 0.15


class Site:
    """A read-only view of everything, kept up to date.

    Args:
        settings: Where the broker is.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self.root = settings.root
        self.planner: m.PlannerState | None = None
        self.nodes = Nodes()
        self.profiles: dict[str, m.NodeProfile] = {}
        self.reported: dict[str, m.Reported] = {}
        self.loads: dict[str, m.NodeLoad] = {}
        self.tasks: dict[str, m.TaskSpec] = {}
        self.plans: dict[str, m.Plan] = {}
        self.routes: dict[str, m.RouteDoc] = {}
        self.events: list[m.Event] = []
        self._changed = threading.Condition()
        self._last = time.monotonic()
        name = f"view-{secrets.token_hex(6)}"
        self._loop = Loop(name)
        self.link = Link(settings, f"s2m3-{name}", self._loop)

    def __enter__(self) -> Self:
        self._loop.start()
        self.link.start()
        confirmed = threading.Event()
        for path in (
            topics.PLANNER_STATE,
            topics.NODE_PROFILE,
            topics.NODE_REPORTED,
            topics.NODE_LOAD,
            topics.TASK,
            topics.PLAN,
            topics.ROUTE,
            topics.EVENT,
        ):
            self.link.subscribe(path.all(self.root), self._keep, qos=path.qos)
        self.link.subscribe(topics.NODE_STATE.all(self.root), self._keep, then=confirmed.set)
        if not confirmed.wait(_CONFIRM_S):
            self.__exit__()
            raise S2M3Error(f"the broker did not confirm our subscriptions in {_CONFIRM_S:g} s")
        with self._changed:
            while (left := self._last + _QUIET_S - time.monotonic()) > 0:
                self._changed.wait(left)
        return self

    def __exit__(self, *_: object) -> None:
        self.link.stop()
        self._loop.stop()

    def wait(self, until: Callable[["Site"], bool], timeout_s: float) -> bool:
        """Waits until something holds of the site; returns whether it does, at the latest after the time."""
        with self._changed:
            return self._changed.wait_for(lambda: until(self), timeout_s)

    def publish(self, path: topics.TopicPath, payload: bytes, **ids: str) -> None:
        """Publishes one document and waits for the broker's acknowledgement.

        Raises:
            S2M3Error: There was none in time.
        """
        acknowledged = threading.Event()
        topic = path.at(self.root, **ids)
        self.link.publish(Outgoing(topic, payload, retain=path.retain), delivered=acknowledged.set)
        if not acknowledged.wait(_CONFIRM_S):
            raise S2M3Error(f"the broker did not acknowledge {topic} in {_CONFIRM_S:g} s")

    def ready(self, task: str) -> bool:
        """Whether every step of a task has a ready replica."""
        doc = self.routes.get(task)
        present = self.nodes.present
        return doc is not None and all({r.node for r in step.replicas} & present for step in doc.steps.values())

    def _keep(self, message: Message) -> None:
        with self._changed:
            self._last = time.monotonic()
            for path, keep in _KEEPERS:
                ids = path.ids(self.root, message.topic)
                if ids is not None:
                    keep(self, "".join(ids.values()), message.payload)
            self._changed.notify_all()


def _keeper(path: topics.Topic[m.Document], name: str) -> Callable[[Site, str, bytes], None]:
    def keep(site: Site, key: str, payload: bytes) -> None:
        try:
            document = path.decode(payload) if payload else None
        except S2M3Error:  # a view shows what it can read
            return
        kept = getattr(site, name)
        if document is None:
            kept.pop(key, None)
        else:
            kept[key] = document

    return keep


def _keep_state(site: Site, node: str, payload: bytes) -> None:
    try:
        site.nodes.update(node, topics.NODE_STATE.decode(payload) if payload else None)
    except S2M3Error:
        return


def _keep_planner(site: Site, _key: str, payload: bytes) -> None:
    try:
        site.planner = topics.PLANNER_STATE.decode(payload) if payload else None
    except S2M3Error:
        return


def _keep_event(site: Site, _key: str, payload: bytes) -> None:
    try:
        site.events = [*site.events[-99:], topics.EVENT.decode(payload)]
    except S2M3Error:
        return


_KEEPERS: tuple[tuple[topics.TopicPath, Callable[[Site, str, bytes], None]], ...] = (
    (topics.PLANNER_STATE, _keep_planner),
    (topics.NODE_STATE, _keep_state),
    (topics.EVENT, _keep_event),
    *(
        (path, _keeper(path, name))  # type: ignore[arg-type]  # each decodes its own document
        for path, name in (
            (topics.NODE_PROFILE, "profiles"),
            (topics.NODE_REPORTED, "reported"),
            (topics.NODE_LOAD, "loads"),
            (topics.TASK, "tasks"),
            (topics.PLAN, "plans"),
            (topics.ROUTE, "routes"),
        )
    ),
)
