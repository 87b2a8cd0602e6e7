"""Retained documents, telemetry and events: JSON without v5 properties, so that MQTT 3.1.1 clients can read them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, ValidationInfo, model_validator

from s2m3.schemas.definitions import Definition, ModuleSpec
from s2m3.schemas.document import Document, Protocol
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.ids import Id, is_id
from s2m3.schemas.notices import ControlRequest, ControlResponse, ErrorBody, Event, RollCall
from s2m3.schemas.parts import PartProgress, PartStock
from s2m3.schemas.protocol import ClosedList, Since, is_from_the_bus
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


class NodeState(Document):
    """Whether a node accepts work. The last will of its connection is `lost` with the same `boot`."""

    state: Annotated[Literal["ready", "draining", "lost", "unknown"], ClosedList()]
    #: uuid of the agent's process; a `lost` with another boot is the late last will of an earlier process
    boot: str
    protocol: Protocol = 0
    #: of a lost node: whether it left in order (SIGTERM, `s2m3 node sleep`); with a wake address it may be woken
    left: Annotated[bool, Since(1)] = False
    #: whether it left because its machine goes to sleep: nobody expects it back by itself, as after a restart
    asleep: Annotated[bool, Since(1)] = False


class NodeProfile(Document):
    """A node's resources, and the modules that it can load."""

    boot: str
    #: the release of the software, for people; readers compare `protocol`
    version: str
    protocol: Protocol = 0
    #: memory budget of the whole agent process, 10^6 bytes
    memory_mb: float = Field(gt=0)
    #: memory of the process without modules, including the runtimes that it would import, 10^6 bytes
    runtime_mb: float = Field(ge=0)
    #: speed, 10^9 operations per second
    gflops: float = Field(gt=0)
    latency_ms: float = Field(ge=0, description="one way to the broker: half of the round trip, milliseconds")
    mbps: float = Field(gt=0, description="throughput to the broker, megabits per second")
    #: seconds; the node publishes its load at least every HEARTBEAT of this; 0: an older agent without heartbeat
    keepalive_s: float = Field(default=0.0, ge=0)
    #: the model sources and the module classes that it can load
    sources: list[str] = []
    classes: list[str] = []
    #: dtype of the weights of modules whose definition names none
    dtype: Dtype = "float32"
    #: where it computes; of the nodes with one `host`, which share a machine and its link
    device: Annotated[str, Since(1)] = "cpu"
    host: Annotated[str, Since(1)] = ""
    #: dtype -> speed, 10^9 operations per second: float32, and what is faster there
    speeds: Annotated[dict[str, float], Since(1)] = {}
    #: budget in the host's memory of an agent whose memory_mb is a device's, 10^6 bytes; 0: memory_mb is the host's
    host_memory_mb: Annotated[float, Field(ge=0), Since(1)] = 0.0
    #: whether the node may be the gateway of a task; false behind a bridge between brokers (docs/scale.md)
    gateway: bool = Field(default=True, validation_alias="front", serialization_alias="front")
    #: of how many tasks it may be the gateway, because each takes a connection; None: as many as there are
    most_gateways: Annotated[int | None, Field(ge=0), Since(1)] = None
    #: what runs networks here: `onnx`, `torch`; a list that grows; empty: an older agent, whose networks torch runs
    runtimes: Annotated[list[str], Since(1)] = []
    #: what it sends to other nodes; absent: it neither sends parts of checkpoints nor fetches them
    parts: Annotated[PartStock | None, Since(1)] = None
    #: IPv4 network of its main interface, e.g. 192.168.1.0/24: who sends magic packets to whom; empty: not known
    network: Annotated[str, Since(1)] = ""
    #: whether it has a command that puts its machine to sleep
    sleeps: Annotated[bool, Since(1)] = False


class ModuleReport(Document):
    """The state of one module on one node."""

    state: Annotated[Literal["loading", "ready", "failed", "unknown"], ClosedList()]
    progress: float = 0.0
    #: bytes of the module's tensors, once loaded
    bytes: int = 0
    #: memory that loading added to the process, 10^6 bytes
    memory_mb: float = 0.0
    #: hash of the module's tensors and configuration, for parts of checkpoints
    fingerprint: str = ""
    #: what runs the module: `onnx`, `torch`, `numpy`; empty: not known
    runtime: Annotated[str, Since(1)] = ""
    #: measured milliseconds per item; 0 until an item has run
    ms: float = 0.0
    reason: ErrorBody | None = None
    #: how much of the part has come from other nodes, while it is fetched; afterwards only if a sender was refused
    fetched: Annotated[PartProgress | None, Since(1)] = None


class Reported(Document):
    """The modules that a node holds, and its memory."""

    boot: str
    epoch: int = 0
    revision: int = 0
    modules: dict[Id, ModuleReport] = {}
    runtime_mb: float = 0.0
    free_mb: float = 0.0
    #: what the process takes of the host's memory beside a device's, 10^6 bytes
    host_mb: Annotated[float, Field(ge=0), Since(1)] = 0.0
    #: memory that the node lacks of its budget because its process or device is short of memory, 10^6 bytes
    pressure_mb: float = Field(default=0.0, ge=0)


#: Interval of the load of an idle node, in keepalives. A node that publishes nothing for longer counts as lost.
HEARTBEAT = 0.4


