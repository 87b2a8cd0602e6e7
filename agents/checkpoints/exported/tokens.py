"""A checkpoint's tokenizer without transformers: texts, or pairs of texts, to the arguments of an exported network."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
from tokenizers import Encoding, Tokenizer

from s2m3.agents.embedding_cache import Ids, Tokens, check_tokens, pack
from s2m3.agents.modules.ports import Config
from s2m3.agents.runtimes.network import Array
from s2m3.schemas.errors import BadInputError

__all__ = ["TOKENIZER_FILE", "ExportedTokens", "TokenSettings", "read_tokens"]

#: File of an exported part that has the tokenizer, in the format of the package tokenizers.
TOKENIZER_FILE = "tokenizer.json"
_OF_ENCODING = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}


class TokenSettings(Config):
    """What transformers sets of a tokenizer for each call.

    Args:
        names: What the network takes of the tokenizer: `input_ids` first.
        limit: Tokens that fit.
        lowers: Whether texts are made lower case first.
        cut: transformers' strategy of truncation: which one of two texts is cut.
        cut_side: Where texts are cut.
        padded: Whether every text is padded to the limit.
        pad_id: The token that pads.
        pad_type: The type of that token.
        pad_token: That token's text.
        pad_side: Where texts are padded.
    """

    names: tuple[Literal["input_ids", "token_type_ids", "attention_mask"], ...] = ("input_ids",)
    limit: int
    lowers: bool = False
    cut: Literal["longest_first", "only_first", "only_second"] = "longest_first"
    cut_side: Literal["left", "right"] = "right"
    padded: bool = False
    pad_id: int = 0
    pad_type: int = 0
    pad_token: str = "[PAD]"  # noqa: S105  # no password
    pad_side: Literal["left", "right"] = "right"


class ExportedTokens:
    """Texts to token ids and what else the network takes of each token. May be called from several threads.

    Args:
        tokenizer: Of the package tokenizers; its padding and truncation are set here.
        settings: Those of the checkpoint.
    """

    def __init__(self, tokenizer: Tokenizer, settings: TokenSettings) -> None:
        tokenizer.enable_truncation(settings.limit, strategy=settings.cut, direction=settings.cut_side)
        tokenizer.no_padding()
        if settings.padded:
            tokenizer.enable_padding(
                direction=settings.pad_side,
                pad_id=settings.pad_id,
                pad_type_id=settings.pad_type,
                pad_token=settings.pad_token,
                length=settings.limit,
            )
        self._tokenizer, self.settings = tokenizer, settings

    def __call__(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> list[Tokens]:
        """Returns the tokens of each text, or of each text with its second one, cut to what fits.

        Raises:
            BadInputError: A text without a token, or too many tokens together.
        """
        columns = [list(texts), *([list(pairs)] if pairs is not None else [])]
        if self.settings.lowers:
            columns = [[text.lower() for text in column] for column in columns]
        made = self._tokenizer.encode_batch(columns[0] if pairs is None else list(zip(*columns, strict=True)))
        if not all(one.ids for one in made):
            raise BadInputError("a text without a single token")
        tokens = [pack([*chain(*self._rows(one))]) for one in made]
        check_tokens(tokens, len(self.settings.names))
        return tokens

    def _rows(self, encoding: Encoding) -> list[list[int]]:
        return [getattr(encoding, _OF_ENCODING[name]) for name in self.settings.names]

    def arrays(self, packed: Ids) -> dict[str, Array]:
        """Returns the network's arguments for texts of one length, int64, (texts, tokens) each."""
        names = self.settings.names
        return dict(zip(names, np.split(packed.astype(np.int64), len(names), axis=1), strict=True))


def read_tokens(path: Path, settings: TokenSettings) -> ExportedTokens:
    """Returns the tokenizer of an exported part.

    Raises:
        Exception: It cannot be read; the package has no class of its own for that.
    """
    return ExportedTokens(Tokenizer.from_file(str(path)), settings)
