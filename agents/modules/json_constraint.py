"""Texts that follow a JSON schema: which tokens may come next, and how a text is closed before its tokens run out.

llguidance says which tokens the schema allows. That alone makes no valid text of a model that never ends a string. So
it is known how many tokens an end takes, and when few more are left, only tokens are taken that leave an end.
"""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch

from s2m3.schemas import extras
from s2m3.schemas.errors import BadInputError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

__all__ = ["JsonConstraint", "JsonFormats"]

_ANY_OBJECT = {"type": "object"}
#: A model that may put in any blank puts in thousands.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
#: What closes a text soonest, in this order, outside strings and in them; anything else comes behind, shorter first.
_CLOSING = b'}]",0123456789ntf-.'
_CLOSING_STRING = b'"' + _CLOSING
#: Of the letters a to z, so many that may follow inside a string and nowhere else.
_LETTERS = 20
#: Characters that open or close something: other tokens leave as much to be closed as there was.
_STRUCTURE = frozenset(b'{}[]":,\\')
#: Tokens left beyond one and a half times what an end takes, with which any allowed token is taken.
_MARGIN = 64
#: The likeliest tokens that are tried for an end, where tokens are few.
_TRIED = 4


@dataclass(frozen=True)
class _Vocabulary:
    """What is known of each token: how soon it closes a text, and whether it opens or closes something."""

    rank: npt.NDArray[np.int64]
    rank_in_string: npt.NDArray[np.int64]
    #: tokens that are one of the letters a to z
    letters: npt.NDArray[np.int64]
    is_free: npt.NDArray[np.bool_]
    end: int

    @classmethod
    def of(cls, tokenizer: "LLTokenizer", ends: Collection[int]) -> "_Vocabulary":
        texts = [tokenizer.decode_bytes([token]) for token in range(tokenizer.vocab_size)]
        return cls(
            rank=_ranks(texts, _CLOSING),
            rank_in_string=_ranks(texts, _CLOSING_STRING),
            letters=np.flatnonzero([len(text) == 1 and text.islower() for text in texts]),
            is_free=np.array([_STRUCTURE.isdisjoint(text) and _is_whole(text) for text in texts]),
            end=min(ends),
        )

    def in_string(self, allowed: npt.NDArray[np.bool_]) -> bool:
        """Returns whether any letter may follow, as nowhere but in a string."""
        return bool(allowed[self.letters].sum() >= _LETTERS)

    def closest(self, allowed: npt.NDArray[np.bool_]) -> int:
        """Returns the allowed token that closes most."""
        found = np.flatnonzero(allowed)
        rank = self.rank_in_string if self.in_string(allowed) else self.rank
        return int(found[rank[found].argmin()])


def _is_whole(text: bytes) -> bool:
    """Returns whether a token is whole characters; else its character is still to be ended."""
    try:
        return bool(text.decode())
    except UnicodeDecodeError:
        return False


def _ranks(texts: Sequence[bytes], first: bytes) -> npt.NDArray[np.int64]:
    places = {bytes([char]): place for place, char in reversed(list(enumerate(first)))}
    return np.array([places.get(text, len(first) + len(text)) for text in texts])


