"""Encodes and decodes Work, Answer and Piece; everything from the wire is validated here before use."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from s2m3.schemas.errors import BadInputError, error_from_code
from s2m3.schemas.ids import ID_PATTERN
from s2m3.schemas.protocol import Since
from s2m3.schemas.request_ids import REQUEST_ID_BYTES
from s2m3.schemas.wire.generation import Piece, known_options, read_options
from s2m3.schemas.wire.input_pieces import SINCE, GrowingInput
from s2m3.schemas.wire.message_properties import (
    CONTENT_TYPE,
    attempt_of,
    check_content_type,
    checked_request_id,
    is_piece,
    is_stop,
    is_working,
    number_in,
    traceparent_of,
)
from s2m3.schemas.wire.packing import pack, pack_map, restore, unpack, values_of
from s2m3.schemas.wire.work import Answer, Hop, PassedOn, Route, Timing, Work

__all__ = [
    "CONTENT_TYPE",
    "attempt_of",
    "decode_answer",
    "decode_piece",
    "decode_work",
    "encode_answer",
    "encode_piece",
    "encode_work",
    "is_piece",
    "is_stop",
    "is_working",
    "payload_models",
    "traceparent_of",
]

_MAX_STEPS = 64
#: One day. A longer deadline is a mistake, and would keep incomplete joins for that long.
_MAX_MS = 86_400_000.0
#: Most requests of a task share a route: routes up to this size (msgpack bytes) are validated once and cached.
_ROUTE_BYTES = 8_192
_ROUTES = 256

_Name = Annotated[str, Field(min_length=1, max_length=128)]
#: Like s2m3.schemas.ids.Id, but validated without a call into Python: a message has a dozen ids.
_Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


class _Wire(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False, defer_build=True)


class _Hop(_Wire):
    module: _Id
    node: _Id
    inputs: dict[_Name, _Name] = Field(min_length=1)
    outputs: tuple[_Name, ...]
    options: dict[str, Any] | None = None
    stream: bool = False
    tolerance: float = Field(default=0.0, ge=0, le=1)


class _Timing(_Wire):
    node: _Id
    queued_ms: float = Field(ge=0)
    run_ms: float = Field(ge=0)
    batch: int = Field(ge=1)


class _Growing(_Wire):
    stream: Annotated[bytes, Field(strict=True, min_length=REQUEST_ID_BYTES, max_length=REQUEST_ID_BYTES)]
    bytes: int = Field(ge=0)


class _Work(_Wire):
    task: _Id
    inputs: dict[_Name, Any]
    route: dict[str, Any]
    ms_left: Annotated[float, Field(le=_MAX_MS)]
    timings: dict[_Id, _Timing] = Field(default={}, max_length=_MAX_STEPS)
    growing: Annotated[dict[_Name, _Growing], Since(SINCE)] = {}


class _RoutedWork(_Work):
    route: Annotated[dict[_Id, _Hop], Field(min_length=1, max_length=_MAX_STEPS)]


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


def payload_models() -> dict[str, type[BaseModel]]:
    """Returns the models of the msgpack payloads, by their names in docs/protocol.md, for docs/schema."""
    return {"Work": _RoutedWork, "Answer": _Answer, "Piece": _Piece}


_WORK_KEYS, _TIMING_KEYS, _HOP_KEYS = (frozenset(kind.model_fields) for kind in (_Work, _Timing, _Hop))
_PROPERTIES = frozenset({"step", "attempt", "epoch", "traceparent"})
_WORK = TypeAdapter(_Work)
_ROUTE = TypeAdapter(Annotated[dict[_Id, _Hop], Field(min_length=1, max_length=_MAX_STEPS)])
_ANSWER = TypeAdapter(_Answer)
_PIECE = TypeAdapter(_Piece)


def _first(error: ValidationError, *where: str) -> str:
    first = error.errors(include_input=False, include_url=False)[0]
    return f"{'.'.join(map(str, (*where, *first['loc']))) or 'message'}: {first['msg']}"


def encode_work(work: Work) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Returns the payload and the user properties of a Work; the sender sets the other v5 properties."""
    document = {
        "task": work.task,
        "inputs": work.inputs,
        "route": {step: hop.as_dict() for step, hop in work.route.items()},
        "ms_left": round(work.ms_left, 3),
    }
    if work.growing:
        document["growing"] = {name: {"stream": g.stream, "bytes": g.nbytes} for name, g in work.growing.items()}
    user: tuple[tuple[str, str], ...] = (
        ("step", work.step),
        ("attempt", str(work.attempt)),
        ("epoch", str(work.epoch)),
    )
    if work.traceparent is not None:
        user = (*user, ("traceparent", work.traceparent))
    if work.passed_on is None:
        return _pack_with_timings(document, work.timings), user
    others = dict(work.passed_on.keys)
    if work.passed_on.route is not None:
        others["route"] = work.passed_on.route
        del document["route"]
    return _pack_with_timings(document, work.timings, others), (*user, *work.passed_on.user)


