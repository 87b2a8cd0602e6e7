"""A requester's subscriptions: the routes of the tasks that it uses, and states and loads of the nodes that they name.

On a large site a requester that subscribed to everything would receive every node's heartbeat, and keep every route.
The brokers of a cluster may not deliver retained messages to clients of another broker of the cluster: a roll call asks
for documents that do not arrive.
"""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial

import structlog

from s2m3.broker.event_loop import Loop
from s2m3.broker.mqtt.documents import listen
from s2m3.broker.mqtt.link import Link
from s2m3.broker.mqtt.message import Message
from s2m3.broker.requests.removed_routes import RemovedRoutes
from s2m3.broker.roll_call import ask_who_is_there
from s2m3.broker.roll_call_times import EVERY_S, LATEST_S
from s2m3.schemas import topics
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.ids import is_id
from s2m3.schemas.messages import NodeLoad, NodeState, RouteDoc

__all__ = ["RouteSubscriptions"]

_log = structlog.get_logger(__name__)
#: Longest time that a route waits for the states of the nodes that it names: the broker may not retain one of them.
_STATE_S = 0.3
#: Interval of the look for missing documents: retained messages arrive right after the SUBACK.
_LOOK_S = 0.5
#: Longest time between two roll calls for the same missing documents: the interval doubles up to this.
_LONGEST_S = 300.0


