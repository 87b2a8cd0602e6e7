"""Every topic as an object, defined once: its pattern, its document, whether it is retained, its QoS."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Generic, Literal, TypeVar

from pydantic import ValidationError

from s2m3.schemas import bridge as b
from s2m3.schemas import history as h
from s2m3.schemas import messages as m
from s2m3.schemas import parts as p
from s2m3.schemas import sleep as s
from s2m3.schemas.document import Document
from s2m3.schemas.errors import BadInputError
from s2m3.schemas.ids import check_id, is_id
from s2m3.schemas.protocol import FROM_THE_BUS

__all__ = ["ALL", "PREVIEW", "VERBS", "Raw", "Topic", "TopicPath"]

_FIELD = re.compile(r"\{(\w+)\}")
#: Levels that need not be ids: a model names its inputs, a caller its transactions; the gateway checks both.
_FREE = ("input", "transaction")
D = TypeVar("D", bound=Document)


@dataclass(frozen=True)
class TopicPath:
    """A family of topics under the root, e.g. `node/{node}/state`.

    `meaning` describes the topic for readers of the documentation.
    """

    pattern: str
    meaning: str
    retain: bool = False
    qos: Literal[0, 1] = 1

    @property
    def ids_named(self) -> tuple[str, ...]:
        """The names of the ids in the pattern, in order."""
        return tuple(_FIELD.findall(self.pattern))

    def at(self, root: str, **ids: str) -> str:
        """Returns one topic of the family.

        Raises:
            BadInputError: A name is not an id, e.g. contains `/` or a wildcard.
        """
        return _filled(self.pattern, root, *ids.items())

    def all(self, root: str, **ids: str) -> str:
        """Returns the topic filter of the family, or of its topics with the given ids."""
        return f"{root}/" + _FIELD.sub(lambda field: ids.get(field[1], "+"), self.pattern)

    def ids(self, root: str, topic: str) -> dict[str, str] | None:
        """Returns the ids in a topic of this family; None for any other topic, and if a name is not an id.

        Any client may publish `task/My Task`, but a task with that name could have no other topics.
        """
        parts = topic.removeprefix(f"{root}/").split("/")
        wanted = self.pattern.split("/")
        if len(parts) != len(wanted) or not topic.startswith(f"{root}/"):
            return None
        found = {}
        for part, want in zip(parts, wanted, strict=True):
            if field := _FIELD.fullmatch(want):
                if field[1] not in _FREE and not is_id(part):
                    return None
                found[field[1]] = part
            elif part != want:
                return None
        return found


@lru_cache(maxsize=4096)
def _filled(pattern: str, root: str, *ids: tuple[str, str]) -> str:
    """Returns the topic for a pattern and ids; cached, because formatting took as long as packing the message."""
    for name, value in ids:
        check_id(value, name)
    return f"{root}/{pattern.format(**dict(ids))}"


@dataclass(frozen=True)
class Topic(TopicPath, Generic[D]):
    """Topics that carry a JSON document."""

    document: type[D] = field(kw_only=True)

    def decode(self, payload: bytes) -> D:
        """Returns the validated document of a payload.

        Unknown keys are ignored at every level, and an unknown value of a closed list is read as "unknown".

        Raises:
            BadInputError: The payload is not JSON, or not a valid document of this topic.
        """
        try:
            return self.document.model_validate_json(payload, extra="ignore", context=FROM_THE_BUS)
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(map(str, first["loc"])) or self.document.__name__
            raise BadInputError(f"{self.pattern}: {where}: {first['msg']}") from error


@dataclass(frozen=True)
class Raw(TopicPath):
    """Topics with other payloads (data plane, plain requests), decoded by codec.py and plain.py of schemas/wire."""


PLANNER_STATE = Topic(
    "planner/state", "whether there is a planner; last will: offline", retain=True, document=m.PlannerState
)
PLANNER_HEALTH = Topic("planner/health", "the planner's counters, every 10 s", qos=0, document=m.PlannerHealth)
NODE_STATE = Topic("node/{node}/state", "ready, draining or lost; last will: lost", retain=True, document=m.NodeState)
NODE_PROFILE = Topic("node/{node}/profile", "resources and loadable modules", retain=True, document=m.NodeProfile)
NODE_REPORTED = Topic("node/{node}/reported", "the modules that it holds", retain=True, document=m.Reported)
NODE_SETTINGS = Topic(
    "node/{node}/settings", "what the operator says of a node; empty clears it", retain=True, document=s.NodeSettings
)
NODE_LOAD = Topic(
    "node/{node}/load",
    "items per module, each second while busy; heartbeat every 0.4 keepalives",
    qos=0,
    document=m.NodeLoad,
)
TASK = Topic("task/{task}", "desired task; empty payload removes it", retain=True, document=m.TaskSpec)
PLAN = Topic("plan/{node}", "the modules that a node is to hold", retain=True, document=m.Plan)
ROUTE = Topic("route/{task}", "ready copies of each step's module", retain=True, document=m.RouteDoc)
MODULE_IN = Raw("module/{module}/{node}/in", "work for a module at a node (msgpack, v5)")
CLIENT_IN = Raw("client/{client}/in", "a client's inbox: answers and pieces (msgpack, v5)")
REQUEST = Raw("request/{task}", "plain request (JSON)")
REQUEST_INPUT = Raw("request/{task}/{input}", "plain request: the bytes of one input")
REQUEST_TRANSACTION = Raw("request/{task}/{input}/{transaction}", "the same, with the caller's own transaction")
RESPONSE = Raw("response/{task}", "plain answers (JSON) for callers that gave no Response Topic")
RESPONSE_VALUE = Raw("response/{task}/value", "of these the answer alone, for devices with little memory")
CLAIMS = Topic("claims/{task}", "plain requests that a gateway or deputy has taken", document=m.Claims)
EVENT = Topic("event", "events, for people and automations", document=m.Event)
ROLLCALL = Topic("rollcall", "asks owners of retained documents to publish them again", document=m.RollCall)
WAKE = Topic("wake/{helper}", "order to an agent: send a magic packet to a sleeping node", document=s.WakeOrder)
DEMAND = Topic("demand/{task}", "requests want a node that sleeps", qos=0, document=s.Demand)
CONTROL = Topic(
    "control/{verb}",
    "control request: replan, drain, undrain, sleep, wake, profile (measure again), preview, clear-history",
    document=m.ControlRequest,
)
CONTROL_RESPONSE = Topic("control/{verb}/response", "response to a control request", document=m.ControlResponse)
PART_WANTED = Topic("part/wanted/{asker}", "a node asks who has a part of a checkpoint", document=p.PartWanted)
PART_OFFER = Topic("part/offer/{holder}/{asker}", "a node says that it has the part", document=p.PartOffer)
PART_REQUEST = Topic(
    "part/request/{asker}/{holder}", "a node asks a holder for a piece", qos=0, document=p.PieceRequest
)
PART_PIECE = Raw("part/piece/{holder}/{asker}", "a piece of a part (msgpack)", qos=0)
BIND = Topic("bind/{binding}", "desired binding; empty payload removes it", retain=True, document=b.Binding)
BRIDGE_STATE = Topic("bridge/state", "whether the bridge runs; last will: offline", retain=True, document=b.BridgeState)
BRIDGE_BINDING = Topic("bridge/binding/{binding}", "state and counters", retain=True, document=b.BindingReport)
BRIDGE_NODE = Topic("bridge/node/{node}", "state of a node, for dashboards", retain=True, document=b.BridgeNode)
BRIDGE_PLANNER = Topic("bridge/planner", "state of the planner, for dashboards", retain=True, document=b.BridgePlanner)
BRIDGE_TASK = Topic("bridge/task/{task}", "whether it can serve requests", retain=True, document=b.BridgeTask)
BRIDGE_ANSWER = Topic("bridge/answer/{task}", "the task's last answer", retain=True, document=b.BridgeAnswer)
BRIDGE_ANSWERED = Topic("bridge/answered/{task}", "each answer when it arrives", document=b.BridgeAnswer)
BRIDGE_PICTURE = Raw("bridge/picture/{task}", "the last picture that was an input", retain=True)
BRIDGE_ASK = Raw("bridge/ask/{task}", "a question as text, for a task with a text input")
HISTORY_STATE = Topic("history/state", "what the bridge keeps, and where", retain=True, document=h.HistoryState)
HISTORY_NEW = Topic("history/new/{task}", "each answer that the bridge keeps", document=h.HistoryEntry)
HISTORY_WANTED = Topic("history/wanted/{asker}", "a query for kept answers or pictures", document=h.HistoryWanted)
HISTORY_KEPT = Topic("history/kept/{asker}/{task}", "kept answers that fit a query", document=h.HistoryKept)
HISTORY_PICTURE = Raw("history/picture/{asker}/{task}/{entry}", "the picture of a kept answer")
HISTORY_DONE = Topic("history/done/{asker}", "the end of what a query found", document=h.HistoryDone)

#: The verbs of `control/{verb}`.
VERBS = ("replan", "drain", "undrain", "profile", "sleep", "wake")
#: The verb that asks what a task would cost: a question, and operators' alone.
PREVIEW = "preview"
ALL: tuple[TopicPath, ...] = (
    PLANNER_STATE,
    PLANNER_HEALTH,
    NODE_STATE,
    NODE_PROFILE,
    NODE_REPORTED,
    NODE_LOAD,
    NODE_SETTINGS,
    TASK,
    PLAN,
    ROUTE,
    MODULE_IN,
    CLIENT_IN,
    REQUEST,
    REQUEST_INPUT,
    REQUEST_TRANSACTION,
    RESPONSE,
    RESPONSE_VALUE,
    CLAIMS,
    EVENT,
    ROLLCALL,
    WAKE,
    DEMAND,
    CONTROL,
    CONTROL_RESPONSE,
    PART_WANTED,
    PART_OFFER,
    PART_REQUEST,
    PART_PIECE,
    BIND,
    BRIDGE_STATE,
    BRIDGE_BINDING,
    BRIDGE_NODE,
    BRIDGE_PLANNER,
    BRIDGE_TASK,
    BRIDGE_ANSWER,
    BRIDGE_ANSWERED,
    BRIDGE_PICTURE,
    BRIDGE_ASK,
    HISTORY_STATE,
    HISTORY_NEW,
    HISTORY_WANTED,
    HISTORY_KEPT,
    HISTORY_PICTURE,
    HISTORY_DONE,
)