def _pack_with_timings(
    document: dict[str, Any], timings: Mapping[str, Timing], others: Mapping[str, bytes] | None = None
) -> bytes:
    """Packs a document with its timings, and with keys of newer releases, whose values are packed already."""
    if not others and not any(timing.others for timing in timings.values()):
        document["timings"] = {step: timing.as_dict() for step, timing in timings.items()}
        return pack(document)
    packed = {step: _packed_with(timing.as_dict(), timing.others) for step, timing in timings.items()}
    return _packed_with(document, {"timings": pack_map(packed.items()), **(others or {})})


def _packed_with(document: Mapping[str, Any], others: Mapping[str, bytes]) -> bytes:
    return pack_map([*values_of(pack(document)).items(), *others.items()])


def decode_work(
    payload: bytes,
    *,
    request: bytes | None,
    reply_to: str | None,
    user: Mapping[str, str],
    expiry_s: float | None = None,
    content_type: str | None = None,
    properties: Iterable[tuple[str, str]] | None = None,
) -> Work:
    """Validates and returns a Work.

    Args:
        payload: The message's payload.
        request: Its Correlation Data.
        reply_to: Its Response Topic.
        user: Its user properties.
        expiry_s: Its Message Expiry Interval, an upper bound of the remaining deadline: the broker subtracts the time
            that the message waited there, which `ms_left` in the payload does not include.
        content_type: Its Content Type.
        properties: Its user properties in order, with repeated names; unknown ones are passed on.

    Raises:
        BadInputError: The message violates the protocol.
    """
    request = checked_request_id(request)
    check_content_type(content_type)
    if not reply_to:
        raise BadInputError("work without a response topic")
    document = unpack(payload)
    try:
        wire = _WORK.validate_python(document)
    except ValidationError as error:
        raise BadInputError(_first(error)) from error
    packed = pack(wire.route)
    route, is_known = (_checked_route if len(packed) <= _ROUTE_BYTES else _checked_route.__wrapped__)(packed)
    step = user.get("step", "")
    if step not in route:
        raise BadInputError(f"step {step[:40]!r} is not in the message's route")
    inputs = {name: restore(value) for name, value in wire.inputs.items()}
    growing = {name: GrowingInput(one.stream, one.bytes) for name, one in wire.growing.items()}
    if stray := (inputs.keys() | growing.keys()) - route[step].inputs.keys():
        raise BadInputError(f"step {step} takes no input {min(stray)!r}", step=step)
    if not inputs and not growing:
        raise BadInputError("inputs: there is none", step=step)
    return Work(
        request=request,
        task=wire.task,
        step=step,
        attempt=number_in(user, "attempt", 1),
        epoch=number_in(user, "epoch", 0),
        reply_to=reply_to,
        inputs=inputs,
        route=route,
        ms_left=wire.ms_left if expiry_s is None else min(wire.ms_left, expiry_s * 1000.0),
        timings=_timings(wire.timings, document, payload),
        traceparent=traceparent_of(user),
        passed_on=_passed_on(document, payload, user.items() if properties is None else properties, is_known),
        growing=growing,
    )


def _passed_on(
    document: Mapping[str, Any],
    payload: bytes,
    user: Iterable[tuple[str, str]],
    is_route_known: bool,  # noqa: FBT001  # returned by _checked_route
) -> PassedOn | None:
    unknown = {key for key in document.keys() - _WORK_KEYS if isinstance(key, str)}
    properties = tuple(pair for pair in user if pair[0] not in _PROPERTIES)
    if is_route_known and not unknown:
        return PassedOn(user=properties) if properties else None
    values = values_of(payload)
    return PassedOn({key: values[key] for key in unknown}, None if is_route_known else values["route"], properties)


