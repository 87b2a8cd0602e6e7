"""Plain requests and answers: the JSON that mosquitto_pub, an ESP32 or Home Assistant sends and reads."""

import base64
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from s2m3.schemas.errors import BadInputError, S2M3Error
from s2m3.schemas.ids import shown_id
from s2m3.schemas.protocol import UNKNOWN
from s2m3.schemas.wire.base64_text import decode_base64, file_in
from s2m3.schemas.wire.generation import known_options, read_options
from s2m3.schemas.wire.raw_sound import as_file
from s2m3.schemas.wire.values import Kind, Value, check_kind
from s2m3.schemas.wire.work import Timing

__all__ = [
    "NotAFileError",
    "PlainRequest",
    "Transaction",
    "encode_plain_error",
    "encode_plain_piece",
    "encode_plain_result",
    "encode_plain_value",
    "ignored_keys",
    "is_transaction",
    "parse_plain",
    "plain_inputs",
    "plain_value",
    "read_inputs",
    "transaction_of",
]

#: What a caller may put into `transaction`, echoed in every answer.
Transaction = str | int | float
_BINARY: frozenset[Kind] = frozenset({"image", "images", "audio"})
_TEXT: frozenset[Kind] = frozenset({"text", "texts", "chat"})
_LONGEST_TRANSACTION = 256
#: Keys of a file in plain form.
_FILE_KEYS = {"base64", "content_type"}
_LONGEST_DEADLINE_S = 86_400
#: A transaction that is the first key of a JSON object, and the longest beginning in which one is looked for, bytes.
_FIRST_TRANSACTION = re.compile(rb'\s*\{\s*"transaction"\s*:\s*("(?:[^"\\]|\\.)*"|[-+.0-9eE]+)\s*[,}]')
_BEGINNING = 4_096


class NotAFileError(BadInputError):
    """The value `given` of the input `name` is no file in plain form. The Python client has other words for it."""

    def __init__(self, name: str, given: object) -> None:
        super().__init__(f'input {name!r} takes {{"base64": "…"}}')
        self.name, self.given = name, given


@dataclass(frozen=True, slots=True)
class PlainRequest:
    """A plain request whose inputs are not yet validated against the task's."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    transaction: Transaction | None = None
    deadline_s: float | None = None
    options: Mapping[str, Any] | None = None
    #: whether the caller wants pieces of the text while it is generated
    stream: bool = False
    #: keys and options that this release does not know; they are ignored, and named in the answer
    ignored: tuple[str, ...] = ()


_KEYS = ("inputs", "transaction", "deadline_s", "options", "stream")


def parse_plain(payload: bytes) -> PlainRequest:
    """Parses the JSON of a plain request.

    Unknown keys and options are ignored, because the caller may be of a newer release.

    Raises:
        BadInputError: It is not a JSON object, or `inputs`, `transaction`, `deadline_s`, `options` or `stream` is
            invalid.
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
    if transaction is not None and not is_transaction(transaction):
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


def transaction_of(payload: bytes) -> Transaction | None:
    """Returns the transaction even of an otherwise invalid request, so that the caller can match the error.

    Of a request that was cut because it is too large, it is found where it is the first key.
    """
    try:
        found = json.loads(payload).get("transaction")
    except (ValueError, RecursionError, AttributeError):
        found = _first_transaction(payload[:_BEGINNING])
    return found if is_transaction(found) else None


def _first_transaction(beginning: bytes) -> Any:
    first = _FIRST_TRANSACTION.match(beginning)
    try:
        return json.loads(first[1]) if first else None
    except ValueError:
        return None


def is_transaction(found: Any) -> bool:
    """Whether a value is a valid transaction: no lone surrogates, which JSON allows and UTF-8 cannot encode."""
    if type(found) not in (str, int, float) or len(str(found)) > _LONGEST_TRANSACTION:
        return False
    if isinstance(found, float) and not math.isfinite(found):
        return False
    return not any("\ud800" <= c <= "\udfff" for c in str(found))


def _files_of(name: str, value: Any) -> Value:
    return [_bytes_of(name, item) for item in value] if isinstance(value, list) else _bytes_of(name, value)


def _bytes_of(name: str, value: Any) -> bytes:
    if isinstance(value, bytes):  # one of several, of a Python caller
        return as_file(*file_in(value))
    if isinstance(value, str):
        given = value.encode(errors="replace")
        data, media_type = file_in(given)
        if data is not given:
            return as_file(data, media_type)
    text = value.get("base64") if isinstance(value, dict) else None
    if not isinstance(text, str):
        raise NotAFileError(name, value)
    try:
        data, media_type = decode_base64(text)
    except ValueError as error:
        raise BadInputError(f"input {name!r} is not base64: {error}") from error
    content_type = value.get("content_type")
    return as_file(data, content_type if isinstance(content_type, str) else media_type)


