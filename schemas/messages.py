"""Retained documents, telemetry and events: JSON without v5 properties, so that MQTT 3.1.1 clients can read them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ModelWrapValidatorHandler, PrivateAttr, ValidationInfo, model_validator

from s2m3.schemas.definitions import ModuleSpec
from s2m3.schemas.document import Document, Protocol
from s2m3.schemas.dtypes import Dtype
from s2m3.schemas.ids import Id, is_id
from s2m3.schemas.notices import Claims, ControlRequest, ControlResponse, ErrorBody, Event, RollCall
from s2m3.schemas.parts import PartProgress, PartStock
from s2m3.schemas.protocol import ClosedList, Since, is_from_the_bus
from s2m3.schemas.routes import RankRoute, Replica, RouteDoc, RouteStep
from s2m3.schemas.specs import read_spec
from s2m3.schemas.tasks import StandIn, TaskSpec

__all__ = [
    "Claims",
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
    "RankRoute",
    "Replica",
    "Reported",
    "RollCall",
    "RouteDoc",
    "RouteStep",
    "StandIn",
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
    #: module classes that it loads from exports alone, which it has or gets from other nodes; not in `classes`
    exported: Annotated[list[str], Since(1)] = []
    #: module classes whose weights it can map from its disk
    mapped: Annotated[list[str], Since(1)] = []
    #: what it sends to other nodes; absent: it neither sends parts of checkpoints nor fetches them
    parts: Annotated[PartStock | None, Since(1)] = None
    #: IPv4 network of its main interface, e.g. 192.168.1.0/24: who sends magic packets to whom; empty: not known
    network: Annotated[str, Since(1)] = ""
    #: whether it has a command that puts its machine to sleep
    sleeps: Annotated[bool, Since(1)] = False
    #: the broker that it is connected to, host:port, if it knows of further ones (`fallback`); it then claims the plain
    #: requests that it takes as a gateway, and may be a deputy
    broker: Annotated[str, Since(1)] = ""


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
    #: whether its weights are mapped from the disk; `memory_mb` is then what it takes beside the pages of the file
    mapped: Annotated[bool, Since(1)] = False
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
    #: of the node's profile, for requesters, which do not read that; 0: not known
    keepalive_s: Annotated[float, Field(ge=0), Since(1)] = 0.0


class Plan(Document):
    """The modules that one node is to hold, and the tasks whose gateway it is to be."""

    epoch: int = Field(ge=0)
    revision: int = Field(ge=0)
    modules: list[ModuleSpec] = []
    #: tasks whose gateway the node is to be
    gateways: list[Id] = Field(default=[], validation_alias="fronts", serialization_alias="fronts")
    #: task -> its gateway, at another broker of a cluster: the node answers the plain requests that nobody else takes
    deputies: Annotated[dict[Id, Id], Since(1)] = {}
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
