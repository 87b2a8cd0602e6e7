"""Streams text to a plain caller in numbered pieces; text that cannot be sent now goes with the next piece."""

from collections.abc import Callable

from s2m3.broker.requests.stream_assembler import TextDelta
from s2m3.schemas.wire.plain import Transaction, encode_plain_piece

__all__ = ["PlainStream"]


class PlainStream:
    """The pieces of one plain request.

    Args:
        request: The request id.
        transaction: The caller's own id, echoed in each piece.
        publish: Publishes a piece's JSON; returns False if the outgoing queue is too long.
    """

    def __init__(self, request: bytes, transaction: Transaction | None, publish: Callable[[bytes], bool]) -> None:
        self._request = request
        self._transaction = transaction
        self._publish = publish
        #: the text so far, and the length of the part that the caller already has
        self._text = ""
        self._sent = 0
        #: number of pieces sent
        self.pieces_sent = 0

    def take(self, delta: TextDelta) -> None:
        """Applies a delta, and sends the text that the caller does not have yet."""
        self._text = delta.after(self._text)
        self._sent = min(self._sent, delta.at)
        payload = encode_plain_piece(
            at=self._sent,
            text=self._text[self._sent :],
            seq=self.pieces_sent,
            request=self._request,
            transaction=self._transaction,
        )
        if self._publish(payload):
            self._sent = len(self._text)
            self.pieces_sent += 1