class StepTiming(Document):
    """The time of one step of a request, milliseconds."""

    node: Id
    queued_ms: float = Field(ge=0)
    run_ms: float = Field(ge=0)
    batch: int = Field(ge=1)


class NodeLoad(Document):
    """A node's load; also its heartbeat."""

    #: module -> items that wait or run
    queues: dict[Id, int]
    #: task -> requests whose last step ran here since the previous message
    finished: dict[Id, int] = {}
    #: task -> step -> timing, of the newest of these requests: a sample for dashboards
    latest: dict[Id, dict[Id, StepTiming]] = {}


class TaskSpec(Document):
    """A desired task: a model that is to be served, with default inputs."""

    model: Id
    #: the model's definition, if none of the planner's files has it
    definition: Definition | None = None
    #: default inputs, in the form of a plain request's inputs
    inputs: dict[str, Any] = {}
    #: default generation options, see s2m3.schemas.wire.generation.Options
    options: dict[str, Any] = {}
    max_replicas: int = Field(default=1, ge=1, le=64)
    deadline_s: float = Field(default=30.0, gt=0, le=86_400)
    #: least score of an answer; below, the requester puts null in the answer's place: none of these (`s2m3 calibrate`)
    threshold: Annotated[float | None, Since(1)] = None
    #: nodes in order of preference; what a place is worth: docs/placement.md
    prefer: Annotated[list[Id], Since(1)] = []
    _unreadable: str = PrivateAttr(default="")

    @property
    def unreadable(self) -> str:
        """Why the embedded definition cannot be used; empty if it can, or if there is none."""
        return self._unreadable

    @model_validator(mode="wrap")
    @classmethod
    def _tolerate_definition(cls, given: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Keeps a task whose embedded definition is invalid, without the definition."""
        if not (is_from_the_bus(info) and isinstance(given, dict) and given.get("definition") is not None):
            return handler(given)
        definition = read_spec(Definition, given["definition"])
        if isinstance(definition, Definition):
            return handler({**given, "definition": definition})
        task = handler({**given, "definition": None})
        task._unreadable = f"definition.{definition}"  # noqa: SLF001  # a field of this class
        return task


class Plan(Document):
    """The modules that one node is to hold, and the tasks whose gateway it is to be."""

    epoch: int = Field(ge=0)
    revision: int = Field(ge=0)
    modules: list[ModuleSpec] = []
    #: tasks whose gateway the node is to be
    gateways: list[Id] = Field(default=[], validation_alias="fronts", serialization_alias="fronts")
    _unreadable: dict[str, str] = PrivateAttr(default_factory=dict)

    @property
    def unreadable(self) -> Mapping[str, str]:
        """Module id -> why this release cannot read its spec; these modules are not in `modules`."""
        return self._unreadable

    @model_validator(mode="wrap")
    @classmethod
    def _tolerate_modules(cls, given: Any, handler: ModelWrapValidatorHandler[Self], info: ValidationInfo) -> Self:
        """Keeps a plan with modules that this release cannot read, without these modules."""
        if not (is_from_the_bus(info) and isinstance(given, dict) and isinstance(given.get("modules"), list)):
            return handler(given)
        read = [(item, read_spec(ModuleSpec, item)) for item in given["modules"]]
        plan = handler({**given, "modules": [spec for _, spec in read if isinstance(spec, ModuleSpec)]})
        refused = [(item.get("id"), why) for item, why in read if isinstance(why, str) and isinstance(item, dict)]
        plan._unreadable = {i: why for i, why in refused if isinstance(i, str) and is_id(i)}  # noqa: SLF001
        return plan


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


class RouteDoc(Document):
    """Everything that a requester needs to use a task, so that it needs no model definitions."""

    epoch: int = Field(ge=0)
    revision: int = Field(ge=0)
    model: Id
    inputs: dict[str, Kind] = {}
    defaults: dict[str, Any] = {}
    #: the task's default generation options
    options: dict[str, Any] = {}
    #: the outputs of the last step that are sent; the first one is the answer
    answer: list[str] = []
    deadline_s: float = Field(gt=0)
    threshold: Annotated[float | None, Since(1)] = None
    #: empty only if the model is unknown; then `error` is set
    steps: dict[Id, RouteStep] = {}
    #: why the task cannot be served now, if the planner knows
    error: ErrorBody | None = None
    #: sleeping nodes that would serve it better: requesters tell `demand/<task>` of requests meanwhile
    asleep: Annotated[list[Id], Since(1)] = []

    @property
    def generates(self) -> bool:
        """Whether a step generates a text or a sound, so that requests may set generation options."""
        return any(step.generates for step in self.steps.values())

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
        """Returns whether every step has a ready copy on one of these nodes."""
        return bool(self.steps) and all({r.node for r in step.replicas} & nodes for step in self.steps.values())


class PlannerState(Document):
    """Whether there is a planner. The last will of its connection is `offline`."""

    state: Annotated[Literal["online", "offline", "unknown"], ClosedList()]
    epoch: int = Field(ge=0)
    protocol: Protocol = 0
    #: flapping nodes that get no modules for now -> reason
    held: dict[Id, str] = {}
    #: nodes that sleep and have a wake address -> what is done about it
    asleep: Annotated[dict[Id, str], Since(1)] = {}


class PlannerHealth(Document):
    """The planner's counters, published every 10 s."""

    epoch: int
    revision: int
    nodes: int
    tasks: int
    plans: int
