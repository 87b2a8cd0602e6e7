"""The actions that request tracking asks of a requester: send work, answer the caller, emit text, stop generation."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s2m3.broker.requests.stream_assembler import TextDelta
from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.wire.values import Value
from s2m3.schemas.wire.work import Work

__all__ = ["Action", "EmitDelta", "Finish", "Result", "Send", "Stop", "TellDemand"]


@dataclass(frozen=True, slots=True)
class Result:
    """A request's terminal answer: outputs, or an error."""

    request: bytes
    task: str
    attempts: int
    latency_ms: float
    error: S2M3Error | None = None
    #: the model that answered, and its place among the task's models: 0 is the best
    model: str = ""
    rank: int = 0
    #: names of the outputs that are the answer, in order
    answer: tuple[str, ...] = ()
    outputs: Mapping[str, Value] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, str] = field(default_factory=dict)
    #: of a streamed text: the last delta
    rest: TextDelta | None = None
    #: keys in the request's inputs that were ignored
    ignored: tuple[str, ...] = ()

    @property
    def value(self) -> Value:
        """The first of the outputs that are the answer; None of an error, and where a head abstains."""
        return self.outputs.get(self.answer[0]) if self.answer else None


@dataclass(frozen=True, slots=True)
class Send:
    """Publish this work to its hop's module topic."""

    work: Work


@dataclass(frozen=True, slots=True)
class Finish:
    """Give the caller this result."""

    result: Result


@dataclass(frozen=True, slots=True)
class EmitDelta:
    """Give the caller this delta of its streamed text."""

    request: bytes
    shown: TextDelta


@dataclass(frozen=True, slots=True)
class Stop:
    """Send the node of this work an order to stop generating: the result is not needed any more."""

    work: Work


@dataclass(frozen=True, slots=True)
class TellDemand:
    """Tell the planner that a task has requests that a sleeping node would serve better."""

    task: str


Action = Send | Finish | EmitDelta | Stop | TellDemand
