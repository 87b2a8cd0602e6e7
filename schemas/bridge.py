"""What the bridge is told (bindings) and what it tells (state that a house reads). JSON without v5 properties."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from s2m3.schemas.ids import Id
from s2m3.schemas.messages import Document, ErrorBody
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
    """Any topic as the input of a task, as somebody wants it."""

    #: topic filter; what + and # stood for is {1}, {2}, … in `publish`
    source: str = Field(min_length=1, max_length=_LONGEST_TOPIC)
    task: Id
    #: takes the payload as it is
    input: str | None = None
    #: of raw samples, where their messages have no Content Type of their own: audio/L16; rate=16000; channels=1
    content_type: Annotated[str | None, Field(max_length=200), Since(1)] = None
    #: input name -> JMESPath into a JSON payload
    paths: dict[str, str] = Field(default_factory=dict)
    #: constant inputs, in the form of a plain request's
    inputs: dict[str, Any] = Field(default_factory=dict)
    #: JMESPath that has to be true of a JSON payload, else the message is passed over
    where: str | None = None
    #: topic of the answers, with {task}, {binding}, {1}, …
    publish: str = Field(min_length=1, max_length=_LONGEST_TOPIC)
    form: Annotated[Literal["json", "value", "unknown"], ClosedList()] = "json"
    retain: bool = False
    #: at most one request per topic in so many seconds: the newest message, older ones are dropped
    every_s: float = Field(default=1.0, ge=0, le=86_400)
    #: asks every message, in the order of its topic, up to a bound: events, as against a camera's newest picture
    each: Annotated[bool, Since(1)] = False
    #: publish only these answers
    labels: list[str] = Field(default_factory=list)
    #: publish only answers whose score is above
    above: float | None = None

    @model_validator(mode="before")
    @classmethod
    def _no_pause_between_events(cls, given: Any) -> Any:
        """Where each message counts, they wait for each other only if somebody says so."""
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
    """What became of a binding."""

    state: Annotated[Literal["active", "refused", "unknown"], ClosedList()]
    #: why it is refused
    error: ErrorBody | None = None
    #: messages that came
    received: int = 0
    #: of these: given up for a newer one, or over the bound of those that wait
    dropped: int = 0
    #: of these: asked nothing (not as `where` wants it, empty, or nothing at a path)
    passed: Annotated[int, Since(1)] = 0
    #: why the last of them asked nothing
    last_passed: Annotated[str | None, Since(1)] = None
    #: requests answered with a result
    answered: int = 0
    #: of these: published, the others did not meet `labels` and `above`
    published: int = 0
    #: requests answered with an error, and messages that no request could be made of
    failed: int = 0
    last_error: ErrorBody | None = None
    #: topics that hold an answer of this binding, retained
    retained: Annotated[list[str], Since(1)] = Field(default_factory=list)


class BridgeState(Document):
    """Whether the bridge runs, told each 5 s. The last will is `offline`."""

    state: Annotated[Literal["online", "offline", "unknown"], ClosedList()]
    #: above every bridge's before it: of two, the one that took over last stays
    epoch: int = Field(ge=0)


class BridgeNode(Document):
    """One node, for a dashboard."""

    connected: bool
    state: str
    memory_mb: float | None = None
    used_mb: float | None = None
    free_mb: float | None = None
    latency_ms: float | None = None
    #: items waiting or running, of all its modules
    queue: int = 0
    #: those ready
    modules: list[Id] = Field(default_factory=list)
    version: str | None = None


class BridgePlanner(Document):
    """The planner, for a dashboard."""

    online: bool
    #: present
    nodes: int = 0
    tasks: int = 0
    #: tasks that can be asked now
    ready: int = 0


class BridgeTask(Document):
    """Whether a task can be asked, and if not, why."""

    ready: bool
    model: Id
    problem: str | None = None


class BridgeAnswer(Document):
    """A task's answer, to whoever asked."""

    event_type: Annotated[Literal["answered", "failed", "unknown"], ClosedList()]
    #: the answer as text, cut at 255 characters
    state: str | None = None
    #: the whole of it, where it is at most 6,000 bytes
    answer: Any = None
    score: float | None = None
    outputs: dict[str, Any] = Field(default_factory=dict)
    latency_ms: float | None = None
    #: when, ISO 8601
    at: str
    #: binding:<name>, question, or plain
    source: str
    #: the topic its input came from
    topic: str | None = None
    question: str | None = None
    #: step -> node
    route: dict[str, str] = Field(default_factory=dict)
    error: ErrorBody | None = None
