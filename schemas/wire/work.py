"""The data plane in memory: a branch's message (Work), what comes back (Answer), and the route both carry."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from s2m3.schemas.errors import S2M3Error
from s2m3.schemas.wire.generation import Options
from s2m3.schemas.wire.values import Value

__all__ = ["Answer", "Hop", "PassedOn", "Route", "Timing", "Work", "following"]


@dataclass(frozen=True, slots=True)
class Hop:
    """One step of a request's route: which module, on which node, fed from where, asked for what."""

    module: str
    node: str
    #: input name -> `input.<name>` or `<step>.<output>`
    inputs: Mapping[str, str]
    #: the outputs that the next steps (or the answer) take; only these are computed and sent
    outputs: tuple[str, ...]
    #: how it is to write, where it is a step that writes text token by token; None for every other step
    options: Options | None = None
    #: whether it sends the requester pieces of its text while it writes
    stream: bool = False

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
        return document


#: step -> hop, for the whole request. Every message carries it, so an agent needs no model definitions.
Route = Mapping[str, Hop]


@dataclass(frozen=True, slots=True)
class Timing:
    """What one step took, in milliseconds."""

    node: str
    queued_ms: float
    run_ms: float
    batch: int
    #: keys of a newer release, each with its value as it came (msgpack): passed on
    others: Mapping[str, bytes] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Returns the wire form, without what is only passed on."""
        return {
            "node": self.node,
            "queued_ms": round(self.queued_ms, 3),
            "run_ms": round(self.run_ms, 3),
            "batch": self.batch,
        }


@dataclass(frozen=True, slots=True)
class PassedOn:
    """What a work message holds that this release does not know: whoever sends the request on sends it along."""

    #: top-level key -> its value as it came, msgpack
    keys: Mapping[str, bytes] = field(default_factory=dict)
    #: the route as it came, msgpack, where there is something unknown in it
    route: bytes | None = None
    #: user properties
    user: tuple[tuple[str, str], ...] = ()

    def __or__(self, newer: "PassedOn") -> "PassedOn":
        """Returns both; where they differ, what the newer one has."""
        user = dict.fromkeys([*self.user, *newer.user])
        return PassedOn({**self.keys, **newer.keys}, newer.route or self.route, tuple(user))


@dataclass(frozen=True, slots=True)
class Work:
    """Inputs for one step of one request; all of them, or some if others come from other steps."""

    request: bytes
    task: str
    step: str
    attempt: int
    #: of the route document that the route was chosen from
    epoch: int
    #: where the answer goes
    reply_to: str
    inputs: Mapping[str, Value]
    route: Route
    #: what is left of the deadline: never an absolute time, because devices' clocks differ
    ms_left: float
    timings: Mapping[str, Timing] = field(default_factory=dict)
    #: W3C trace context of the request, where somebody traces it
    traceparent: str | None = None
    #: None where the message holds nothing unknown
    passed_on: PassedOn | None = None

    @property
    def hop(self) -> Hop:
        """This step's own part of the route."""
        return self.route[self.step]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a step sends to whoever asked: the head's outputs, or an error from any step."""

    request: bytes
    step: str
    attempt: int
    outputs: Mapping[str, Value] = field(default_factory=dict)
    timings: Mapping[str, Timing] = field(default_factory=dict)
    error: S2M3Error | None = None


def following(route: Route, step: str) -> dict[str, dict[str, str]]:
    """Returns, for each step fed by this one, its input names and the output each takes. Empty for the head."""
    prefix = f"{step}."
    next_steps: dict[str, dict[str, str]] = {}
    for name, hop in route.items():
        taken = {port: ref[len(prefix) :] for port, ref in hop.inputs.items() if ref.startswith(prefix)}
        if taken:
            next_steps[name] = taken
    return next_steps
