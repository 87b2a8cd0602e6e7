"""Turns one sequence's tokens into text while they arrive: what may be shown, and whether the text has ended. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Detokenizer"]

#: What a tokenizer decodes to if the last bytes of a character are still missing.
_UNFINISHED = "\ufffd"


@dataclass(slots=True)
class Detokenizer:
    """The text of one sequence.

    Args:
        decode: Returns the text of tokens, without special tokens.
        stop: Stop texts: the text ends before the first occurrence of any.
        limit: Most tokens.
    """

    decode: Callable[[Sequence[int]], str]
    stop: tuple[str, ...]
    limit: int
    #: what may be shown; until the end, without a suffix that may become a stop text, or an incomplete character
    text: str = ""
    ended: bool = field(default=False)
    #: why it ended: `stop` (the end-of-text token, or a stop text) or `length` (the limit was reached); empty before
    finished: str = ""

    def take(self, tokens: Sequence[int], *, said_end: bool) -> None:
        """Sets the tokens so far (all of them), and whether the end-of-text token followed."""
        text = self.decode(tokens)
        found = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        stopped = said_end or bool(found)
        self.ended = stopped or len(tokens) >= self.limit
        self.finished = "stop" if stopped else "length" if self.ended else ""
        if found:
            self.text = text[: min(found)].rstrip()
        elif self.ended:
            self.text = text
        else:
            self.text = text[: len(text) - self._held_back(text)].rstrip(_UNFINISHED)

    def _held_back(self, text: str) -> int:
        """Returns the length of the longest suffix with which a stop text may begin."""
        lengths = (n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(lengths, default=0)
