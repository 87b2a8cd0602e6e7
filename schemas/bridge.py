"""The bridge's documents: bindings, and states for home automation. JSON without v5 properties."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from s2m3.schemas.document import Document
from s2m3.schemas.ids import Id
from s2m3.schemas.messages import ErrorBody
from s2m3.schemas.protocol import ClosedList, Since

__all__ = [
    "Binding",
    "BindingReport",
    "BridgeAnswer",
    "BridgeNode",
    "BridgePlanner",
    "BridgeState",
    "BridgeTask",
]

_LONGEST_TOPIC = 512


class Binding(Document):
    """A desired binding: messages on any topic become the inputs of a task."""

    #: topic filter; `publish` may contain {1}, {2}, …: the levels that the wildcards matched
    source: str = Field(min_length=1, max_length=_LONGEST_TOPIC)
    task: Id
    #: the input that gets the whole payload
    input: str | None = None
    #: content type of raw samples whose messages have no Content Type: audio/L16; rate=16000; channels=1
    content_type: Annotated[str | None, Field(max_length=200), Since(1)] = None
    #: input name -> JMESPath into a JSON payload
    paths: dict[str, str] = Field(default_factory=dict)
    #: constant inputs, in the form of a plain request's inputs
    inputs: dict[str, Any] = Field(default_factory=dict)
    #: JMESPath that must be true for a JSON payload; other messages are skipped
    where: str | None = None
    #: topic of the answers; may contain {task}, {binding}, {1}, …
    publish: str = Field(min_length=1, max_length=_LONGEST_TOPIC)
    form: Annotated[Literal["json", "value", "unknown"], ClosedList()] = "json"
    retain: bool = False
    #: seconds between two requests of one topic; of the messages in between, only the newest is used
    every_s: float = Field(default=1.0, ge=0, le=86_400)
    #: whether every message makes a request, in order, up to a bound: for events, not for a camera's pictures
    each: Annotated[bool, Since(1)] = False
    #: whether the bridge leaves its topic alone until this is false again
    paused: Annotated[bool, Since(1)] = False
    #: publish only answers with one of these labels; empty: all
    labels: list[str] = Field(default_factory=list)
    #: publish only answers with a score above this
    above: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_pause_between_events(cls, given: Any) -> Any:
        """Sets `every_s` to 0 if `each` is set and no interval is given."""
        if isinstance(given, dict) and given.get("each") and "every_s" not in given:
            return {**given, "every_s": 0.0}
        return given

    @model_validator(mode="after")
    def _one_value_per_input(self) -> Self:
        names = [*([self.input] if self.input else []), *self.paths, *self.inputs]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"input {twice!r} is given twice")
        if self.input and (self.paths or self.where):
            raise ValueError("a payload is either an input as it is, or JSON that paths look into")
        return self


class BindingReport(Document):
    """The state of a binding, and its counters."""

    state: Annotated[Literal["active", "refused", "paused", "unknown"], ClosedList((("paused", 1),))]
    #: why it was refused
    error: ErrorBody | None = None
    #: messages received
    received: int = 0
    #: of the received messages: replaced by a newer one, or beyond the bound of waiting messages
    dropped: int = 0
    #: of the received messages: skipped (`where` is not true, an empty payload, or nothing at a path)
    passed: Annotated[int, Since(1)] = 0
    #: why the last of them was skipped
    last_passed: Annotated[str | None, Since(1)] = None
    #: requests answered with a result
    answered: int = 0
    #: of these answers: published; the others did not match `labels` and `above`
    published: int = 0
    #: requests answered with an error, and messages that could not be made a request
    failed: int = 0
    last_error: ErrorBody | None = None
    #: topics with a retained answer of this binding
    retained: Annotated[list[str], Since(1)] = Field(default_factory=list)


class BridgeState(Document):
    """Whether the bridge runs, published every 5 s. The last will of its connection is `offline`."""

    state: Annotated[Literal["online", "offline", "unknown"], ClosedList()]
    #: larger than the epoch of every earlier bridge: of two bridges, the one with the larger epoch leads
    epoch: int = Field(ge=0)


class BridgeNode(Document):
    """The state of a node, for dashboards."""

    connected: bool
    state: str
    memory_mb: float | None = None
    used_mb: float | None = None
    free_mb: float | None = None
    latency_ms: float | None = None
    #: items that wait or run, of all modules of the node
    queue: int = 0
    #: the modules that are ready
    modules: list[Id] = Field(default_factory=list)
    version: str | None = None
    #: where it computes: cpu, cuda:0, …; memory is that device's
    device: Annotated[str | None, Since(1)] = None
    #: what its process takes of the host's memory beside a device's, 10^6 bytes
    host_mb: Annotated[float | None, Since(1)] = None


class BridgePlanner(Document):
    """The state of the planner, for dashboards."""

    online: bool
    #: present nodes
    nodes: int = 0
    tasks: int = 0
    #: tasks that can serve requests now
    ready: int = 0


class BridgeTask(Document):
    """Whether a task can serve requests, and if not, why; and which of its models answers."""

    ready: bool
    model: Id
    problem: str | None = None
    #: the model that answers now, and its place among the models of the task: above 0 it is a stand-in
    answers: Annotated[Id | None, Since(1)] = None
    rank: Annotated[int, Field(ge=0), Since(1)] = 0


class BridgeAnswer(Document):
    """An answer of a task."""

    event_type: Annotated[Literal["answered", "failed", "unknown"], ClosedList()]
    #: the answer as text, truncated to 255 characters
    state: str | None = None
    #: the complete answer, if it has at most 6,000 bytes
    answer: Any = None
    score: float | None = None
    #: of a detector's answer: label -> number of boxes
    detected: Annotated[dict[str, int], Since(1)] = Field(default_factory=dict)
    outputs: dict[str, Any] = Field(default_factory=dict)
    latency_ms: float | None = None
    #: time of the answer, ISO 8601
    at: str
    #: what made the request: binding:<name>, question, or plain
    source: str
    #: the topic of the message that made the request
    topic: str | None = None
    question: str | None = None
    #: step -> node
    route: dict[str, str] = Field(default_factory=dict)
    #: the model that answered, and its place among the models of the task: above 0 it is a stand-in
    model: Annotated[str | None, Since(1)] = None
    rank: Annotated[int | None, Field(ge=0), Since(1)] = None
    error: ErrorBody | None = None