class RouteSubscriptions:
    """Subscribes to the documents that requests of some tasks need. All methods run in the loop's thread.

    `on_route` gets a route once the states of its nodes are known, which say which nodes are lost and the protocol
    number of each.

    Args:
        link: The requester's connection.
        loop: The event loop that runs the link's handlers.
        on_route: Called with a task and its route; with None when the task was removed.
        on_state: Called with a node and its state; with None when it was cleared, or no route names the node any more.
        on_load: Called with a node and its load.
        on_retained: Called with a task once all retained messages have arrived since its route was subscribed to.
        probe: Sends a message to the own inbox, and calls back when it arrives: after all earlier messages.
    """

    def __init__(
        self,
        link: Link,
        loop: Loop,
        *,
        on_route: Callable[[str, RouteDoc | None], None],
        on_state: Callable[[str, NodeState | None], None],
        on_load: Callable[[str, NodeLoad | None], None],
        on_retained: Callable[[str], None],
        probe: Callable[[Callable[[], None]], None],
    ) -> None:
        self._link, self._loop = link, loop
        self._on_route, self._on_state, self._on_load = on_route, on_state, on_load
        self._on_retained, self._probe = on_retained, probe
        #: tasks whose route would have arrived by now, and task -> the callbacks of `find`
        self._settled: set[str] = set()
        self._finders: dict[str, list[Callable[[bool], None]]] = {}
        #: all tasks' routes, once `list_all` was called
        self.listed: dict[str, RouteDoc] = {}
        self._is_listing = False
        #: task -> its topic filter
        self._tasks: dict[str, str] = {}
        #: names of the routes that the owner made (`put`)
        self._own: set[str] = set()
        #: task -> the nodes that its newest route names
        self._named: dict[str, frozenset[str]] = {}
        #: node -> number of tasks whose route names it
        self._users: Counter[str] = Counter()
        #: node -> the topic filter of its load
        self._nodes: dict[str, str] = {}
        #: nodes whose state the owner needs, whether or not a route names them
        self._watched: set[str] = set()
        #: nodes whose state has arrived
        self._known: set[str] = set()
        #: task -> a route that waits for states
        self._waiting: dict[str, RouteDoc] = {}
        #: whether the planner's retained state has arrived: then a task without a route does not exist
        self._is_retaining = False
        self._is_looking = self._may_not_ask = False
        self._asked_for: frozenset[str] = frozenset()
        self._asked_at, self._wait_s = float("-inf"), EVERY_S
        self._removed = RemovedRoutes(
            loop,
            known=lambda: {*self._named, *self.listed} - self._own,
            ask=self._ask_by_name,
            end=self._end_asking,
            removed=partial(self._on_followed, doc=None),
            roll_call=lambda: ask_who_is_there(link, "requester", self._refused),
            probe=probe,
            is_retaining=lambda: self._is_retaining,
        )

    def start(self) -> None:
        """Subscribes to the planner's state."""
        planner = topics.PLANNER_STATE.at(self._link.root)
        self._link.subscribe(planner, self._planner, required=False)  # a client's login need not be able to read it

    def link_down(self) -> None:
        """Handles a lost connection."""
        self._is_retaining = False
        self._removed.link_down()

    def link_up(self) -> None:
        """Handles a new connection, at the SUBACK: routes that were removed meanwhile will not arrive."""
        self._removed.link_up()

    def watch(self, node: str) -> None:
        """Subscribes to a node's state until `unwatch`, for an owner that needs it."""
        if node not in self._watched:
            self._watched.add(node)
            if node not in self._nodes:
                listen(self._link, topics.NODE_STATE, self._state, node=node)

    def unwatch(self, node: str) -> None:
        """Ends what `watch` began."""
        if node in self._watched:
            self._watched.discard(node)
            if node not in self._nodes:
                self._forget_state(node)

    def follow(self, task: str) -> bool:
        """Subscribes to a task's route; returns False if that has been done, or if no task can have this name."""
        if task not in self._tasks and task not in self._own and is_id(task):
            came = partial(self._probe, partial(self._came, task))
            self._tasks[task] = listen(self._link, topics.ROUTE, self._on_followed, on_subscribed=came, task=task)
            self._look_later()
            return True
        return False

    def find(self, task: str, on_found: Callable[[bool], None]) -> None:
        """Calls back with whether a followed task has a route, once that has arrived or all else that is retained."""
        if task in self._named or task in self._settled or task not in self._tasks:
            on_found(task in self._named)
        else:
            self._finders.setdefault(task, []).append(on_found)

    def _found(self, task: str) -> None:
        for on_found in self._finders.pop(task, ()):
            on_found(task in self._named)

    def _settle(self, task: str) -> None:
        """Handles the arrival of everything that is retained since a task's route was subscribed to."""
        self._settled.add(task)
        self._on_retained(task)
        self._found(task)

    def list_all(self, on_listed: Callable[[], None]) -> None:
        """Subscribes to all tasks' routes; `on_listed` is called once those that the broker retains are known."""
        self._is_listing = True
        listen(self._link, topics.ROUTE, self._list, on_subscribed=partial(self._probe, on_listed))

    def _ask_by_name(self, tasks: list[str]) -> None:
        for task in tasks:
            if task in self._tasks:  # only a new subscription brings the retained message on every broker
                self._link.unsubscribe(self._tasks[task])
            listen(self._link, topics.ROUTE, self._on_followed, task=task)

    def _end_asking(self, tasks: list[str]) -> None:
        for task in tasks:
            if task not in self._tasks:
                self._link.unsubscribe(topics.ROUTE.at(self._link.root, task=task))

    def _list(self, task: str, doc: RouteDoc | None) -> None:
        self._removed.heard(task)
        if doc is None:
            self.listed.pop(task, None)
        else:
            self.listed[task] = doc

    def _on_followed(self, task: str, doc: RouteDoc | None) -> None:
        if self._is_listing:  # a message on a topic that has a handler of its own is given to no other one
            self._list(task, doc)
        if task in self._tasks:
            self._removed.heard(task)
            self._route(task, doc)

    def put(self, name: str, doc: RouteDoc | None) -> None:
        """Takes a route of the owner's own, e.g. a part of a task's, under a name that no task has; None removes it.

        Nobody publishes it: replicas are those of this moment, without the nodes that are lost since.
        """
        if doc is not None:
            self._own.add(name)
        if name in self._own:
            self._route(name, doc)

    def unfollow(self, task: str) -> None:
        """Ends the subscription to a task's route, and to nodes that no other route names."""
        if (topic_filter := self._tasks.pop(task, None)) is not None:
            self._settled.discard(task)
            self._link.unsubscribe(topic_filter)
            self._removed.heard(task)
            self._route(task, None)
            self._found(task)

    def _route(self, task: str, doc: RouteDoc | None) -> None:
        steps = doc.steps.values() if doc is not None else ()
        named = frozenset(replica.node for step in steps for replica in step.replicas)
        before = self._named.pop(task, frozenset())
        self._waiting.pop(task, None)
        if doc is not None:
            self._named[task] = named
            self._found(task)
        self._users.update(named - before)
        for node in named - before:
            if self._users[node] == 1:
                self._follow_node(node)
        if doc is None or named <= self._known:
            self._on_route(task, doc)
        else:
            self._waiting[task] = doc
            self._loop.after(_STATE_S, partial(self._release, task, doc))
        for node in before - named:
            self._users[node] -= 1
            if not self._users[node]:
                self._unfollow_node(node)

    def _release(self, task: str, doc: RouteDoc) -> None:
        """Gives `on_route` a route although the states of some of its nodes did not arrive."""
        if self._waiting.get(task) is doc:
            del self._waiting[task]
            self._on_route(task, doc)

    def _planner(self, message: Message) -> None:
        self._is_retaining = self._is_retaining or message.retain

    def _came(self, task: str) -> None:
        """Handles the end of the retained messages; other documents arrive as answers to a roll call."""
        if self._is_retaining or self._may_not_ask or task in self._named:
            self._settle(task)
        else:
            self._loop.after(EVERY_S + LATEST_S, partial(self._settle, task))

    def _refused(self, _: S2M3Error) -> None:
        """Notes that this login may not ask for a roll call: missing documents will not arrive."""
        self._may_not_ask = True
        for task in self._tasks.keys() - self._named.keys():
            self._settle(task)

    def _missing(self) -> frozenset[str]:
        """Returns the missing documents: states of nodes in use, and routes of tasks that may exist."""
        routes = () if self._is_retaining else (f"route/{task}" for task in self._tasks if task not in self._named)
        return frozenset(routes).union(f"node/{node}/state" for node in self._nodes if node not in self._known)

    def _look_later(self) -> None:
        if not self._is_looking:
            self._is_looking = True
            self._loop.after(_LOOK_S, self._look)

    def _look(self) -> None:
        """Asks for a roll call if documents are missing that the broker would have delivered by now."""
        self._is_looking = False
        missing, now = self._missing(), time.monotonic()
        if not missing:
            return
        if missing - self._asked_for:
            self._wait_s = EVERY_S
        if self._link.connected and now >= self._asked_at + self._wait_s:
            self._wait_s = EVERY_S if missing - self._asked_for else min(2 * self._wait_s, _LONGEST_S)
            self._asked_at, self._asked_for = now, missing
            ask_who_is_there(self._link, "requester", self._refused)
        self._look_later()

    def _follow_node(self, node: str) -> None:
        self._nodes[node] = listen(self._link, topics.NODE_LOAD, self._on_load, node=node)
        if node not in self._watched:
            listen(self._link, topics.NODE_STATE, self._state, node=node)
        self._look_later()

    def _unfollow_node(self, node: str) -> None:
        del self._users[node]
        self._link.unsubscribe(self._nodes.pop(node))
        if node not in self._watched:
            self._forget_state(node)
        self._on_load(node, None)

    def _forget_state(self, node: str) -> None:
        self._link.unsubscribe(topics.NODE_STATE.at(self._link.root, node=node))
        self._known.discard(node)
        self._on_state(node, None)

    def _state(self, node: str, state: NodeState | None) -> None:
        self._known.add(node)
        self._on_state(node, state)
        for task in [task for task in self._waiting if self._named[task] <= self._known]:
            self._on_route(task, self._waiting.pop(task))