class JsonFormats:
    """The forms that one model's texts can be given.

    Args:
        tokenizer: Of transformers, with a `backend_tokenizer`.
        vocabulary: Width of the logits.
        ends: Tokens that end a text.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Collection[int]) -> None:
        self._tokenizer, self._width, self._ends = tokenizer, vocabulary, ends
        self._made: tuple[LLTokenizer, _Vocabulary] | None = None

    def constraint(self, form: Literal["json"] | Mapping[str, Any], limit: int) -> "JsonConstraint":
        """Returns what has one text follow a form.

        Args:
            form: A JSON schema; `json` for any object.
            limit: Most tokens of the text, its end included.

        Raises:
            BadInputError: The schema is wrong or too large, or the model's tokenizer is of a kind that cannot be led.
        """
        try:
            from llguidance import LLMatcher  # noqa: PLC0415  # imported by the first such request
        except ModuleNotFoundError as error:
            raise BadInputError(f"options.format needs llguidance on the agent: {extras.hint('agent')}") from error
        tokenizer, vocabulary = self._made = self._made or self._read()
        schema = _ANY_OBJECT if form == "json" else form
        try:
            grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides=_COMPACT)  # type: ignore[arg-type]
        except ValueError as error:
            raise BadInputError(f"options.format: {error}"[:300]) from error
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        if matcher.is_error():
            raise BadInputError(f"options.format: {matcher.get_error()}"[:300])
        return JsonConstraint(matcher, vocabulary, limit)

    def _read(self) -> tuple["LLTokenizer", _Vocabulary]:
        from llguidance import LLTokenizer  # noqa: PLC0415

        try:
            backend = type(self._tokenizer.backend_tokenizer).from_str(self._tokenizer.backend_tokenizer.to_str())
            backend.no_padding()
            backend.no_truncation()
            made = LLTokenizer(backend.to_str(), n_vocab=self._width, eos_token=sorted(self._ends))
        except (AttributeError, ValueError) as error:
            raise BadInputError(f"options.format: this model's tokenizer cannot be led: {error}"[:300]) from error
        return made, _Vocabulary.of(made, self._ends)


class JsonConstraint:
    """A logits processor of transformers for one text.

    Args:
        matcher: Of llguidance, at the beginning.
        vocabulary: The model's tokens.
        limit: Most tokens of the text, its end included.
    """

    def __init__(self, matcher: "LLMatcher", vocabulary: _Vocabulary, limit: int) -> None:
        self._matcher, self._vocabulary, self._left = matcher, vocabulary, limit
        self._read = 0
        #: the tokens that end the text soonest, from here; None if no end fits into the limit
        self._closing = _soonest_end(matcher, vocabulary, limit)
        #: whether tokens came since that leave what is to be closed, but perhaps not these tokens
        self._is_stale = False
        #: whether the next token may be any letter
        self._in_string = False

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Returns scores (1, vocabulary), those of tokens that must not follow at minus infinity."""
        said = ids[0, self._read :].tolist() if self._read else []
        self._read = ids.shape[1]
        for token in said:
            self._take(token)
        return scores.masked_fill(~torch.from_numpy(self._kept(scores[0])), -torch.inf)

    def _take(self, token: int) -> None:
        self._left -= 1
        self._matcher.consume_token(token)
        if self._closing is None:
            return
        if self._closing and self._closing[0] == token:
            self._closing = self._closing[1:]
        elif self._vocabulary.is_free[token]:
            self._is_stale |= not self._in_string
        else:
            self._close_anew()

    def _close_anew(self) -> None:
        self._closing = _soonest_end(self._matcher, self._vocabulary, self._left)
        self._is_stale = False

    def _are_few_left(self) -> bool:
        return self._closing is not None and self._left <= len(self._closing) * 3 // 2 + _MARGIN

    def _kept(self, scores: torch.Tensor) -> npt.NDArray[np.bool_]:
        """Returns the tokens that may follow; scores are (vocabulary)."""
        width = scores.shape[-1]
        allowed = _mask(self._matcher, width)
        if self._matcher.is_error() or not allowed.any():  # nothing can follow: the text ends as it is
            return _only([self._vocabulary.end], width)
        self._in_string = self._vocabulary.in_string(allowed)
        if self._are_few_left() and (self._is_stale or not self._closing or not allowed[self._closing[0]]):
            self._close_anew()
        if self._closing is None or not self._are_few_left():
            return allowed
        likely = scores.masked_fill(~torch.from_numpy(allowed), -torch.inf).topk(min(_TRIED, width)).indices.tolist()
        leaving = [token for token in likely if allowed[token] and self._leaves_an_end(token)]
        return _only(leaving or self._closing[:1], width)

    def _leaves_an_end(self, token: int) -> bool:
        if token == self._vocabulary.end:
            return True
        if self._in_string and self._vocabulary.is_free[token] and self._closing is not None:
            return len(self._closing) < self._left  # the string may go on: what closes it is the same
        after = self._matcher.deep_copy()
        return after.consume_token(token) and _soonest_end(after, self._vocabulary, self._left - 1) is not None


def _only(tokens: Sequence[int], width: int) -> npt.NDArray[np.bool_]:
    found = np.zeros(width, dtype=bool)
    found[list(tokens)] = True
    return found


def _mask(matcher: "LLMatcher", width: int) -> npt.NDArray[np.bool_]:
    bits = np.unpackbits(np.frombuffer(matcher.compute_bitmask(), np.uint8), bitorder="little")
    found = np.zeros(width, dtype=bool)
    found[: min(width, len(bits))] = bits[:width]
    return found


def _soonest_end(matcher: "LLMatcher", vocabulary: _Vocabulary, most: int) -> list[int] | None:
    """Returns tokens that end a text soon, the end mark last; None if it takes more than `most`.

    It is not always the shortest end: each time the token is taken that closes most, as far as its character tells.
    """
    after, found = matcher.deep_copy(), list[int]()
    while len(found) < most:
        if after.is_accepting():
            return [*found, vocabulary.end]
        tokens = after.compute_ff_tokens()
        if not tokens:
            allowed = _mask(after, len(vocabulary.rank))
            if not allowed.any():
                return None
            tokens = [vocabulary.closest(allowed)]
        if not after.consume_tokens(tokens):
            return None
        found += tokens
    return None
