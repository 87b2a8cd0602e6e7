"""What bench/site.py sees of a site: when each route changed, the gateway of each task, and the planner."""

import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from typing import Self

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message, Outgoing
from s2m3.broker.node_states import NodeStates
from s2m3.schemas import messages as m
from s2m3.schemas import topics
from s2m3.schemas.errors import NoCapacityError
from s2m3.schemas.settings import BrokerSettings

__all__ = ["Observer"]

_LOOK_S = 0.05


class Observer:
    """A view of routes, plans and states, with the time of each change. Times are monotonic seconds.

    Args:
        settings: Where the broker is.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self.nodes = NodeStates()
        self.routes: dict[str, m.RouteDoc] = {}
        #: task -> the nodes that its route names
        self.named: dict[str, frozenset[str]] = {}
        #: node -> tasks whose gateway its plan names
        self.gateways: dict[str, list[str]] = {}
        #: every route that came: when, task, the nodes that it names
        self.changes: list[tuple[float, str, frozenset[str]]] = []
        #: node -> when its loss was published
        self.lost_at: dict[str, float] = {}
        #: how often the planner's connection was lost
        self.offline = 0
        #: topic family -> bytes of its largest document; bytes of all that came
        self.largest: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self._last = time.monotonic()
        self._changed, self._pause = threading.Condition(), threading.Event()
        self._loop = Loop("observer")
        self._link = Link(settings, f"s2m3-observer-{secrets.token_hex(6)}", self._loop)

    def __enter__(self) -> Self:
        self._loop.start()
        self._link.start()
        listen(self._link, topics.PLANNER_STATE, self._on_planner)
        listen(self._link, topics.NODE_STATE, self._on_state)
        self._link.subscribe(topics.ROUTE.all(self._settings.root), self._on_route)
        self._link.subscribe(topics.PLAN.all(self._settings.root), self._on_plan)
        return self

    def __exit__(self, *_: object) -> None:
        self._link.stop()
        self._loop.stop()

    def publish(self, path: topics.TopicPath, payload: bytes, **ids: str) -> None:
        """Publishes one document, without waiting for the broker."""
        self._link.publish(Outgoing(path.at(self._settings.root, **ids), payload, retain=path.retain))

    def wait(self, until: Callable[[], bool], timeout_s: float) -> bool:
        """Waits until a condition holds, looked at often, but not for each message; returns whether it does."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            with self._changed:
                if until():
                    return True
            self._pause.wait(_LOOK_S)
        return False

    def wait_quiet(self, quiet_s: float, timeout_s: float) -> bool:
        """Waits until no route and no plan has come for a while; returns whether that was so in time."""
        deadline = time.monotonic() + timeout_s
        with self._changed:
            while (left := self._last + quiet_s - time.monotonic()) > 0 and time.monotonic() < deadline:
                self._changed.wait(left)
            return time.monotonic() < deadline

    def served(self, task: str) -> bool:
        """Whether a plain request of a task would be answered: each step has a present node, and there is a gateway."""
        doc = self.routes.get(task)
        return doc is not None and doc.ready_on(self.nodes.present) and task in self._with_gateway()

    def all_served(self, tasks: set[str]) -> bool:
        """Whether plain requests of all these tasks would be answered, but for those whose route says: no capacity."""
        present, gateways = self.nodes.present, self._with_gateway()
        placed = tasks - self.without_room()
        return tasks <= gateways and all(t in self.routes and self.routes[t].ready_on(present) for t in placed)

    def without_room(self) -> set[str]:
        """Returns the tasks whose route says that their modules do not fit."""
        codes = {task: doc.error.code for task, doc in self.routes.items() if doc.error is not None}
        return {task for task, code in codes.items() if code == NoCapacityError.code}

    def naming(self, nodes: AbstractSet[str]) -> set[str]:
        """Returns the tasks whose route names one of these nodes."""
        return {task for task, named in self.named.items() if named & nodes}

    def _with_gateway(self) -> set[str]:
        return {task for node in self.nodes.present for task in self.gateways.get(node, ())}

    def _on_route(self, message: Message) -> None:
        with self._change():
            self._measure("route", message)
            task = message.topic.rpartition("/")[2]
            if not message.payload:
                self.routes.pop(task, None)
                self.named.pop(task, None)
                return
            doc = self.routes[task] = topics.ROUTE.decode(message.payload)
            self.named[task] = frozenset(r.node for step in doc.steps.values() for r in step.replicas)
            self.changes.append((time.monotonic(), task, self.named[task]))

    def _on_plan(self, message: Message) -> None:
        with self._change():
            self._measure("plan", message)
            node = message.topic.rpartition("/")[2]
            self.gateways[node] = topics.PLAN.decode(message.payload).gateways if message.payload else []

    def _on_state(self, node: str, state: m.NodeState | None) -> None:
        with self._changed:
            self.nodes.update(node, state)
            if state is not None and state.state == "lost":
                self.lost_at[node] = time.monotonic()
            self._changed.notify_all()

    def _on_planner(self, _: str, state: m.PlannerState | None) -> None:
        if state is not None and state.state == "offline":
            self.offline += 1

    def _measure(self, family: str, message: Message) -> None:
        self.largest[family] = max(self.largest[family], len(message.payload))
        self.bytes[family] += len(message.payload)

    @contextmanager
    def _change(self) -> Iterator[None]:
        with self._changed:
            yield
            self._last = time.monotonic()
            self._changed.notify_all()
