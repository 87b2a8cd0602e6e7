"""Inputs that arrive in pieces, before the work that refers to them. Pure: callers pass the time.

The kept bytes are bounded, and may be dropped at any time: work whose pieces are gone is answered `not_ready`, and its
requester sends it again with all bytes.
"""

from dataclasses import dataclass, field, replace

from s2m3.schemas.errors import NotReadyError
from s2m3.schemas.wire.input_pieces import InputPiece
from s2m3.schemas.wire.work import Work

__all__ = ["InputPieces"]

_MOST_STREAMS = 256
#: A stream is dropped this long after its last piece, or after the last work that referred to it, seconds.
_KEPT_S = 60.0


@dataclass(slots=True)
class _Stream:
    until: float
    data: bytearray = field(default_factory=bytearray)


class InputPieces:
    """The streams of one agent.

    Args:
        most_bytes: Most bytes of all streams together; the least recently used stream is dropped first.
        node: The node's name, for errors.
    """

    def __init__(self, most_bytes: int, node: str) -> None:
        self._most, self._node = most_bytes, node
        #: the most recently used stream at the end
        self._streams: dict[bytes, _Stream] = {}
        self._nbytes = 0

    def __len__(self) -> int:
        return len(self._streams)

    def waiting_bytes(self) -> int:
        """Returns the bytes of all streams."""
        return self._nbytes

    def put(self, piece: InputPiece, now: float) -> None:
        """Adds a piece. Bytes that are there already are ignored; a piece behind a gap drops its stream."""
        stream = self._streams.get(piece.stream)
        have = len(stream.data) if stream is not None else 0
        if piece.at > have:
            self.drop(piece.stream)
            return
        new = piece.data[have - piece.at :]
        stream = self._touch(piece.stream, now)
        stream.data += new
        self._nbytes += len(new)
        while self._nbytes > self._most or len(self._streams) > _MOST_STREAMS:
            self.drop(next(iter(self._streams)))

    def _touch(self, name: bytes, now: float) -> _Stream:
        stream = self._streams.pop(name, None) or _Stream(now)
        stream.until = now + _KEPT_S
        self._streams[name] = stream
        return stream

    def drop(self, name: bytes) -> None:
        """Drops a stream; no effect on an unknown one."""
        if (stream := self._streams.pop(name, None)) is not None:
            self._nbytes -= len(stream.data)

    def whole(self, work: Work, now: float) -> Work:
        """Returns work with the bytes of the pieces that it refers to.

        Raises:
            NotReadyError: Some of these bytes are not here.
        """
        if not work.growing:
            return work
        inputs = dict(work.inputs)
        for name, input_ in work.growing.items():
            stream = self._streams.get(input_.stream)
            if stream is None or len(stream.data) < input_.nbytes:
                raise NotReadyError("pieces of the input are missing here", step=work.step, node=self._node)
            self._touch(input_.stream, now)
            inputs[name] = bytes(memoryview(stream.data)[: input_.nbytes])
        return replace(work, inputs=inputs, growing={})

    def expire(self, now: float) -> None:
        """Drops streams without a piece or work for a minute."""
        for name in [name for name, stream in self._streams.items() if stream.until <= now]:
            self.drop(name)
