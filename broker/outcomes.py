"""What a requester is to do next: send a branch's message, or give its caller the one terminal answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from broker.pieces import Shown
from schemas.errors import S2M3Error
from schemas.values import Value
from schemas.work import Work

__all__ = ["Action", "Finish", "Result", "Send", "Show", "Stop"]


@dataclass(frozen=True, slots=True)
class Result:
    """A request's one terminal answer."""

    request: bytes
    task: str
    attempts: int
    latency_ms: float
    error: S2M3Error | None = None
    #: the names of the outputs, the answer first
    answer: tuple[str, ...] = ()
    outputs: Mapping[str, Value] = field(default_factory=dict)
    timings: Mapping[str, Any] = field(default_factory=dict)
    route: Mapping[str, str] = field(default_factory=dict)
    #: of a streamed text: what is still to be shown
    rest: Shown | None = None


@dataclass(frozen=True, slots=True)
class Send:
    """Publish this work to its hop's module topic."""

    work: Work


@dataclass(frozen=True, slots=True)
class Finish:
    """Give the caller this result."""

    result: Result


@dataclass(frozen=True, slots=True)
class Show:
    """Give the caller this part of its text."""

    request: bytes
    shown: Shown


@dataclass(frozen=True, slots=True)
class Stop:
    """Tell the node of this work that nobody waits for what it writes any more."""

    work: Work


Action = Send | Finish | Show | Stop
