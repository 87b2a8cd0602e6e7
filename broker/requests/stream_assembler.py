"""Reassembles a streamed text from pieces that may be lost, duplicated, reordered or of several attempts. Pure."""

from dataclasses import dataclass, field

from s2m3.schemas.wire.generation import Piece, common_length

__all__ = ["StreamAssembler", "TextDelta"]

#: Reordering window: pieces further ahead of a missing one are dropped, and their text comes with the answer.
_EARLY = 64
#: Most characters that are streamed; the rest of a longer text comes with the answer.
_LONGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class TextDelta:
    """A change of the streamed text: `text` replaces everything from character `at` on. Usually that is an append."""

    at: int
    text: str

    def __str__(self) -> str:
        return self.text

    def after(self, text: str) -> str:
        """Returns the text so far with this change applied."""
        return text[: self.at] + self.text


@dataclass(slots=True)
class StreamAssembler:
    """The text of one request, as far as it has arrived.

    Pieces of an attempt older than the newest seen are dropped. A newer attempt that writes the same text yields no
    deltas until it is longer than the older one; if it writes another text, a delta replaces the text from the first
    difference on. Applying all returned deltas in order gives `text`; after `end`, that is the whole text, even if
    pieces were lost.
    """

    #: the text according to the returned deltas
    text: str = ""
    _attempt: int = 0
    _next: int = 0
    #: the newest attempt's text up to its first missing piece
    _written: str = ""
    _early: dict[int, Piece] = field(default_factory=dict)

    def add(self, piece: Piece) -> TextDelta | None:
        """Adds a piece; returns the resulting delta, None if the text did not change."""
        if piece.attempt < self._attempt:
            return None
        if piece.attempt > self._attempt:
            self._attempt, self._next, self._written = piece.attempt, 0, ""
            self._early.clear()
        if piece.seq < self._next or piece.seq - self._next > _EARLY:
            return None
        self._early[piece.seq] = piece
        while (known := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._written = (self._written[: known.at] + known.text)[:_LONGEST]
        if self.text.startswith(self._written):
            return None
        return self._show(self._written)

    def end(self, text: str) -> TextDelta | None:
        """Sets the whole text, from the answer; returns the remaining delta, None if nothing is missing."""
        return self._show(text) if text != self.text else None

    def _show(self, text: str) -> TextDelta:
        at = common_length(self.text, text)
        self.text = text
        return TextDelta(at, text[at:])
