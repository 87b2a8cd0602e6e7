"""The retained documents, telemetry and events: JSON without v5 properties, so that 3.1.1 clients read them too."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    PrivateAttr,
    ValidationInfo,
    model_validator,
)

from s2m3.schemas.definitions import Definition, ModuleSpec
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.ids import Id, is_id
from s2m3.schemas.protocol import PROTOCOL, ClosedList, Since, is_from_the_bus, newer_fields
from s2m3.schemas.specs import read_spec
from s2m3.schemas.wire.values import Kind

__all__ = [
    "ControlRequest",
    "ControlResponse",
    "ErrorBody",
    "Event",
    "ModuleReport",
    "NodeLoad",
    "NodeProfile",
    "NodeState",
    "Plan",
    "PlannerHealth",
    "PlannerState",
    "Replica",
    "Reported",
    "RollCall",
    "RouteDoc",
    "RouteStep",
    "StepTiming",
    "TaskSpec",
]


#: Of whoever says the document: what it reads. Absent means 0, the release before the number existed.
Protocol = Annotated[int, Field(ge=0), Since(1)]


class Document(BaseModel):
    """Unknown fields are let through: a node of a newer version must not blind an older one."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, populate_by_name=True)

    def encode(self, reader: int = PROTOCOL) -> bytes:
        """Returns the JSON, without the fields that a reader of that protocol number does not know."""
        newer = newer_fields(self, reader)
        return self.model_dump_json(exclude_none=True, by_alias=True, exclude=newer or None).encode()


class ErrorBody(Document):
    """An error as the bus carries it."""

    code: str
    detail: str
    step: str | None = None
    node: str | None = None


class NodeState(Document):
    """Whether a node takes work. Its last will is `lost` with the same boot."""

    state: Annotated[Literal["ready", "draining", "lost", "unknown"], ClosedList()]
    #: an agent process's uuid: a `lost` of another boot is an old will that came late
    boot: str
    protocol: Protocol = 0


class NodeProfile(Document):
    """What a device has and what it can load. Units: 10^6 bytes, 10^9 operations a second, milliseconds, megabits."""

    boot: str
    #: of the software, for people: `protocol` is what others go by
    version: str
    protocol: Protocol = 0
    #: for the whole agent process
    memory_mb: float = Field(gt=0)
    #: what the process takes before any module, with the runtimes it would import
    runtime_mb: float = Field(ge=0)
    gflops: float = Field(gt=0)
    latency_ms: float = Field(ge=0, description="to the broker and back, halved")
    mbps: float = Field(gt=0)
    #: seconds; it tells its load each HEARTBEAT of this, busy or not (0: an agent from before that)
    keepalive_s: float = Field(default=0.0, ge=0)
    #: which model sources and module classes it can load
    sources: list[str] = []
    classes: list[str] = []
    #: of the weights it loads, where their definition names none
    dtype: Dtype = "float32"
    #: whether it may be the gateway of a task; not behind a bridge between brokers (docs/scale.md)
    gateway: bool = Field(default=True, validation_alias="front", serialization_alias="front")


class ModuleReport(Document):
    """One module on one node, as the node sees it."""

    state: Annotated[Literal["loading", "ready", "failed", "unknown"], ClosedList()]
    progress: float = 0.0
    #: bytes of its tensors, once loaded
    bytes: int = 0
    #: what loading it added to the process, 10^6 bytes
    memory_mb: float = 0.0
    #: hash of its tensors and configuration, for parts of checkpoints
    fingerprint: str = ""
    #: per item, measured; 0 until something ran
    ms: float = 0.0
    reason: ErrorBody | None = None


class Reported(Document):
    """What a node really holds."""

    boot: str
    epoch: int = 0
    revision: int = 0
    modules: dict[Id, ModuleReport] = {}
    runtime_mb: float = 0.0
    free_mb: float = 0.0
    #: how much less than its budget the node can have now: its process or its device is short of memory
    pressure_mb: float = Field(default=0.0, ge=0)


#: An idle node tells its load each so many keepalives: whoever says nothing for longer is taken for lost.
HEARTBEAT = 0.4


class StepTiming(Document):
    """What one step of a request took, in milliseconds."""

    node: Id
    queued_ms: float = Field(ge=0)
    run_ms: float = Field(ge=0)
    batch: int = Field(ge=1)


class NodeLoad(Document):
    """How busy a node is."""

    #: items waiting or running, per module
    queues: dict[Id, int]
    #: requests whose head ran here since the last time, per task
    finished: dict[Id, int] = {}
    #: of these, the last one's steps, per task: a sample, once a second, that any viewer can follow
    latest: dict[Id, dict[Id, StepTiming]] = {}


