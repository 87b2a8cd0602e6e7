"""Which words of a transcript stay, while the sound goes on: those on which two readings agree. Pure.

The policy is LocalAgreement-2 (Macháček et al., "Turning Whisper into a real-time transcription system", 2023).
"""

import re

__all__ = ["Agreement"]

#: Scripts without blanks between words: there each character counts as a word.
_WIDE = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORDS = re.compile(rf"(?:[{_WIDE}]|[^\s{_WIDE}]+)\s*")
#: Marks at the ends of words, with the quotes and stops of other scripts.
_MARKS = " \t\n.,;:!?\u2026\"'()[]-\u00ab\u00bb\u201c\u201d\u201e\u2018\u2019\u3001\u3002\uff01\uff0c\uff1f"


class Agreement:
    """The words of one window that were shown, and its reading before."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._before: list[str] = []

    @property
    def shown(self) -> str:
        """The text that was shown."""
        return "".join(self._shown)

    def read(self, text: str) -> str:
        """Returns what a new reading adds to the text shown: words that the reading before had, too.

        The last word of a reading is never shown: the sound may have ended within it.
        """
        words = _words(text)
        agreed = _common(words[:-1], self._before)
        self._before = words
        return self._show(words, agreed)

    def follow(self, text: str) -> str:
        """Returns what the last reading adds, of which `text` is the beginning: all its words but the last one."""
        words = _words(text)
        return self._show(words, len(words) - 1)

    def end(self, text: str) -> str:
        """Returns what the whole of the last reading adds; nothing if it does not begin with what was shown."""
        words = _words(text)
        return self._show(words, len(words))

    def _show(self, words: list[str], until: int) -> str:
        begun = len(self._shown)
        if until <= begun or _common(words, self._shown) < begun:
            return ""
        self._shown += words[begun:until]
        return "".join(words[begun:until])


def _words(text: str) -> list[str]:
    return _WORDS.findall(text.lstrip())


def _common(one: list[str], other: list[str]) -> int:
    """Returns the number of words with which both begin, whatever their marks and capitals."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if _bare(a) != _bare(b)), min(len(one), len(other)))


def _bare(word: str) -> str:
    return word.strip(_MARKS).casefold()
