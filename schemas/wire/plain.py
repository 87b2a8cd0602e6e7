"""Plain requests and answers: the JSON that mosquitto_pub, an ESP32 or Home Assistant sends and reads."""

import base64
import binascii
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.protocol import UNKNOWN
from s2m3.schemas.wire.generation import known_options, read_options
from s2m3.schemas.wire.raw_sound import as_file
from s2m3.schemas.wire.values import Kind, Value, check_kind
from s2m3.schemas.wire.work import Timing

__all__ = [
    "PlainRequest",
    "encode_plain_error",
    "encode_plain_piece",
    "encode_plain_result",
    "ignored_keys",
    "parse_plain",
    "plain_inputs",
    "plain_value",
    "read_inputs",
]

_BINARY: frozenset[Kind] = frozenset({"image", "images", "audio"})
_TEXT: frozenset[Kind] = frozenset({"text", "texts"})
_LONGEST_TRANSACTION = 256
_LONGEST_DEADLINE_S = 86_400


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A JSON request before its inputs are matched with what the task takes."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    transaction: str | int | None = None
    deadline_s: float | None = None
    options: Mapping[str, Any] | None = None
    #: whether pieces of the text are wanted as they are written
    stream: bool = False
    #: keys and options that this release does not know: passed over, and named in the answer
    ignored: tuple[str, ...] = ()


_KEYS = ("inputs", "transaction", "deadline_s", "options", "stream")


