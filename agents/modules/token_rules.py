"""The settings of generation_config.json that change which token is chosen, applied to one text at a time.

Each setting is applied by transformers' own class, in the order of its `generate`, to the logits and tokens of one
text. So none depends on the texts beside it.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from transformers.generation import logits_process as own

from s2m3.schemas.wire.generation import Options

__all__ = ["FOLLOWED", "NO_RULES", "TokenRules"]

#: The keys that are followed here; `max_new_tokens`, `max_length`, `suppress_tokens` and the ends are read elsewhere.
FOLLOWED = (
    "repetition_penalty",
    "no_repeat_ngram_size",
    "bad_words_ids",
    "min_length",
    "min_new_tokens",
    "forced_bos_token_id",
    "forced_eos_token_id",
    "begin_suppress_tokens",
    "do_sample",
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "typical_p",
    "epsilon_cutoff",
    "eta_cutoff",
)
#: What `generate` takes for `top_k` where tokens are drawn and no number is given.
_TOP_K = 50
#: Options of a request that stand before the checkpoint's.
_ASKED = ("top_k", "top_p", "min_p")


class TokenRules:
    """The settings of one checkpoint.

    Args:
        generation: What generation_config.json holds; empty if there is none.
        ends: Tokens that end a text.

    Raises:
        ValueError: A setting has a value that transformers refuses.
        TypeError: A setting is of another type.
    """

    def __init__(self, generation: Mapping[str, Any], ends: Collection[int]) -> None:
        self._given = {key: generation[key] for key in FOLLOWED if generation.get(key) is not None}
        self._ends = torch.tensor(sorted(ends))
        self.processors(1, 1)
        self._warpers = _made_warpers(self._given) if self._given.get("do_sample") else None

    def temperature(self, asked: float | None) -> float:
        """Returns the temperature with which tokens are drawn; 0 if the likeliest is chosen.

        Args:
            asked: That of the request; None if it names none.
        """
        if asked is not None:
            return asked
        return float(self._given.get("temperature", 1.0)) if self._warpers is not None else 0.0

    def processors(self, prompt: int, limit: int) -> own.LogitsProcessorList:
        """Returns what is applied to the logits of each token of one text.

        Args:
            prompt: Tokens of its prompt.
            limit: Most tokens behind the prompt.
        """
        given, found = self._given, own.LogitsProcessorList()
        if given.get("repetition_penalty", 1.0) != 1.0:
            found.append(own.RepetitionPenaltyLogitsProcessor(float(given["repetition_penalty"])))
        if given.get("no_repeat_ngram_size"):
            found.append(own.NoRepeatNGramLogitsProcessor(given["no_repeat_ngram_size"]))
        if given.get("bad_words_ids"):
            found.append(own.NoBadWordsLogitsProcessor(given["bad_words_ids"], self._ends))
        if given.get("min_new_tokens"):
            found.append(own.MinNewTokensLengthLogitsProcessor(prompt, given["min_new_tokens"], self._ends))
        elif given.get("min_length"):
            found.append(own.MinLengthLogitsProcessor(given["min_length"], self._ends))
        if "forced_bos_token_id" in given:
            found.append(own.ForcedBOSTokenLogitsProcessor(given["forced_bos_token_id"]))
        if "forced_eos_token_id" in given:
            found.append(own.ForcedEOSTokenLogitsProcessor(prompt + limit, given["forced_eos_token_id"]))
        if "begin_suppress_tokens" in given:
            first = prompt + 1 if prompt == 1 and "forced_bos_token_id" in given else prompt
            found.append(own.SuppressTokensAtBeginLogitsProcessor(given["begin_suppress_tokens"], first))
        return found

    def warpers(self, options: Options) -> own.LogitsProcessorList | None:
        """Returns what leaves the tokens from which one is drawn: of the request, else of the checkpoint.

        It is called with the text and its prompt, (1, tokens), and with logits divided by the temperature,
        (1, vocabulary); tokens that must not be drawn come back at minus infinity.
        """
        asked = {name: value for name in _ASKED if (value := getattr(options, name)) is not None}
        if not asked:
            return self._warpers
        own_settings = self._given if self._warpers is not None else {"top_k": 0}
        return _made_warpers({**own_settings, **asked})


def _made_warpers(given: Mapping[str, Any]) -> own.LogitsProcessorList:
    found = own.LogitsProcessorList()
    if top_k := given.get("top_k", _TOP_K):
        found.append(own.TopKLogitsWarper(top_k))
    if given.get("top_p", 1.0) < 1.0:
        found.append(own.TopPLogitsWarper(given["top_p"]))
    if "min_p" in given:
        found.append(own.MinPLogitsWarper(given["min_p"]))
    if given.get("typical_p", 1.0) < 1.0:
        found.append(own.TypicalLogitsWarper(given["typical_p"]))
    if 0.0 < given.get("epsilon_cutoff", 0.0) < 1.0:
        found.append(own.EpsilonLogitsWarper(given["epsilon_cutoff"]))
    if 0.0 < given.get("eta_cutoff", 0.0) < 1.0:
        found.append(own.EtaLogitsWarper(given["eta_cutoff"]))
    return found


#: Those of a checkpoint without settings.
NO_RULES = TokenRules({}, ())
