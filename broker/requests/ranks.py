"""Routes of a task with stand-ins: the best model that has a route, and when a request goes down a rank. Pure."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from s2m3.broker.requests.routing import Backlog, Router
from s2m3.schemas.errors import BusyError, NoCapacityError, RequestTimeoutError, S2M3Error
from s2m3.schemas.messages import RouteDoc
from s2m3.schemas.wire.work import Route

__all__ = ["Chosen", "RankedRouter", "may_go_down"]

#: Of a request's deadline this is kept for the next rank: so many times what that rank is expected to take, and at
#: least so many seconds, but never more than a part of what is left.
_TIMES, _LEAST_S, _MOST_SHARE = 4.0, 1.0, 0.5


@dataclass(frozen=True, slots=True)
class Chosen:
    """A route along one of a task's models, and the route document reduced to that model (`RouteDoc.by_rank`)."""

    doc: RouteDoc
    route: Route

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes of the route."""
        return frozenset(hop.node for hop in self.route.values())


class RankedRouter:
    """The routers of one task, one for each of its models, the best first.

    Args:
        doc: The task's route document.
    """

    def __init__(self, doc: RouteDoc, routers: tuple[Router, ...] | None = None) -> None:
        self.doc = doc
        # a model without steps is not known to the planner
        self._routers = tuple(Router(one) for one in doc.by_rank if one.steps) if routers is None else routers

    def without(self, node: str) -> "RankedRouter":
        """Returns a router of the same task that does not know a node's replicas."""
        return RankedRouter(self.doc, tuple(router.without(node) for router in self._routers))

    def choose(
        self,
        backlog: Backlog,
        *,
        lost: AbstractSet[str] = frozenset(),
        avoid: AbstractSet[str] = frozenset(),
        best: int = 0,
    ) -> Chosen | None:
        """Returns a route along the best model that has one; None if none has.

        Args:
            backlog: Items queued and in flight.
            lost: Nodes that are lost; they are never used.
            avoid: Nodes that failed this request before; they are used only if no other node has the module.
            best: The best rank to use. Better ones are used only if no other has a route.
        """
        for router in sorted(self._routers, key=lambda router: router.doc.rank < best):  # stable: the best ranks first
            route = router.choose(backlog, lost=lost, avoid=avoid)
            if route is not None:
                return Chosen(router.doc, route)
        return None

    def below(self, rank: int, backlog: Backlog, lost: AbstractSet[str], avoid: AbstractSet[str]) -> Chosen | None:
        """Returns a route along the best model below a rank that has one; None if none has."""
        chosen = self.choose(backlog, lost=lost, avoid=avoid, best=rank + 1) if len(self._routers) > 1 else None
        return chosen if chosen is not None and chosen.doc.rank > rank else None

    def reserve_s(self, rank: int, left_s: float, backlog: Backlog, lost: AbstractSet[str]) -> float:
        """Returns the seconds, of those left, that a request at a rank keeps for the next one; 0 if there is none."""
        lower = self.below(rank, backlog, lost, frozenset())
        if lower is None:
            return 0.0
        expected_ms = sum(min(replica.ms for replica in step.replicas) for step in lower.doc.steps.values())
        return min(max(_TIMES * expected_ms / 1000, _LEAST_S), _MOST_SHARE * left_s)


def may_go_down(error: S2M3Error, now: float, busy_until: float) -> bool:
    """Returns whether an error is a reason to ask the next model: not if the request itself is wrong.

    Args:
        error: The error of a request at its rank.
        now: Monotonic seconds.
        busy_until: Until when a full queue is tried again at the same rank.
    """
    if isinstance(error, BusyError):
        return now >= busy_until
    return error.retriable or isinstance(error, RequestTimeoutError | NoCapacityError)
