"""A checkpoint's tokenizer, within what its network can take: texts, or pairs of texts, to the network's arguments."""

from collections.abc import Sequence
from itertools import chain
from threading import Lock
from typing import Any

import torch

from s2m3.agents.checkpoints.exported.tokens import TokenSettings
from s2m3.agents.checkpoints.networks.loading import taken_by
from s2m3.agents.checkpoints.storage.part import CheckpointPart
from s2m3.agents.checkpoints.storage.preprocessing import read_tokenizer, token_limit
from s2m3.agents.embedding_cache import Ids, Tokens, check_tokens, pack
from s2m3.schemas.checkpoints.sentence_folders import SENTENCE
from s2m3.schemas.errors import BadInputError, ModuleFailedError

__all__ = ["TokenizedTexts"]


class TokenizedTexts:
    """Texts to token ids, and to what else the tokenizer says of each token and the network takes.

    `names` are the network's arguments that the tokenizer makes: `input_ids` first, then those of `token_type_ids` and
    `attention_mask` that can differ between two texts of one length. No text is padded to the length of another.

    Args:
        opened: The part.
        network: Its network.
    """

    def __init__(self, opened: CheckpointPart, network: Any) -> None:
        self._tokenizer = read_tokenizer(opened)
        #: a fast tokenizer keeps how it pads and cuts: no second thread may set that while one tokenizes
        self._lock = Lock()
        said = opened.checkpoint.config.get(SENTENCE, {}).get("limits", {})
        self._limit = min(token_limit(self._tokenizer, network.config), said.get("max_seq_length") or 1 << 30)
        self._lowers = bool(said.get("do_lower_case"))
        #: Some models were trained on texts padded to one length: the padding is part of the text.
        padded = opened.option("padding") == "longest-possible"
        self._padding = "max_length" if padded else "do_not_pad"
        told = ("token_type_ids", "attention_mask") if padded else ("token_type_ids",)
        made = [name for name in told if name in self._tokenizer.model_input_names and name in taken_by(network)]
        self.names = ("input_ids", *made)

    def __call__(
        self, texts: Sequence[str], pairs: Sequence[str] | None = None, *, cut: bool | str = True
    ) -> list[Tokens]:
        """Returns the tokens of each text, or of each text with its second one, cut to what fits.

        Args:
            texts: The texts.
            pairs: As many second texts.
            cut: transformers' strategy of truncation: True takes from the longer one of two.

        Raises:
            BadInputError: A text without a token, or too many tokens together.
        """
        given = [[text.lower() for text in some] if self._lowers else list(some) for some in (texts, pairs or ())]
        given = given[: 1 if pairs is None else 2]
        with self._lock:
            made = self._tokenizer(*given, truncation=cut, max_length=self._limit, padding=self._padding)
        if not all(made["input_ids"]):
            raise BadInputError("a text without a single token")
        tokens = [pack([*chain(*rows)]) for rows in zip(*(made[name] for name in self.names), strict=True)]
        check_tokens(tokens, len(self.names))
        return tokens

    def exported(self, cut: str = "longest_first") -> tuple[TokenSettings, bytes]:
        """Returns what an exported part needs to make the same tokens: settings, and a file of the package tokenizers.

        Args:
            cut: transformers' strategy of truncation.

        Raises:
            ModuleFailedError: The tokenizer is written in Python, which a part does not carry.
        """
        tokenizer = self._tokenizer
        if (backend := getattr(tokenizer, "backend_tokenizer", None)) is None:
            raise ModuleFailedError(f"its tokenizer, {type(tokenizer).__name__}, is none of the package tokenizers")
        padding = {}
        if self._padding == "max_length":
            kept = {"pad_id": "pad_token_id", "pad_type": "pad_token_type_id", "pad_token": "pad_token"}
            padding = {"padded": True, **{name: getattr(tokenizer, of) for name, of in kept.items()}}
        settings = TokenSettings.model_validate(
            {
                "names": self.names,
                "limit": self._limit,
                "lowers": self._lowers,
                "cut": cut,
                "cut_side": tokenizer.truncation_side,
                "pad_side": tokenizer.padding_side,
                **padding,
            }
        )
        return settings, backend.to_str().encode()

    def padded(self, text: str) -> torch.Tensor:
        """Returns the ids of a text that is padded to all that the network takes, (1, tokens)."""
        with self._lock:
            made = self._tokenizer([text], truncation=True, max_length=self._limit, padding="max_length")
        return torch.tensor(made["input_ids"])

    def tensors(self, packed: Ids) -> dict[str, torch.Tensor]:
        """Returns the network's arguments for texts of one length, (texts, tokens) each."""
        rows = torch.from_numpy(packed).long().chunk(len(self.names), dim=1)
        return dict(zip(self.names, rows, strict=True))
