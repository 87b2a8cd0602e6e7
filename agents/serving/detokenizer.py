"""One text while its tokens come: what may be shown of it, and whether it has ended. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

__all__ = ["Detokenizer"]

#: What a tokenizer gives for a character whose last bytes are still to come.
_UNFINISHED = "\ufffd"


@dataclass(slots=True)
class Detokenizer:
    """The text of one request.

    Args:
        decode: Tokens to text, without marks.
        stop: The text ends before the first of these.
        limit: Tokens at most.
    """

    decode: Callable[[Sequence[int]], str]
    stop: tuple[str, ...]
    limit: int
    #: what may be shown: it does not end with what may become a stop text or half a character, unless it has ended
    text: str = ""
    ended: bool = field(default=False)

    def take(self, tokens: Sequence[int], *, said_end: bool) -> None:
        """Takes in all tokens so far, and whether the end mark was said after them."""
        text = self.decode(tokens)
        found = [at for stop in self.stop if (at := text.find(stop)) >= 0]
        self.ended = said_end or bool(found) or len(tokens) >= self.limit
        if found:
            self.text = text[: min(found)].rstrip()
        elif self.ended:
            self.text = text
        else:
            self.text = text[: len(text) - self._held_back(text)].rstrip(_UNFINISHED)

    def _held_back(self, text: str) -> int:
        """Characters at the end that a stop text may begin with."""
        lengths = (n for stop in self.stop for n in range(1, len(stop)) if text.endswith(stop[:n]))
        return max(lengths, default=0)
