"""Bytes <-> Work, Answer and Piece. Whatever comes off the wire is checked here, before use."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from s2m3.schemas.errors import BadInputError, error_from_code
from s2m3.schemas.ids import ID_PATTERN, REQUEST_ID_BYTES
from s2m3.schemas.wire.generation import Piece, read_options
from s2m3.schemas.wire.packing import pack, restore, unpack
from s2m3.schemas.wire.work import Answer, Hop, Route, Timing, Work

__all__ = [
    "CONTENT_TYPE",
    "attempt_of",
    "decode_answer",
    "decode_piece",
    "decode_work",
    "encode_answer",
    "encode_piece",
    "encode_stop",
    "encode_work",
    "is_piece",
    "is_stop",
    "traceparent_of",
]

CONTENT_TYPE = "application/vnd.s2m3.v1+msgpack"
#: W3C Trace Context, version 00.
_TRACEPARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_MAX_STEPS = 64
_MAX_DIGITS = 15
#: a day: a longer deadline is a mistake, and would keep joins that long
_MAX_MS = 86_400_000.0

#: Routes repeat from request to request: one of at most so many bytes is checked once, and kept.
_ROUTE_BYTES = 8_192
_ROUTES = 256

_Name = Annotated[str, Field(min_length=1, max_length=128)]
#: as s2m3.schemas.ids.Id, but checked without a call into Python: a message holds a dozen
_Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class _Hop(_Wire):
    module: _Id
    node: _Id
    inputs: dict[_Name, _Name] = Field(min_length=1)
    outputs: tuple[_Name, ...]
    options: dict[str, Any] | None = None
    stream: bool = False


class _Timing(_Wire):
    node: _Id
    queued_ms: float = Field(ge=0)
    run_ms: float = Field(ge=0)
    batch: int = Field(ge=1)


class _Work(_Wire):
    task: _Id
    inputs: dict[_Name, Any] = Field(min_length=1)
    route: dict[str, Any]
    ms_left: Annotated[float, Field(le=_MAX_MS)]
    timings: dict[_Id, _Timing] = Field(default={}, max_length=_MAX_STEPS)


class _Error(_Wire):
    code: str
    detail: str
    step: str | None = None
    node: str | None = None


class _Answer(_Wire):
    outputs: dict[_Name, Any] = {}
    timings: dict[_Id, _Timing] = Field(default={}, max_length=_MAX_STEPS)
    error: _Error | None = None


class _Piece(_Wire):
    text: str
    at: int = Field(ge=0)


_WORK = TypeAdapter(_Work)
_ROUTE = TypeAdapter(Annotated[dict[_Id, _Hop], Field(min_length=1, max_length=_MAX_STEPS)])
_ANSWER = TypeAdapter(_Answer)
_PIECE = TypeAdapter(_Piece)


def _first(error: ValidationError, *where: str) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, (*where, *first['loc']))) or 'message'}: {first['msg']}"


def _property(user: Mapping[str, str], name: str, default: int) -> int:
    text = user.get(name, str(default))
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        raise BadInputError(f"user property {name}={text[:40]!r} is not a small whole number")
    return int(text)


def _request_id(correlation: bytes | None) -> bytes:
    if correlation is None or len(correlation) != REQUEST_ID_BYTES:
        raise BadInputError(f"correlation data must be {REQUEST_ID_BYTES} bytes")
    return correlation


def attempt_of(user: Mapping[str, str]) -> int:
    """Returns the attempt that a message's user properties name; 1 where they make no sense."""
    try:
        return _property(user, "attempt", 1)
    except BadInputError:
        return 1


def traceparent_of(user: Mapping[str, str]) -> str | None:
    """Returns the trace context among a message's user properties; None where there is none that is well-formed."""
    value = user.get("traceparent", "")
    return value if _TRACEPARENT.fullmatch(value) else None


def encode_work(work: Work) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Returns the payload and the user properties of a Work; the other v5 properties are the sender's to set."""
    payload = pack(
        {
            "task": work.task,
            "inputs": work.inputs,
            "route": {step: hop.as_dict() for step, hop in work.route.items()},
            "ms_left": round(work.ms_left, 3),
            "timings": {step: timing.as_dict() for step, timing in work.timings.items()},
        }
    )
    user = (("step", work.step), ("attempt", str(work.attempt)), ("epoch", str(work.epoch)))
    return payload, user if work.traceparent is None else (*user, ("traceparent", work.traceparent))