def parse_plain(payload: bytes) -> PlainRequest:
    """Reads a request's JSON.

    Unknown keys and options are passed over: a caller may be of a newer release.

    Raises:
        BadInputError: Not an object, or an `inputs`, `transaction`, `deadline_s`, `options` or `stream` that is wrong.
    """
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadInputError(f"the request is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise BadInputError("the request is not a JSON object")
    inputs, transaction, deadline, options, stream = (document.get(key) for key in _KEYS)
    if not isinstance(inputs, dict | None):
        raise BadInputError("inputs is not a JSON object")
    if transaction is not None and not _is_transaction(transaction):
        raise BadInputError(f"transaction is not a number or a text of at most {_LONGEST_TRANSACTION}")
    if deadline is not None and (type(deadline) not in (int, float) or not 0 < deadline <= _LONGEST_DEADLINE_S):
        raise BadInputError("deadline_s is not a number of seconds above 0 and at most a day")
    if not isinstance(options, dict | None):
        raise BadInputError("options is not a JSON object")
    if not isinstance(stream, bool | None):
        raise BadInputError("stream is neither true nor false")
    known = None if options is None else known_options(options)
    read_options(known)
    unknown = [f"options.{name}" for name in (options or {}).keys() - (known or {}).keys()]
    ignored = tuple(sorted([*(document.keys() - set(_KEYS)), *unknown]))
    return PlainRequest(inputs or {}, transaction, deadline, known, bool(stream), ignored)


def transaction_of(payload: bytes) -> str | int | None:
    """Returns the transaction of a request that may otherwise be wrong, so that even its error can be matched."""
    try:
        found = json.loads(payload).get("transaction")
    except (ValueError, RecursionError, AttributeError):
        return None
    return found if _is_transaction(found) else None


def _is_transaction(found: Any) -> bool:
    """JSON can spell half a character (a lone surrogate), which no answer could carry back."""
    if type(found) not in (str, int) or len(str(found)) > _LONGEST_TRANSACTION:
        return False
    return not any("\ud800" <= c <= "\udfff" for c in str(found))


def _files_of(name: str, value: Any) -> Value:
    return [_bytes_of(name, item) for item in value] if isinstance(value, list) else _bytes_of(name, value)


def _bytes_of(name: str, value: Any) -> bytes:
    text = value.get("base64") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise BadInputError(f'input {name!r} takes {{"base64": "…"}}')
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadInputError(f"input {name!r} is not base64: {error}") from error
    content_type = value.get("content_type")
    return as_file(data, content_type if isinstance(content_type, str) else None)


def read_inputs(kinds: Mapping[str, Kind], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Value]:
    """Returns a request's inputs, checked, with the task's defaults where nothing was given.

    Args:
        kinds: What the task takes.
        given: Values in plain form ({"base64": …} for pictures and sound), or already as bytes.
        defaults: The same, from the task.

    Raises:
        BadInputError: An unknown input, a missing one, or one of the wrong kind.
    """
    if unknown := given.keys() - kinds.keys():
        raise BadInputError(f"the task has no input {min(unknown)!r}; it takes {', '.join(sorted(kinds))}")
    inputs = {}
    for name, kind in kinds.items():
        value = given.get(name, defaults.get(name))
        if value is None and kind == UNKNOWN:
            continue  # whether a step needs it, the route says: see RequestTracker
        if value is None:
            raise BadInputError(f"input {name!r} is missing")
        if (kind in _BINARY and not _is_bytes(value)) or (kind == UNKNOWN and _is_a_file(value)):
            value = _files_of(name, value)
        if kind in _TEXT and isinstance(value, bytes):
            value = _text_of(name, value)
        inputs[name] = check_kind(name, kind, value)
    return inputs


def _is_a_file(value: Any) -> bool:
    """Returns whether a value in plain form is that of bytes, whatever its kind."""
    return isinstance(value, dict) and value.keys() == {"base64"}


def ignored_keys(kinds: Mapping[str, Kind], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the keys beside `base64` in the files among a request's inputs: `read_inputs` passes them over."""
    files = [
        (name, item)
        for name, value in given.items()
        if kinds.get(name) in _BINARY
        for item in (value if isinstance(value, list) else [value])
    ]
    found = {
        f"inputs.{name}.{key}" for name, item in files if isinstance(item, dict) for key in item.keys() - {"base64"}
    }
    return tuple(sorted(found))


def _text_of(name: str, value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise BadInputError(f"input {name!r} is not UTF-8 text") from error


def _is_bytes(value: Any) -> bool:
    return isinstance(value, bytes) or (isinstance(value, list) and all(isinstance(item, bytes) for item in value))


def plain_inputs(inputs: Mapping[str, Value]) -> dict[str, Any]:
    """Returns inputs in plain form: bytes as {"base64": …}."""
    return {name: plain_value(value) for name, value in inputs.items()}


def plain_value(value: Value) -> Any:
    """Returns a value ready for JSON: bytes as {"base64": …}, tensors as lists, NaN and infinity as null."""
    match value:
        case bytes():
            return {"base64": base64.b64encode(value).decode()}
        case list() | tuple():
            return [plain_value(item) for item in value]
        case dict():
            return {key: plain_value(item) for key, item in value.items()}
        case np.ndarray():
            return plain_value(value.tolist())
        case float() if not math.isfinite(value):
            return None  # JSON has no word for it: most readers would refuse the whole answer
        case _:
            return value


def encode_plain_result(
    *,
    answer: Value,
    outputs: Mapping[str, Value],
    timings: Mapping[str, Timing],
    latency_ms: float,
    attempts: int,
    request: bytes,
    transaction: str | int | None,
    seq: int | None = None,
    ignored: Sequence[str] = (),
) -> bytes:
    """Returns the JSON of a result; where a stream was asked for, with its number after the pieces'.

    `ignored` names what of the request was passed over; where nothing was, the answer does not have the key.
    """
    document = {
        "status": "ok",
        "transaction": transaction,
        "request": request.hex(),
        "answer": plain_value(answer),
        "outputs": {name: plain_value(value) for name, value in outputs.items()},
        "latency_ms": round(latency_ms, 1),
        "attempts": attempts,
        "steps": {step: timing.as_dict() for step, timing in timings.items()},
        **_ignored(ignored),
        **_final(seq),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def encode_plain_error(
    error: S2M3Error,
    *,
    request: bytes,
    transaction: str | int | None,
    seq: int | None = None,
    ignored: Sequence[str] = (),
) -> bytes:
    """Returns the JSON of an error; `seq` and `ignored` as for a result."""
    document = {
        "status": "error",
        "transaction": transaction,
        "request": request.hex(),
        "error": error.as_dict(),
        **_ignored(ignored),
        **_final(seq),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def encode_plain_piece(*, at: int, text: str, seq: int, request: bytes, transaction: str | int | None) -> bytes:
    """Returns the JSON of a piece of the text that is being written: it replaces what is behind `at`."""
    document = {
        "status": "piece",
        "transaction": transaction,
        "request": request.hex(),
        "seq": seq,
        "at": at,
        "text": text,
        "final": False,
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _ignored(names: Sequence[str]) -> dict[str, Any]:
    """Half a character (a lone surrogate), which JSON can spell and no answer could carry back, is shown as `?`."""
    return {"ignored": [name.encode(errors="replace").decode() for name in names]} if names else {}


def _final(seq: int | None) -> dict[str, Any]:
    """What only those who asked for a stream are told: this is the last message, and its number."""
    return {} if seq is None else {"seq": seq, "final": True}
