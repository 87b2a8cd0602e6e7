"""Which node does which step of a request: least estimated finish. Pure: facts in, route out."""

from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from graphlib import TopologicalSorter

from s2m3.schemas.messages import Replica, RouteDoc, RouteStep
from s2m3.schemas.wire.work import Hop, Route

__all__ = ["Backlog", "Router"]


@dataclass(slots=True)
class Backlog:
    """What is known of who is busy with what: items per (node, module)."""

    #: as nodes told (`node/<node>/load`)
    queued: dict[tuple[str, str], int] = field(default_factory=dict)
    #: sent by us and not answered yet
    inflight: dict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))

    def items(self, node: str, module: str) -> int:
        """Returns how many items are ahead of a new one: what we sent may be in the node's own count, so the larger."""
        key = (node, module)
        return max(self.queued.get(key, 0), self.inflight.get(key, 0))


@dataclass(frozen=True, slots=True)
class _Step:
    """A step as choosing needs it: what would be the same for each request is worked out once."""

    name: str
    module: str
    replicas: tuple[Replica, ...]
    hops: Mapping[str, Hop]
    #: kilobytes of the request's own inputs; None where it takes none
    raw_kb: float | None
    #: the steps it needs, and what each sends in kilobytes
    after: tuple[tuple[str, float], ...]


class Router:
    """Chooses routes by one task's document.

    Args:
        doc: The task's ready replicas and figures.
    """

    def __init__(self, doc: RouteDoc) -> None:
        self.doc = doc
        self._steps = [_read(doc, name) for name in _order(doc)]
        only = {step.name: next(iter(step.hops.values())) for step in self._steps if len(step.hops) == 1}
        #: where every step has one replica, there is nothing to choose
        self._only = {name: only[name] for name in doc.steps} if len(only) == len(doc.steps) else None

    def choose(
        self, backlog: Backlog, *, lost: AbstractSet[str] = frozenset(), avoid: AbstractSet[str] = frozenset()
    ) -> Route | None:
        """Returns the route of one request, or None when a step has no ready replica.

        Steps are taken in the order of the DAG; each goes to the replica that would finish it first, given when its
        inputs are there, what is waiting at that node, and which of the request's own steps already went to it. So two
        encoders go to different nodes where that is faster.

        Args:
            backlog: Who is busy.
            lost: Nodes that are gone: never used.
            avoid: Nodes that failed this request before: used only where there is no other.
        """
        if self._only is not None:
            return None if any(hop.node in lost for hop in self._only.values()) else self._only
        waiting = self._waiting(backlog)
        finish: dict[str, float] = {}
        chosen: dict[str, Replica] = {}
        for step in self._steps:
            alive = [replica for replica in step.replicas if replica.node not in lost]
            candidates = [replica for replica in alive if replica.node not in avoid] or alive
            if not candidates:
                return None
            ends = {
                replica.node: max(_inputs_there(step, replica, finish, chosen), waiting[replica.node]) + replica.ms
                for replica in candidates
            }
            best = min(candidates, key=lambda replica: (ends[replica.node], replica.node))
            chosen[step.name] = best
            finish[step.name] = waiting[best.node] = ends[best.node]
        hops = {step.name: step.hops[chosen[step.name].node] for step in self._steps}
        return {name: hops[name] for name in self.doc.steps}

    def _waiting(self, backlog: Backlog) -> dict[str, float]:
        """Milliseconds of work ahead at each node. One worker per node does one thing at a time (docs/placement.md)."""
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
    )


def _order(doc: RouteDoc) -> list[str]:
    """Steps after those they need; among equals the longest first, so that it gets the better node."""
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


def _inputs_there(step: _Step, at: Replica, finish: Mapping[str, float], chosen: Mapping[str, Replica]) -> float:
    """When the step's inputs would be at the node, in ms: the cost model's transfer times (docs/placement.md)."""
    ready = 0.0 if step.raw_kb is None else at.latency_ms + 8 * step.raw_kb / at.mbps
    for before, kb in step.after:
        source = chosen[before]
        moved = 0.0
        if source.node != at.node:
            moved = source.latency_ms + at.latency_ms + 8 * kb / min(source.mbps, at.mbps)
        ready = max(ready, finish[before] + moved)
    return ready
