"""A requester's knowledge of the site (routes of tasks, states and loads of nodes), and the choice of routes. Pure."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from s2m3.broker.node_states import NodeStates
from s2m3.broker.requests.generation_options import with_generation_options
from s2m3.broker.requests.pending import Pending
from s2m3.broker.requests.ranks import Chosen, RankedRouter
from s2m3.broker.requests.reachability import Reachability
from s2m3.broker.requests.rounding import with_tolerance
from s2m3.broker.requests.routing import Backlog
from s2m3.schemas.messages import NodeState, RouteDoc
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.work import Route

__all__ = ["RoutingTable"]


class RoutingTable:
    """The documents that routes are chosen from."""

    def __init__(self) -> None:
        #: task -> its newest route document
        self.routers: dict[str, RankedRouter] = {}
        self.nodes = NodeStates()
        self.backlog = Backlog()
        self.reach = Reachability()
        #: task -> epoch and revision of the newest route document that arrived on this connection
        self._newest: dict[str, tuple[int, int]] = {}

    def take_route(self, task: str, doc: RouteDoc | None) -> bool:
        """Sets a task's route document (None: the task was removed); returns whether the document is used.

        A document older than one that arrived on the same connection is ignored: it is late, or of a planner that is
        no longer the leader. On a new connection any document is accepted first: the broker may have lost its state,
        and a planner whose clock is behind may have started there with a lower epoch.
        """
        if doc is None:
            self.routers.pop(task, None)
            self._newest.pop(task, None)
            return True
        stamp = (doc.epoch, doc.revision)
        if stamp < self._newest.get(task, stamp):
            return False
        self._newest[task] = stamp
        self.routers[task] = RankedRouter(doc)
        return True

    def link_down(self) -> None:
        """Handles a lost connection: no node counts as present until its state arrives again."""
        self._newest.clear()
        self.nodes.forget()
        self.backlog.queued.clear()
        self.reach.suspend()

    def take_node(self, node: str, state: NodeState | None) -> tuple[bool, bool]:
        """Takes a node's state; returns whether the state is new, and whether the node's earlier process is gone."""
        boot = self.nodes.boot(node)
        is_new = self.nodes.update(node, state)
        if state is None:
            self.reach.forget(node)
        if not is_new or state is None:
            return False, False
        new_process = boot not in (None, state.boot)
        if new_process:  # it has loaded nothing yet, but the route documents still name the old process's modules
            self.routers = {task: router.without(node) for task, router in self.routers.items()}
        if gone := new_process or state.state == "lost":
            self.take_load(node, {})
            self.reach.forget(node)
        return True, gone

    def take_load(self, node: str, queues: Mapping[str, int]) -> None:
        """Sets the queue length of each module at a node."""
        kept = {key: items for key, items in self.backlog.queued.items() if key[0] != node}
        self.backlog.queued = kept | {(node, module): items for module, items in queues.items()}

    def choose(self, pending: Pending, now: float, *, avoid: AbstractSet[str] = frozenset()) -> Chosen | None:
        """Returns a route for a request: at its rank or below, else above it; None if no model has one.

        Args:
            pending: The request.
            now: Monotonic seconds.
            avoid: Nodes to avoid, besides those that failed it and those that are silent.
        """
        router = self.routers.get(pending.task)
        if router is None:
            return None
        return self._heard_first(router, pending, now, avoid=pending.avoid | avoid, lost=self.nodes.lost)

    def _heard_first(
        self, router: RankedRouter, pending: Pending, now: float, *, avoid: AbstractSet[str], lost: AbstractSet[str]
    ) -> Chosen | None:
        """Returns a request's route, over a node that is silent only where no other has the module.

        A node that failed the request is asked before one that is silent.
        """
        silent = self.reach.silent(now)
        chosen = router.choose(self.backlog, lost=lost, avoid=avoid | silent, best=pending.rank)
        if chosen is None or not silent or not chosen.nodes & silent:
            return chosen
        heard = router.choose(self.backlog, lost=lost | silent, avoid=avoid, best=pending.rank)
        return heard if heard is not None and heard.doc.rank == chosen.doc.rank else chosen

    def with_options(self, chosen: Chosen, options: Options, *, stream: bool) -> Route:
        """Returns a chosen route with the request's generation options and the task's tolerance at its steps."""
        route = with_tolerance(chosen.doc, chosen.route, self.nodes.protocol)
        return with_generation_options(chosen.doc, route, options, self.nodes.protocol, stream=stream)

    def below(self, pending: Pending, now: float, *, avoid: AbstractSet[str] = frozenset()) -> Chosen | None:
        """Returns a route for a request along the best model below its rank that has one; None if none has."""
        router = self.routers.get(pending.task)
        if router is None:
            return None
        silent = self.reach.silent(now)
        heard = router.below(pending.rank, self.backlog, self.nodes.lost | silent, pending.avoid | avoid)
        return heard or router.below(pending.rank, self.backlog, self.nodes.lost, pending.avoid | avoid | silent)

    def elsewhere(self, pending: Pending, now: float) -> Chosen | None:
        """Returns a route for a request without an answer: over other nodes than those that it was sent to.

        Without such a route: one that leaves out the silent ones of its nodes, else that of a lower model, else one
        that leaves out a single node (a silent one first, then one never heard, then the one heard longest ago), else
        the route as it was.
        """
        used = frozenset(hop.node for hop in (pending.route or {}).values())
        other = self.choose(pending, now, avoid=used)
        if other is None or other.doc.rank > pending.rank or not other.nodes & (pending.avoid | used):
            return other
        silent = used & self.reach.silent(now)
        heard = self._without(silent, pending, now) if silent else None
        if heard is not None and not heard.nodes & pending.avoid:
            return heard
        lower = self.below(pending, now, avoid=used)
        if lower is not None and not (heard is not None and lower.nodes & self.reach.silent(now)):
            return lower
        if heard is not None:
            return heard
        order = [*self.reach.by_silence(silent), *self.reach.by_silence(used - silent)]
        each = (self._without({node}, pending, now) for node in order)
        return next((one for one in each if one is not None), other)

    def heard_elsewhere(self, pending: Pending, now: float) -> Chosen | None:
        """Returns the route of `elsewhere` if a node of the request is silent and none of that route; else None."""
        silent = self.reach.silent(now)
        is_due = any(hop.node in silent for hop in (pending.route or {}).values())
        other = self.elsewhere(pending, now) if is_due else None
        return other if other is not None and not other.nodes & silent else None

    def _without(self, nodes: AbstractSet[str], pending: Pending, now: float) -> Chosen | None:
        """Returns a route at a request's rank that uses none of some nodes; None if there is none."""
        router, lost = self.routers[pending.task], self.nodes.lost | nodes
        chosen = self._heard_first(router, pending, now, avoid=pending.avoid, lost=lost)
        return chosen if chosen is not None and chosen.doc.rank == pending.rank else None

    def has_other_replica(self, pending: Pending, now: float) -> bool:
        """Returns whether the model that a request was sent to has a route over nodes that have not failed it."""
        other = self.choose(pending, now)
        return other is not None and other.doc.rank == pending.rank and not other.nodes & pending.avoid

    def reserve_s(self, pending: Pending, left_s: float) -> float:
        """Returns the seconds, of those left, that a request keeps for the rank below its own; 0 if there is none."""
        router = self.routers.get(pending.task)
        return router.reserve_s(pending.rank, left_s, self.backlog, self.nodes.lost) if router is not None else 0.0
