"""The messages of the data plane in memory: the input of a step (Work), the answer, and the route that Work carries."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.input_pieces import GrowingInput
from s2m3.schemas.wire.values import Value

__all__ = ["Answer", "Hop", "PassedOn", "Route", "Timing", "Work", "following"]


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a request's route: its module and node, the sources of its inputs, and the outputs to compute."""

    module: str
    node: str
    #: input name -> `input.<name>` or `<step>.<output>`
    inputs: Mapping[str, str]
    #: the outputs that later steps or the answer take; only these are computed and sent
    outputs: tuple[str, ...]
    #: generation options if the step generates a text or a sound; None for other steps
    options: Options | None = None
    #: whether the step streams its text to the requester
    stream: bool = False
    #: how far rounding its outputs for another node may put a tensor's numbers (schemas/tasks.py); 0: none is rounded
    tolerance: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Returns the wire form."""
        document: dict[str, Any] = {
            "module": self.module,
            "node": self.node,
            "inputs": dict(self.inputs),
            "outputs": list(self.outputs),
        }
        if self.options is not None:
            document["options"] = self.options.as_dict()
        if self.stream:
            document["stream"] = True
        if self.tolerance:
            document["tolerance"] = self.tolerance
        return document


#: Step -> hop, for the whole request. Every message carries the route, so that agents need no model definitions.
Route = Mapping[str, Hop]


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one step, milliseconds, and the size of its batch."""

    node: str
    queued_ms: float
    run_ms: float
    batch: int
    #: keys of a newer release -> value, msgpack bytes, passed on unchanged
    others: Mapping[str, bytes] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns the wire form, without the keys of newer releases."""
        return {
            "node": self.node,
            "queued_ms": round(self.queued_ms, 3),
            "run_ms": round(self.run_ms, 3),
            "batch": self.batch,
        }


@dataclass(frozen=True, slots=True)
class PassedOn:
    """The parts of a work message that this release does not know, which are sent on with the outputs."""

    #: top-level key -> value, msgpack bytes
    keys: Mapping[str, bytes] = field(default_factory=dict)
    #: the whole route, msgpack bytes, if it has unknown keys
    route: bytes | None = None
    #: unknown user properties
    user: tuple[tuple[str, str], ...] = ()

    def __or__(self, newer: "PassedOn") -> "PassedOn":
        """Returns the union; where both have a key or a route, the newer one's."""
        user = dict.fromkeys([*self.user, *newer.user])
        return PassedOn({**self.keys, **newer.keys}, newer.route or self.route, tuple(user))


@dataclass(frozen=True, slots=True)
class Work:
    """The inputs of one step of one request: all of them, or some if other steps send the others."""

    request: bytes
    task: str
    step: str
    attempt: int
    #: epoch of the route document from which the route was chosen
    epoch: int
    #: the topic for the answer
    reply_to: str
    inputs: Mapping[str, Value]
    route: Route
    #: remaining time of the deadline, milliseconds; never an absolute time, because devices' clocks differ
    ms_left: float
    timings: Mapping[str, Timing] = field(default_factory=dict)
    #: W3C trace context of the request, if it is traced
    traceparent: str | None = None
    #: None if the message has nothing unknown
    passed_on: PassedOn | None = None
    #: inputs whose bytes came, or come, in pieces ahead of this message
    growing: Mapping[str, GrowingInput] = field(default_factory=dict)
    #: inputs that came rounded to float16, which the module is given in float32; this does not travel
    rounded: frozenset[str] = frozenset()

    @property
    def hop(self) -> Hop:
        """The hop of this step."""
        return self.route[self.step]


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to the requester: the outputs of the last step, or an error of any step."""

    request: bytes
    step: str
    attempt: int
    outputs: Mapping[str, Value] = field(default_factory=dict)
    timings: Mapping[str, Timing] = field(default_factory=dict)
    error: S2M3Error | None = None


def following(route: Route, step: str) -> dict[str, dict[str, str]]:
    """Returns each step that takes outputs of this one -> its input names -> the output for each; {} for the head."""
    prefix = f"{step}."
    next_steps: dict[str, dict[str, str]] = {}
    for name, hop in route.items():
        taken = {port: ref[len(prefix) :] for port, ref in hop.inputs.items() if ref.startswith(prefix)}
        if taken:
            next_steps[name] = taken
    return next_steps
