"""Inputs whose bytes are still coming: pieces of them travel ahead of the work that is about them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from s2m3.schemas.errors import BadInputError
from s2m3.schemas.wire.message_properties import checked_request_id, number_in

__all__ = [
    "LONGEST_PIECE",
    "SINCE",
    "Growing",
    "GrowingInput",
    "InputPiece",
    "decode_input_piece",
    "encode_input_piece",
    "is_input_piece",
]

#: The protocol number of agents that keep pieces of inputs.
SINCE = 1
#: Most bytes of one piece.
LONGEST_PIECE = 65_536
#: The user property that only pieces of an input have: where the piece begins, in bytes.
_AT = "input_at"


class Growing(bytes):
    """The bytes so far of a value that is still coming. A later value of the same stream begins with the same bytes.

    A requester may send one as any other bytes: what a node has of the stream already is not sent to it again.
    """

    stream: bytes

    @classmethod
    def of(cls, stream: bytes, data: bytes | bytearray) -> Self:
        """Returns the bytes so far of a stream, whose id has as many random bytes as a request's."""
        made = cls(data)
        made.stream = stream
        return made


@dataclass(frozen=True, slots=True)
class GrowingInput:
    """An input of work whose bytes are not in the message: the first `nbytes` of a stream's pieces."""

    stream: bytes
    nbytes: int


@dataclass(frozen=True, slots=True)
class InputPiece:
    """Bytes of a stream from offset `at` on."""

    stream: bytes
    at: int
    data: bytes


def is_input_piece(user: Mapping[str, str]) -> bool:
    """Returns whether a message to a module's topic is a piece of an input; otherwise it is work, or stops work."""
    return _AT in user


def encode_input_piece(piece: InputPiece) -> tuple[tuple[str, str], ...]:
    """Returns the user properties of a piece, whose bytes are the payload and whose stream the Correlation Data."""
    return ((_AT, str(piece.at)),)


def decode_input_piece(payload: bytes, *, stream: bytes | None, user: Mapping[str, str]) -> InputPiece:
    """Returns a piece.

    Raises:
        BadInputError: It has no stream, no place in it, or too many bytes.
    """
    if len(payload) > LONGEST_PIECE:
        raise BadInputError(f"a piece of an input has at most {LONGEST_PIECE} bytes")
    return InputPiece(checked_request_id(stream), number_in(user, _AT, 0), payload)
