"""Chooses the node of each step of a request by the least estimated finish time. Pure."""

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from s2m3.broker.requests.rounding import pays
from s2m3.schemas.messages import Replica, RouteDoc, RouteStep
from s2m3.schemas.wire.work import Hop, Route

__all__ = ["Backlog", "Router"]


@dataclass(slots=True)
class Backlog:
    """The known load: items per (node, module)."""

    #: queue lengths that nodes published (`node/<node>/load`)
    queued: dict[tuple[str, str], int] = field(default_factory=dict)
    #: in flight: sent by this requester and not answered yet
    inflight: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))

    def items(self, node: str, module: str) -> int:
        """Returns the items ahead of a new one: the larger count, as the node's may include this requester's items."""
        key = (node, module)
        return max(self.queued.get(key, 0), self.inflight.get(key, 0))


@dataclass(frozen=True, slots=True)
class _Step:
    """A step of the task with everything that is the same for each request, computed once."""

    name: str
    module: str
    replicas: tuple[Replica, ...]
    hops: Mapping[str, Hop]
    #: kB of the request's raw inputs; None if the step takes none
    raw_kb: float | None
    #: (predecessor, kB that it sends)
    after: tuple[tuple[str, float], ...]
    #: whether the task tolerates that these are half as many over slow links
    halved: bool


class Router:
    """Chooses routes for the requests of one task.

    Args:
        doc: The task's route document: ready replicas and cost figures per step.
    """

    def __init__(self, doc: RouteDoc) -> None:
        self.doc = doc
        self._steps = [_read(doc, name) for name in _order(doc)]
        single = {step.name: next(iter(step.hops.values())) for step in self._steps if len(step.hops) == 1}
        #: the single route, if every step has exactly one replica
        self._single_route = {name: single[name] for name in doc.steps} if len(single) == len(doc.steps) else None

    def without(self, node: str) -> "Router":
        """Returns a router of the same task that does not know a node's replicas."""
        steps = {
            name: step.model_copy(update={"replicas": [r for r in step.replicas if r.node != node]})
            for name, step in self.doc.steps.items()
        }
        return Router(self.doc.model_copy(update={"steps": steps}))

    def choose(
        self, backlog: Backlog, *, lost: AbstractSet[str] = frozenset(), avoid: AbstractSet[str] = frozenset()
    ) -> Route | None:
        """Returns the route of one request, or None if a step has no ready replica.

        Steps are assigned in topological order, each to the replica that would finish it first, given the arrival of
        its inputs, the backlog of the node, and the steps of this request already assigned to the node. So two encoders
        run on different nodes where that is faster. A replica counts as if it took `price_ms` longer: a preferred node
        is taken as long as its queue is no longer than that.

        Args:
            backlog: Items queued and in flight.
            lost: Nodes that are lost; they are never used.
            avoid: Nodes that failed this request before; they are used only if no other node has the module.
        """
        if self._single_route is not None:
            return None if any(hop.node in lost for hop in self._single_route.values()) else self._single_route
        waiting = self._waiting(backlog)
        finish: dict[str, float] = {}
        chosen: dict[str, Replica] = {}
        for step in self._steps:
            alive = [replica for replica in step.replicas if replica.node not in lost]
            candidates = [replica for replica in alive if replica.node not in avoid] or alive
            if not candidates:
                return None
            ends = {
                replica.node: max(_inputs_arrive_ms(step, replica, finish, chosen), waiting[replica.node]) + replica.ms
                for replica in candidates
            }
            best = min(candidates, key=lambda replica: (ends[replica.node] + replica.price_ms, replica.node))
            chosen[step.name] = best
            finish[step.name] = waiting[best.node] = ends[best.node]
        hops = {step.name: step.hops[chosen[step.name].node] for step in self._steps}
        return {name: hops[name] for name in self.doc.steps}

    def _waiting(self, backlog: Backlog) -> dict[str, float]:
        """Returns the milliseconds of work ahead at each node, whose single worker runs one item at a time."""
        ahead: dict[str, float] = defaultdict(float)
        seen = set()
        for step in self._steps:
            for replica in step.replicas:
                if (replica.node, step.module) not in seen:
                    seen.add((replica.node, step.module))
                    ahead[replica.node] += backlog.items(replica.node, step.module) * replica.ms
        return ahead


def _read(doc: RouteDoc, name: str) -> _Step:
    step = doc.steps[name]
    outputs, raw = tuple(step.outputs), any(ref.startswith("input.") for ref in step.inputs.values())
    return _Step(
        name,
        step.module,
        tuple(step.replicas),
        {replica.node: Hop(step.module, replica.node, step.inputs, outputs) for replica in step.replicas},
        step.input_kb if raw else None,
        tuple((before, doc.steps[before].output_kb) for before in step.after),
        bool(doc.tolerance),
    )


def _order(doc: RouteDoc) -> list[str]:
    """Returns the steps in topological order; of steps that become ready together, the longest first."""
    sorter = TopologicalSorter({name: step.after for name, step in doc.steps.items()})
    sorter.prepare()
    order: list[str] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready(), key=lambda name: (-_ms(doc.steps[name]), name))
        order += ready
        sorter.done(*ready)
    return order


def _ms(step: RouteStep) -> float:
    return min((replica.ms for replica in step.replicas), default=0.0)


def _inputs_arrive_ms(step: _Step, at: Replica, finish: Mapping[str, float], chosen: Mapping[str, Replica]) -> float:
    """Returns when all inputs of a step arrive at a node, ms, by the cost model's transfer times."""
    ready = 0.0 if step.raw_kb is None else at.latency_ms + 8 * step.raw_kb / at.mbps
    for before, kb in step.after:
        source = chosen[before]
        moved = 0.0
        if source.node != at.node:
            mbps = min(source.mbps, at.mbps)
            moved = source.latency_ms + at.latency_ms + (4 if step.halved and pays(mbps) else 8) * kb / mbps
        ready = max(ready, finish[before] + moved)
    return ready
