"""The answer of a finished plain request as JSON, and its value alone. No I/O."""

from s2m3.broker.requests.actions import Result
from s2m3.schemas.wire.plain import PlainRequest, encode_plain_error, encode_plain_result, encode_plain_value

__all__ = ["encode_result"]


def encode_result(result: Result, parsed: PlainRequest, seq: int | None) -> tuple[bytes, bytes | None]:
    """Returns the answer, and the value alone; None in its place for an error.

    Args:
        result: What the request ended with.
        parsed: The request.
        seq: Number of the pieces that were sent before; None if the caller does not stream.
    """
    ignored = (*parsed.ignored, *result.ignored)
    if result.error is not None:
        failed = encode_plain_error(
            result.error, request=result.request, transaction=parsed.transaction, seq=seq, ignored=ignored
        )
        return failed, None
    answer = result.outputs.get(result.answer[0])
    payload = encode_plain_result(
        answer=answer,
        outputs=result.outputs,
        timings=result.timings,
        latency_ms=result.latency_ms,
        attempts=result.attempts,
        request=result.request,
        transaction=parsed.transaction,
        seq=seq,
        ignored=ignored,
        model=result.model,
        rank=result.rank,
    )
    return payload, encode_plain_value(answer)