def decode_work(
    payload: bytes,
    *,
    request: bytes | None,
    reply_to: str | None,
    user: Mapping[str, str],
    expiry_s: float | None = None,
) -> Work:
    """Checks and returns a Work.

    Args:
        payload: The message's payload.
        request: Its Correlation Data.
        reply_to: Its Response Topic.
        user: Its user properties.
        expiry_s: Its Message Expiry Interval: what is left of the deadline is no more than that. The broker counts it
            down while a message waits there; what the payload says it cannot.

    Raises:
        BadInputError: Anything that is not as the protocol has it.
    """
    request = _request_id(request)
    if not reply_to:
        raise BadInputError("work without a response topic")
    try:
        wire = _WORK.validate_python(unpack(payload))
    except ValidationError as error:
        raise BadInputError(_first(error)) from error
    packed = pack(wire.route)
    route = (_checked_route if len(packed) <= _ROUTE_BYTES else _checked_route.__wrapped__)(packed)
    step = user.get("step", "")
    if step not in route:
        raise BadInputError(f"step {step[:40]!r} is not in the message's route")
    inputs = {name: restore(value) for name, value in wire.inputs.items()}
    if stray := inputs.keys() - route[step].inputs.keys():
        raise BadInputError(f"step {step} takes no input {min(stray)!r}", step=step)
    return Work(
        request=request,
        task=wire.task,
        step=step,
        attempt=_property(user, "attempt", 1),
        epoch=_property(user, "epoch", 0),
        reply_to=reply_to,
        inputs=inputs,
        route=route,
        ms_left=wire.ms_left if expiry_s is None else min(wire.ms_left, expiry_s * 1000.0),
        timings=_timings(wire.timings),
        traceparent=traceparent_of(user),
    )


@lru_cache(maxsize=_ROUTES)
def _checked_route(packed: bytes) -> Route:
    """Returns the route that came as these bytes (msgpack).

    Raises:
        BadInputError: It is not as the protocol has it.
    """
    try:
        wire = _ROUTE.validate_python(unpack(packed))
    except ValidationError as error:
        raise BadInputError(_first(error, "route")) from error
    route = {step: _hop(hop) for step, hop in wire.items()}
    for name, hop in route.items():
        _check_wiring(name, hop, route)
    return route


def _hop(wire: _Hop) -> Hop:
    options = None if wire.options is None else read_options(wire.options)
    return Hop(wire.module, wire.node, wire.inputs, wire.outputs, options, wire.stream)


def _check_wiring(step: str, hop: Hop, route: Mapping[str, Hop]) -> None:
    """A step can be given only what another was asked for: a worker would find out after the work was done."""
    for port, ref in hop.inputs.items():
        before, _, output = ref.partition(".")
        if before != "input" and (before not in route or output not in route[before].outputs):
            raise BadInputError(
                f"route: {step}.{port}: {ref[:80]!r} is not an output that a step is asked for", step=step
            )


def _timings(wire: Mapping[str, _Timing]) -> dict[str, Timing]:
    return {step: Timing(t.node, t.queued_ms, t.run_ms, t.batch) for step, t in wire.items()}


def encode_answer(answer: Answer) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Returns the payload and the user properties of an Answer."""
    document: dict[str, Any] = {"timings": {step: t.as_dict() for step, t in answer.timings.items()}}
    if answer.error is None:
        document["outputs"] = answer.outputs
    else:
        document["error"] = answer.error.as_dict()
    return pack(document), (("step", answer.step), ("attempt", str(answer.attempt)))


def decode_answer(payload: bytes, *, request: bytes | None, user: Mapping[str, str]) -> Answer:
    """Checks and returns an Answer.

    Raises:
        BadInputError: Anything that is not as the protocol has it.
    """
    request = _request_id(request)
    try:
        wire = _ANSWER.validate_python(unpack(payload))
    except ValidationError as error:
        raise BadInputError(_first(error)) from error
    e = wire.error
    return Answer(
        request=request,
        step=user.get("step", ""),
        attempt=_property(user, "attempt", 1),
        outputs={name: restore(value) for name, value in wire.outputs.items()},
        timings=_timings(wire.timings),
        error=error_from_code(e.code, e.detail, step=e.step, node=e.node) if e else None,
    )


def encode_piece(piece: Piece) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Returns the payload and the user properties of a Piece."""
    user = (("step", piece.step), ("attempt", str(piece.attempt)), ("seq", str(piece.seq)))
    return pack({"text": piece.text, "at": piece.at}), user


def is_piece(user: Mapping[str, str]) -> bool:
    """Returns whether a message to a client's inbox is a piece of a text, by its user properties; else an answer."""
    return "seq" in user


def decode_piece(payload: bytes, *, request: bytes | None, user: Mapping[str, str]) -> Piece:
    """Checks and returns a Piece.

    Raises:
        BadInputError: Anything that is not as the protocol has it.
    """
    request = _request_id(request)
    try:
        wire = _PIECE.validate_python(unpack(payload))
    except ValidationError as error:
        raise BadInputError(_first(error)) from error
    step, attempt, seq = user.get("step", ""), _property(user, "attempt", 1), _property(user, "seq", 0)
    return Piece(request, step, attempt, seq, wire.at, wire.text)


def encode_stop(work: Work) -> tuple[tuple[str, str], ...]:
    """Returns the user properties of the message that ends a work nobody waits for any more; it has no payload."""
    return (("step", work.step), ("attempt", str(work.attempt)), ("stop", "1"))


def is_stop(user: Mapping[str, str]) -> bool:
    """Returns whether a message to a module's topic ends a work, by its user properties; else it is one."""
    return "stop" in user