@lru_cache(maxsize=_ROUTES)
def _checked_route(packed: bytes) -> tuple[Route, bool]:
    """Returns the route of these msgpack bytes, and whether this release knows all of its keys.

    Raises:
        BadInputError: The route violates the protocol.
    """
    document = unpack(packed)
    try:
        wire = _ROUTE.validate_python(document)
    except ValidationError as error:
        raise BadInputError(_first(error, "route")) from error
    route = {step: _hop(hop) for step, hop in wire.items()}
    for name, hop in route.items():
        _check_wiring(name, hop, route)
    unknown = any(hop.keys() - _HOP_KEYS for hop in document.values())
    return route, not unknown and all(known_options(hop.options) == (hop.options or {}) for hop in wire.values())


def _hop(wire: _Hop) -> Hop:
    options = None if wire.options is None else read_options(known_options(wire.options))
    return Hop(wire.module, wire.node, wire.inputs, wire.outputs, options, wire.stream, wire.tolerance)


def _check_wiring(step: str, hop: Hop, route: Mapping[str, Hop]) -> None:
    """Checks that each input from another step is one of its outputs: a worker would notice only after the work."""
    for port, ref in hop.inputs.items():
        before, _, output = ref.partition(".")
        if before != "input" and (before not in route or output not in route[before].outputs):
            raise BadInputError(
                f"route: {step}.{port}: {ref[:80]!r} is not an output that a step is asked for", step=step
            )


def _timings(wire: Mapping[str, _Timing], document: Mapping[str, Any], payload: bytes) -> dict[str, Timing]:
    timings = {step: Timing(t.node, t.queued_ms, t.run_ms, t.batch) for step, t in wire.items()}
    given = document.get("timings", {})
    unknown = {step: keys for step in timings if step in given and (keys := given[step].keys() - _TIMING_KEYS)}
    if unknown:
        packed = values_of(values_of(payload)["timings"])
        for step, keys in unknown.items():
            values = values_of(packed[step])
            timings[step] = replace(timings[step], others={key: values[key] for key in keys if isinstance(key, str)})
    return timings


def encode_answer(answer: Answer) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Returns the payload and the user properties of an Answer."""
    document = {"outputs": answer.outputs} if answer.error is None else {"error": answer.error.as_dict()}
    return _pack_with_timings(document, answer.timings), (("step", answer.step), ("attempt", str(answer.attempt)))


def decode_answer(
    payload: bytes, *, request: bytes | None, user: Mapping[str, str], content_type: str | None = None
) -> Answer:
    """Validates and returns an Answer.

    Raises:
        BadInputError: The message violates the protocol.
    """
    request = checked_request_id(request)
    check_content_type(content_type)
    document = unpack(payload)
    try:
        wire = _ANSWER.validate_python(document)
    except ValidationError as error:
        raise BadInputError(_first(error)) from error
    e = wire.error
    return Answer(
        request=request,
        step=user.get("step", ""),
        attempt=number_in(user, "attempt", 1),
        outputs={name: restore(value) for name, value in wire.outputs.items()},
        timings=_timings(wire.timings, document, payload),
        error=error_from_code(e.code, e.detail, step=e.step, node=e.node) if e else None,
    )


def encode_piece(piece: Piece) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    """Returns the payload and the user properties of a Piece."""
    user = (("step", piece.step), ("attempt", str(piece.attempt)), ("seq", str(piece.seq)))
    return pack({"text": piece.text, "at": piece.at}), user


def decode_piece(
    payload: bytes, *, request: bytes | None, user: Mapping[str, str], content_type: str | None = None
) -> Piece:
    """Validates and returns a Piece.

    Raises:
        BadInputError: The message violates the protocol.
    """
    request = checked_request_id(request)
    check_content_type(content_type)
    try:
        wire = _PIECE.validate_python(unpack(payload))
    except ValidationError as error:
        raise BadInputError(_first(error)) from error
    step, attempt, seq = user.get("step", ""), number_in(user, "attempt", 1), number_in(user, "seq", 0)
    return Piece(request, step, attempt, seq, wire.at, wire.text)
