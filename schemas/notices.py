"""Errors, events, control requests and roll calls: documents that are said once, and are not retained."""

from typing import Annotated, Any, Literal

from pydantic import Field

from s2m3.schemas.document import Document
from s2m3.schemas.ids import Id
from s2m3.schemas.protocol import ClosedList, Since

__all__ = ["Claims", "ControlRequest", "ControlResponse", "ErrorBody", "Event", "RollCall"]


class ErrorBody(Document):
    """An error: its code, a text for people, and the step and node where it happened."""

    code: str
    detail: str
    step: str | None = None
    node: str | None = None


EventName = Annotated[
    Literal["node_joined", "node_lost", "plan_changed", "module_failed", "request_failed", "node_woken", "unknown"],
    ClosedList((("node_woken", 1),)),
]


class Event(Document):
    """An event, for people and automations."""

    event: EventName
    node: str | None = None
    task: str | None = None
    module: str | None = None
    request: str | None = None
    detail: str | None = None


class ControlRequest(Document):
    """A control request to the planner or to agents."""

    transaction: str | int | float | None = None
    node: Id | None = None
    #: of a preview: the task, and its document as `task/<task>` would have it
    task: Annotated[Id | None, Since(1)] = None
    spec: Annotated[dict[str, Any] | None, Since(1)] = None


class ControlResponse(Document):
    """The response to a control request."""

    status: Annotated[Literal["ok", "error", "unknown"], ClosedList()]
    data: dict[str, Any] = Field(default_factory=dict)
    error: ErrorBody | None = None
    transaction: str | int | float | None = None


class RollCall(Document):
    """A request to all owners of retained documents to publish them again."""

    asker: str | None = Field(default=None, description="who asks, for people: planner, status, watch, page, …")


class Claims(Document):
    """The plain requests of a task that its gateway or a deputy has taken: the others leave these to it."""

    node: Id
    #: random name of the sender, and number of the message: it counts once, whichever brokers of a cluster carry it
    sender: str
    number: int = Field(ge=0)
    #: a name for each request under way, equal for equal requests; said again every half second
    claimed: list[str] = Field(default_factory=list)
    #: the same, of the requests that were answered since the message before
    answered: list[str] = Field(default_factory=list)
