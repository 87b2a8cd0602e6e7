"""Route documents: the steps of each task's models, the ready copies of each step, and which model answers. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from s2m3.planner.site.cluster_state import ClusterState
from s2m3.planner.site.known_routes import KnownRoutes
from s2m3.planner.site.placement import Placement
from s2m3.planner.site.rank_routes import rank_route
from s2m3.planner.site.stand_in_inputs import fixed_inputs
from s2m3.planner.solving.preferences import prices_s
from s2m3.schemas.definitions import ModelSpec, ModuleSpec
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.instance import PREFERENCE_S
from s2m3.schemas.messages import ErrorBody, RankRoute, Replica, RouteDoc, RouteStep

__all__ = ["TaskRoutes"]


class _Copy(NamedTuple):
    """A ready copy of a module: its node's weight, and times and speeds with two digits."""

    node: str
    weight: float
    ms: float
    latency_ms: float
    mbps: float


@dataclass(frozen=True, slots=True)
class TaskRoutes:
    """Makes the routes of tasks, without epoch and revision.

    Args:
        cluster: The cluster state.
        placement: The placement.
        holders: Module -> nodes that are to hold it now.
        answering: Rank of the model that answers each task with stand-ins.
        known: The routes of the last plan.
    """

    cluster: ClusterState
    placement: Placement
    holders: Mapping[str, list[str]]
    answering: Mapping[str, int | None]
    known: KnownRoutes = field(default_factory=KnownRoutes)
    #: module -> its ready copies, once they were asked for
    _copies: dict[str, tuple[_Copy, ...]] = field(default_factory=dict)

    def of(self, task: str, now: float) -> RouteDoc:
        """Returns the route of a task."""
        if task in self.answering:
            return self._of_ranks(task, self.answering[task], now)
        spec, model = self.cluster.tasks[task], self.cluster.model_of(task)
        why_not, asleep = self._why_not(task)
        if model is None:
            return RouteDoc(epoch=0, revision=0, model=spec.model, deadline_s=spec.deadline_s, error=why_not)
        modules = [self.cluster.catalogue.modules[module] for module in model.module_ids]
        content = spec, model, why_not, asleep, modules, [self._ready(module) for module in modules]
        return self.known.of(task, content, partial(self._of_one, task, model, why_not, asleep))

    def _of_one(self, task: str, model: ModelSpec, why_not: ErrorBody | None, asleep: list[str]) -> RouteDoc:
        """Returns the route of a task without stand-ins."""
        spec, steps = self.cluster.tasks[task], self._steps(task, model)
        if all(step.replicas for step in steps.values()):  # it has no placement, but its old copies still serve it
            why_not = None
        return self._doc(
            task,
            model=model.id,
            inputs=model.inputs,
            defaults=spec.inputs,
            answer=model.answer,
            threshold=spec.threshold,
            steps=steps,
            error=why_not,
            asleep=asleep,
        )

    def _doc(self, task: str, **of_model: Any) -> RouteDoc:
        """Returns a route: the fields that belong to the task, and the given fields of the model that answers."""
        spec, best = self.cluster.tasks[task], self.cluster.model_of(task)
        return RouteDoc(
            epoch=0,
            revision=0,
            description=best.description if best is not None else "",
            options=spec.options,
            deadline_s=spec.deadline_s,
            tolerance=spec.tolerance,
            **of_model,
        )

    def _why_not(self, task: str) -> tuple[ErrorBody | None, list[str]]:
        """Returns the reason why a task cannot be served, and the sleeping nodes that would serve it better."""
        why_not, asleep = _body(self.placement.errors.get(task)), self.placement.asleep.get(task, [])
        if why_not is not None and asleep:
            sleeps = f"it would fit on {' and '.join(asleep)}, asleep: `s2m3 status` says what is done about it"
            why_not = why_not.model_copy(update={"detail": f"{why_not.detail}; {sleeps}"})
        return why_not, asleep

    def _of_ranks(self, task: str, answering: int | None, now: float) -> RouteDoc:
        """Returns the route of a task with stand-ins: of each model, and of the one in use for readers of one model."""
        spec, unsteady = self.cluster.tasks[task], self.cluster.steadiness.unsteady(task, now)
        ranks = [self._rank(task, rank) for rank in range(len(spec.ranks))]
        ranks = [_without_copies(r) if rank in unsteady and rank != answering else r for rank, r in enumerate(ranks)]
        # readers of one model give the request's inputs, so not to a model that takes another kind of the same name
        is_plain = [bool(r.steps) and not r.fixed.keys() & ranks[0].inputs.keys() for r in ranks]
        known = next((rank for rank, r in enumerate(ranks) if r.steps), 0)
        used = answering if answering is not None and is_plain[answering] else known
        one = ranks[used]
        why_not, asleep = self._why_not(task)
        if answering is not None or not one.steps:
            why_not = None if one.steps else one.error
        return self._doc(
            task,
            model=one.model,
            inputs={**ranks[0].inputs, **one.inputs},
            defaults={**spec.inputs, **one.fixed},
            answer=one.answer,
            threshold=one.threshold,
            steps=one.steps,
            error=why_not,
            asleep=asleep,
            rank=used,
            ranks=ranks,
        )

    def _rank(self, task: str, rank: int) -> RankRoute:
        spec, model = self.cluster.tasks[task], self.cluster.ranks_of(task)[rank]
        if isinstance(model, S2M3Error):
            return RankRoute(model=spec.ranks[rank].model, error=_body(model))
        best = self.cluster.model_of(task)
        given = best.inputs if best is not None else model.inputs
        return rank_route(
            model,
            rank,
            self._steps(task, model),
            fixed=fixed_inputs(given, model.inputs, spec.ranks[rank].inputs, spec.inputs) if rank else {},
            threshold=spec.threshold if rank == 0 else None,  # calibrated on the best model's scores
            error=_body(self.placement.missed.get(task, {}).get(rank)),
        )

    def _steps(self, task: str, model: ModelSpec) -> dict[str, RouteStep]:
        """Returns a model's steps with the ready copies of each."""
        steps = {}
        for step_id, step in model.steps.items():
            module = self.cluster.catalogue.modules[step.module]
            steps[step_id] = RouteStep(
                module=module.id,
                inputs=step.inputs,
                outputs=list(model.wanted_outputs(step_id)),
                generates=module.generates,
                input_kb=module.input_kb,
                output_kb=module.output_kb,
                replicas=self._replicas(task, module),
            )
        return steps

    def _ready(self, module: ModuleSpec) -> tuple[_Copy, ...]:
        """Returns the ready copies of a module on nodes that are to hold it."""
        known = self._copies.get(module.id)
        if known is None:
            nodes = [node for node in self.cluster.ready_nodes(module.id) if node in self.holders.get(module.id, ())]
            known = self._copies[module.id] = tuple(self._copy(module, node) for node in nodes)
        return known

    def _copy(self, module: ModuleSpec, node: str) -> _Copy:
        latency_ms, mbps = self.cluster.link(node)
        ms, weight = self.cluster.seconds(module, node) * 1000, self.cluster.weight(node)
        return _Copy(node, weight, _rounded(ms), _rounded(latency_ms), _rounded(mbps))

    def _replicas(self, task: str, module: ModuleSpec) -> list[Replica]:
        """Returns the ready copies of a step, with what preferences count against each beside the most preferred."""
        copies = self._ready(module)
        prices = prices_s({copy.node: copy.weight for copy in copies}, self.cluster.tasks[task].prefer, PREFERENCE_S)
        least = min(prices.values(), default=0.0)
        return [
            Replica(
                node=copy.node,
                ms=copy.ms,
                latency_ms=copy.latency_ms,
                mbps=copy.mbps,
                price_ms=_rounded((prices[copy.node] - least) * 1000),
            )
            for copy in copies
        ]


def _body(error: S2M3Error | None) -> ErrorBody | None:
    return ErrorBody(**error.as_dict()) if error is not None else None


def _without_copies(one: RankRoute) -> RankRoute:
    """Returns the route of a model that has no ready copies yet."""
    steps = {name: step.model_copy(update={"replicas": []}) for name, step in one.steps.items()}
    return one.model_copy(update={"steps": steps})


def _rounded(value: float) -> float:
    """Rounds to two digits, so that a change of a few percent does not publish a new document."""
    return float(f"{value:.2g}")