class TaskSpec(Document):
    """A task as somebody wants it: a running use of a model with default inputs."""

    model: Id
    #: the model itself, where no file that the planner reads defines it
    definition: Definition | None = None
    #: defaults, in the form of a plain request's inputs
    inputs: dict[str, Any] = {}
    #: how its text is to be written where a request says nothing else: s2m3.schemas.wire.generation.Options
    options: dict[str, Any] = {}
    max_replicas: int = Field(default=1, ge=1, le=64)
    deadline_s: float = Field(default=30.0, gt=0, le=86_400)
    _unreadable: str = PrivateAttr(default="")

    @property
    def unreadable(self) -> str:
        """Why the definition that the task brought cannot be used; empty where it can, or where it brought none."""
        return self._unreadable

    @model_validator(mode="wrap")
    @classmethod
    def _keep_the_rest(cls, said: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """A definition that cannot be read excludes itself, and not the task."""
        if not (is_from_the_bus(info) and isinstance(said, dict) and said.get("definition") is not None):
            return handler(said)
        definition = read_spec(Definition, said["definition"])
        if isinstance(definition, Definition):
            return handler({**said, "definition": definition})
        task = handler({**said, "definition": None})
        task._unreadable = f"definition.{definition}"  # noqa: SLF001  # our own
        return task


class Plan(Document):
    """What one node is to hold, and of which tasks it is the gateway."""

    epoch: int = Field(ge=0)
    revision: int = Field(ge=0)
    modules: list[ModuleSpec] = []
    #: tasks; `fronts` on the wire
    gateways: list[Id] = Field(default=[], validation_alias="fronts", serialization_alias="fronts")
    _unreadable: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """The modules that this release cannot read, each with the reason. They are not in `modules`."""
        return self._unreadable

    @model_validator(mode="wrap")
    @classmethod
    def _keep_the_rest(cls, said: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """A module that cannot be read excludes itself, and not the plan."""
        if not (is_from_the_bus(info) and isinstance(said, dict) and isinstance(said.get("modules"), list)):
            return handler(said)
        read = [(item, read_spec(ModuleSpec, item)) for item in said["modules"]]
        plan = handler({**said, "modules": [spec for _, spec in read if isinstance(spec, ModuleSpec)]})
        refused = {item.get("id"): why for item, why in read if isinstance(why, str) and isinstance(item, dict)}
        plan._unreadable = {i: why for i, why in refused.items() if isinstance(i, str) and is_id(i)}  # noqa: SLF001
        return plan


class Replica(Document):
    """A ready copy of a module, with what it costs to use it."""

    node: Id
    ms: float = Field(ge=0)
    latency_ms: float = Field(default=0.0, ge=0)
    mbps: float = Field(default=1000.0, gt=0)


class RouteStep(Document):
    """One step of a task: its module, its wiring, its ready copies."""

    module: Id
    inputs: dict[str, str] = Field(min_length=1)
    outputs: list[str]
    #: the output that is written token by token
    generates: str | None = None
    input_kb: float = 0.0
    output_kb: float = 0.0
    replicas: list[Replica] = []

    @property
    def after(self) -> tuple[str, ...]:
        """The steps whose outputs it takes, each once."""
        steps = (ref.partition(".")[0] for ref in self.inputs.values())
        return tuple(dict.fromkeys(step for step in steps if step != "input"))


class RouteDoc(Document):
    """All that a caller needs to use a task: it needs no model definitions."""

    epoch: int = Field(ge=0)
    revision: int = Field(ge=0)
    model: Id
    inputs: dict[str, Kind] = {}
    defaults: dict[str, Any] = {}
    #: how its text is written where a request says nothing else
    options: dict[str, Any] = {}
    #: the head's outputs that are sent; the first is the answer
    answer: list[str] = []
    deadline_s: float = Field(gt=0)
    #: empty only where the model is not known: then `error` says so
    steps: dict[Id, RouteStep] = {}
    #: why it cannot be served now, where the planner knows
    error: ErrorBody | None = None

    @property
    def generates(self) -> bool:
        """Whether a step of it writes text token by token: then a request may say how."""
        return any(step.generates for step in self.steps.values())

    def streams(self, step: str) -> bool:
        """Returns whether the text that a step writes is the answer: then it can be sent as it is written."""
        followed = any(step in other.after for other in self.steps.values())
        return not followed and bool(self.answer) and self.steps[step].generates == self.answer[0]

    @model_validator(mode="after")
    def _steps_or_why_not(self) -> Self:
        if self.error is None and not (self.steps and self.answer):
            raise ValueError("a route without steps has to say why")
        return self

    def ready_on(self, nodes: frozenset[str]) -> bool:
        """Returns whether every step has a ready copy on one of these nodes."""
        return bool(self.steps) and all({r.node for r in step.replicas} & nodes for step in self.steps.values())


class PlannerState(Document):
    """Whether somebody plans. The last will is `offline`."""

    state: Annotated[Literal["online", "offline", "unknown"], ClosedList()]
    epoch: int = Field(ge=0)
    protocol: Protocol = 0
    #: nodes that come and go, and therefore get nothing for now -> why
    held: dict[Id, str] = {}


class PlannerHealth(Document):
    """Counters, each 10 s."""

    epoch: int
    revision: int
    nodes: int
    tasks: int
    plans: int


EventName = Annotated[
    Literal["node_joined", "node_lost", "plan_changed", "module_failed", "request_failed", "unknown"], ClosedList()
]


class Event(Document):
    """Something that happened, for people and automations."""

    event: EventName
    node: str | None = None
    task: str | None = None
    module: str | None = None
    request: str | None = None
    detail: str | None = None


class ControlRequest(Document):
    """An order to the planner or an agent."""

    transaction: str | int | None = None
    node: Id | None = None


class ControlResponse(Document):
    """What became of an order."""

    status: Annotated[Literal["ok", "error", "unknown"], ClosedList()]
    data: dict[str, Any] = {}
    error: ErrorBody | None = None
    transaction: str | int | None = None


class RollCall(Document):
    """The question who is there: every owner of retained documents publishes them again."""

    #: for people: planner, status, watch, page …
    asker: str | None = None