def read_inputs(kinds: Mapping[str, Kind], given: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Value]:
    """Returns a request's validated inputs, with the task's defaults for those not given.

    Args:
        kinds: Input name -> kind, of the task.
        given: Input name -> value in plain form ({"base64": …} for images and audio), or as bytes: the file itself or
            its base64.
        defaults: The task's defaults, in the same form.

    Raises:
        BadInputError: An input is unknown, missing, or of the wrong kind.
    """
    if unknown := given.keys() - kinds.keys():
        raise BadInputError(f"the task has no input {min(unknown)!r}; it takes {', '.join(sorted(kinds))}")
    inputs = {}
    for name, kind in kinds.items():
        value = given.get(name, defaults.get(name))
        if value is None and kind == UNKNOWN:
            continue  # the route tells whether a step takes it: see inputs_of in broker/requests/pending.py
        if value is None:
            raise BadInputError(f"input {name!r} is missing")
        if (kind in _BINARY and not _is_bytes(value)) or (kind == UNKNOWN and _is_a_file(value)):
            value = _files_of(name, value)
        elif kind in _BINARY:
            value = [as_file(*file_in(item)) for item in value] if isinstance(value, list) else as_file(*file_in(value))
        if kind in _TEXT and isinstance(value, bytes):
            value = _text_of(name, value)
        elif kind in _TEXT:
            value = [_digits_of(item) for item in value] if isinstance(value, list) else _digits_of(value)
        inputs[name] = check_kind(name, kind, value)
    return inputs


def _is_a_file(value: Any) -> bool:
    """Returns whether a value has the plain form of bytes."""
    return isinstance(value, dict) and "base64" in value and value.keys() <= _FILE_KEYS


def ignored_keys(kinds: Mapping[str, Kind], given: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the keys other than `base64` and `content_type` in the files among a request's inputs."""
    files = [
        (name, item)
        for name, value in given.items()
        if kinds.get(name) in _BINARY
        for item in (value if isinstance(value, list) else [value])
    ]
    found = {
        f"inputs.{name}.{key}" for name, item in files if isinstance(item, dict) for key in item.keys() - _FILE_KEYS
    }
    return tuple(sorted(found))


def _digits_of(value: Any) -> Any:
    """Returns the digits of a number where a text is expected; every other value unchanged."""
    return json.dumps(value) if type(value) in (int, float) else value


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
            return None  # JSON has no such numbers: most readers would reject the whole answer
        case _:
            return value


def encode_plain_value(value: Value) -> bytes:
    """Returns a value alone: a text as UTF-8, a file (a sound, a picture) as it is, any other value as JSON."""
    if isinstance(value, bytes):
        return value
    plain = plain_value(value)
    return (plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False)).encode()


def encode_plain_result(
    *,
    answer: Value,
    outputs: Mapping[str, Value],
    timings: Mapping[str, Timing],
    latency_ms: float,
    attempts: int,
    request: bytes,
    transaction: Transaction | None,
    seq: int | None = None,
    ignored: Sequence[str] = (),
    model: str,
    rank: int = 0,
) -> bytes:
    """Returns the JSON of a result.

    Args:
        answer: The first of the outputs that the task's answer consists of.
        outputs: Output name -> value.
        timings: Step -> timing.
        latency_ms: From the request's arrival to its answer, milliseconds.
        attempts: Number of attempts.
        request: The request id.
        transaction: The caller's own id, echoed.
        seq: Of a stream: its sequence number after the last piece; otherwise None.
        ignored: Keys of the request that were ignored; without any, the JSON does not have this key.
        model: The model that answered.
        rank: Its place among the models of the task, 0 for the best.
    """
    document = {
        "status": "ok",
        "transaction": transaction,
        "request": shown_id(request),
        "answer": plain_value(answer),
        "outputs": {name: plain_value(value) for name, value in outputs.items()},
        "latency_ms": round(latency_ms, 1),
        "attempts": attempts,
        "model": model,
        "rank": rank,
        "steps": {step: timing.as_dict() for step, timing in timings.items()},
        **_ignored(ignored),
        **_final(seq),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def encode_plain_error(
    error: S2M3Error,
    *,
    request: bytes,
    transaction: Transaction | None,
    seq: int | None = None,
    ignored: Sequence[str] = (),
) -> bytes:
    """Returns the JSON of an error; arguments as for a result."""
    document = {
        "status": "error",
        "transaction": transaction,
        "request": shown_id(request),
        "error": error.as_dict(),
        **_ignored(ignored),
        **_final(seq),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def encode_plain_piece(*, at: int, text: str, seq: int, request: bytes, transaction: Transaction | None) -> bytes:
    """Returns the JSON of a piece of streamed text, which replaces the text after offset `at`."""
    document = {
        "status": "piece",
        "transaction": transaction,
        "request": shown_id(request),
        "seq": seq,
        "at": at,
        "text": text,
        "final": False,
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _ignored(names: Sequence[str]) -> dict[str, Any]:
    """Returns the key `ignored`; lone surrogates, which JSON allows and UTF-8 cannot encode, become `?`."""
    return {"ignored": [name.encode(errors="replace").decode() for name in names]} if names else {}


def _final(seq: int | None) -> dict[str, Any]:
    """Returns the keys that mark a stream's last message; {} if the request did not ask for a stream."""
    return {} if seq is None else {"seq": seq, "final": True}
