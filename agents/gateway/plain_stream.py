"""Tells a plain caller a text while it is written: pieces with numbers; what cannot be sent now goes with the next."""

from collections.abc import Callable

from s2m3.broker.requests.stream_assembler import TextDelta
from s2m3.schemas.wire.plain import encode_plain_piece

__all__ = ["PlainStream"]


class PlainStream:
    """One plain request's pieces.

    Args:
        request: Its id.
        transaction: The caller's own, echoed.
        publish: Sends a piece's JSON; returns False where there is no room for it now.
    """

    def __init__(self, request: bytes, transaction: str | int | None, publish: Callable[[bytes], bool]) -> None:
        self._request = request
        self._transaction = transaction
        self._publish = publish
        #: the text so far, and how much of its beginning the caller has
        self._text = ""
        self._has = 0
        #: pieces sent
        self.told = 0

    def take(self, shown: TextDelta) -> None:
        """Sends what the caller has not yet."""
        self._text = shown.after(self._text)
        self._has = min(self._has, shown.at)
        payload = encode_plain_piece(
            at=self._has,
            text=self._text[self._has :],
            seq=self.told,
            request=self._request,
            transaction=self._transaction,
        )
        if self._publish(payload):
            self._has = len(self._text)
            self.told += 1
