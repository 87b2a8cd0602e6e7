"""What a request ended with as the JSON of a plain answer. No I/O."""

from collections.abc import Sequence

from s2m3.broker.requests.actions import Result
from s2m3.schemas.wire.plain import Transaction, encode_plain_error, encode_plain_result

__all__ = ["encode_result"]


def encode_result(
    result: Result, *, transaction: Transaction | None, seq: int | None = None, ignored: Sequence[str] = ()
) -> bytes:
    """Returns the JSON of a result: its outputs, or its error.

    Args:
        result: What the request ended with.
        transaction: The caller's own id, echoed.
        seq: Number of the pieces that were sent before; None if the caller does not stream.
        ignored: Keys of the request that were ignored, besides those of its inputs.
    """
    ignored = (*ignored, *result.ignored)
    if result.error is not None:
        return encode_plain_error(
            result.error, request=result.request, transaction=transaction, seq=seq, ignored=ignored
        )
    return encode_plain_result(
        answer=result.value,
        outputs=result.outputs,
        timings=result.timings,
        latency_ms=result.latency_ms,
        attempts=result.attempts,
        request=result.request,
        transaction=transaction,
        seq=seq,
        ignored=ignored,
        model=result.model,
        rank=result.rank,
    )
