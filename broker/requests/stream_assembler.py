"""Puts a streamed text together from pieces that may be lost, doubled, out of order, or of two attempts. Pure."""

from dataclasses import dataclass, field

from s2m3.schemas.wire.generation import Piece, common_length

__all__ = ["StreamAssembler", "TextDelta"]

#: Pieces kept that came before one that is missing; what they hold comes with the answer at the latest.
_EARLY = 64
#: Characters of one streamed text: longer ones come with the answer.
_LONGEST = 1_000_000


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text to be shown: it replaces what is behind `at`. In almost every case that is nothing: it is appended."""

    at: int
    text: str

    def __str__(self) -> str:
        return self.text

    def after(self, text: str) -> str:
        """Returns the text so far with this applied."""
        return text[: self.at] + self.text


@dataclass(slots=True)
class StreamAssembler:
    """One request's text as far as it is known.

    Pieces of an attempt older than the newest seen are dropped. A newer attempt that writes the same shows nothing
    until it is further than the older one was; one that writes something else replaces it from where they differ.
    Applying all that was returned, in order, gives `text`; after `end` that is the whole text, whatever was lost.
    """

    #: what the caller has been shown
    text: str = ""
    _attempt: int = 0
    _next: int = 0
    #: what the newest attempt has written, without a gap
    _written: str = ""
    _early: dict[int, Piece] = field(default_factory=dict)

    def add(self, piece: Piece) -> TextDelta | None:
        """Takes a piece in; returns what is to be shown now, if anything."""
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
        """Takes the whole text in, as the answer has it; returns what is still to be shown, if anything."""
        return self._show(text) if text != self.text else None

    def _show(self, text: str) -> TextDelta:
        at = common_length(self.text, text)
        self.text = text
        return TextDelta(at, text[at:])
