"""Routes: what a requester needs to use a task; of a task with stand-ins (docs/stand-ins.md) for each of its models."""

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from s2m3.schemas.document import Document
from s2m3.schemas.ids import Id
from s2m3.schemas.notices import ErrorBody
from s2m3.schemas.protocol import Since
from s2m3.schemas.wire.values import Kind

__all__ = ["RankRoute", "Replica", "RouteDoc", "RouteStep"]


class Replica(Document):
    """A ready copy of a module: milliseconds per item, and latency (ms) and throughput (Mbit/s) to the broker."""

    node: Id
    ms: float = Field(ge=0)
    latency_ms: float = Field(default=0.0, ge=0)
    mbps: float = Field(default=1000.0, gt=0)
    #: what preferences count against this node, milliseconds: it is chosen as if it took so much longer
    price_ms: Annotated[float, Field(ge=0), Since(1)] = 0.0


class RouteStep(Document):
    """One step of a task: its module, the sources of its inputs, and the ready copies."""

    module: Id
    inputs: dict[str, str] = Field(min_length=1)
    outputs: list[str]
    #: the output that generation options shape: a text, token by token, or a sound
    generates: str | None = None
    #: kB per item of the request's own inputs, and of the outputs
    input_kb: float = 0.0
    output_kb: float = 0.0
    replicas: list[Replica] = []

    @property
    def after(self) -> tuple[str, ...]:
        """The steps whose outputs this step takes, each once."""
        steps = (ref.partition(".")[0] for ref in self.inputs.values())
        return tuple(dict.fromkeys(step for step in steps if step != "input"))


class RankRoute(Document):
    """The route of one of a task's models. Its steps have names of their own, so that no join mixes two models."""

    model: Id
    #: what the model takes
    inputs: dict[str, Kind] = {}
    #: the values of inputs that do not come from the request: the task has not this input, or in another kind
    fixed: dict[str, Any] = {}
    answer: list[str] = []
    threshold: float | None = None
    #: empty only if the model is unknown; then `error` is set
    steps: dict[Id, RouteStep] = {}
    #: why the model is not served now, if the planner knows
    error: ErrorBody | None = None

    def ready_on(self, nodes: frozenset[str]) -> bool:
        """Returns whether every step has a ready copy on one of these nodes."""
        return _are_ready(self.steps, nodes)


class RouteDoc(Document):
    """Everything that a requester needs to use a task, so that it needs no model definitions."""

    epoch: int = Field(ge=0)
    revision: int = Field(ge=0)
    model: Id
    #: what the model does, in a sentence for people
    description: Annotated[str, Since(1)] = ""
    inputs: dict[str, Kind] = {}
    defaults: dict[str, Any] = {}
    #: the task's default generation options
    options: dict[str, Any] = {}
    #: the outputs of the last step that are sent; the first one is the answer
    answer: list[str] = []
    deadline_s: float = Field(gt=0)
    threshold: Annotated[float | None, Since(1)] = None
    #: the task's: how far rounding between nodes may put a tensor's numbers (schemas/tasks.py)
    tolerance: Annotated[float, Field(ge=0, le=1), Since(1)] = 0.0
    #: empty only if the model is unknown; then `error` is set
    steps: dict[Id, RouteStep] = {}
    #: why the task cannot be served now, if the planner knows
    error: ErrorBody | None = None
    #: sleeping nodes that would serve it better: requesters tell `demand/<task>` of requests meanwhile
    asleep: Annotated[list[Id], Since(1)] = []
    #: whose the fields above are: of the best of `ranks` that answers now; readers of `ranks` choose for themselves
    rank: Annotated[int, Field(ge=0), Since(1)] = 0
    #: the task's models, the best first; empty: it has one
    ranks: Annotated[list[RankRoute], Since(1)] = []

    @property
    def by_rank(self) -> "tuple[RouteDoc, ...]":
        """The document as it would be with each of the task's models alone, the best first."""
        if not self.ranks:
            return (self,)
        return tuple(
            self.model_copy(
                update={
                    **{
                        name: getattr(one, name)
                        for name in ("model", "inputs", "answer", "threshold", "steps", "error")
                    },
                    "defaults": {**self.defaults, **one.fixed},
                    "rank": rank,
                    "ranks": [],
                }
            )
            for rank, one in enumerate(self.ranks)
        )

    @property
    def task_answer(self) -> list[str]:
        """The outputs that an answer of any of the models may have, each once, those of the best model first."""
        return list(dict.fromkeys(name for one in self.by_rank for name in one.answer))

    @property
    def task_inputs(self) -> dict[str, Kind]:
        """What requests of the task give: what its best model takes."""
        return next((one.inputs for one in self.ranks if one.inputs), self.inputs)

    @property
    def nodes(self) -> frozenset[str]:
        """The nodes that hold a ready copy of any step of any model."""
        routes = (self.steps, *(one.steps for one in self.ranks))
        return frozenset(replica.node for steps in routes for step in steps.values() for replica in step.replicas)

    @property
    def generates(self) -> bool:
        """Whether a step generates a text or a sound, so that requests may set generation options."""
        routes = (self.steps, *(one.steps for one in self.ranks))
        return any(step.generates for steps in routes for step in steps.values())

    def streams(self, step: str) -> bool:
        """Returns whether the answer is the text that a step generates, so that it can be streamed."""
        followed = any(step in other.after for other in self.steps.values())
        return not followed and bool(self.answer) and self.steps[step].generates == self.answer[0]

    @model_validator(mode="after")
    def _steps_or_why_not(self) -> Self:
        if self.error is None and not (self.steps and self.answer):
            raise ValueError("a route without steps has to say why")
        return self

    def ready_on(self, nodes: frozenset[str]) -> bool:
        """Returns whether every step of one of the models has a ready copy on one of these nodes."""
        return self.rank_on(nodes) is not None

    def rank_on(self, nodes: frozenset[str]) -> int | None:
        """Returns the best rank whose every step has a ready copy on one of these nodes; None if there is none."""
        if not self.ranks:
            return 0 if _are_ready(self.steps, nodes) else None
        return next((rank for rank, one in enumerate(self.ranks) if one.ready_on(nodes)), None)


def _are_ready(steps: Mapping[str, RouteStep], nodes: frozenset[str]) -> bool:
    return bool(steps) and all({r.node for r in step.replicas} & nodes for step in steps.values())
