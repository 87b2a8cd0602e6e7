"""Finds the words of a growing sound's transcript that will stay: those on which two transcripts agree. Pure.

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
    """The words of one window that were shown, and its previous transcript."""

    def __init__(self) -> None:
        self._shown: list[str] = []
        self._before: list[str] = []

    @property
    def shown(self) -> str:
        """The text that was shown."""
        return "".join(self._shown)

    def read(self, text: str) -> str:
        """Returns the addition of a new transcript to the text shown: words that the previous one had, too.

        The last word of a transcript is never shown: the sound may have ended within it.
        """
        words = _words(text)
        agreed = _common(words[:-1], self._before)
        self._before = words
        return self._show(words, agreed)

    def follow(self, text: str) -> str:
        """Returns the addition of the final transcript, which begins with `text`: all words of it but the last one."""
        words = _words(text)
        return self._show(words, len(words) - 1)

    def end(self, text: str) -> str:
        """Returns the addition of the complete final transcript; nothing if it does not begin with the text shown."""
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
    """Returns the number of words with which both begin; marks and capitals do not count."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if _bare(a) != _bare(b)), min(len(one), len(other)))


def _bare(word: str) -> str:
    return word.strip(_MARKS).casefold()
