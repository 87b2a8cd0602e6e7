"""Parameters, operations and memory of a checkpoint's parts, computed from the configuration without weights."""

from s2m3.schemas.sizes.cache import TextLength, cache_mb, text_length
from s2m3.schemas.sizes.counting import Count
from s2m3.schemas.sizes.formulas import passed, sizes_of
from s2m3.schemas.sizes.size import ANSWER_TOKENS, QUESTION_TOKENS, TEXT_TOKENS, Size

__all__ = [
    "ANSWER_TOKENS",
    "QUESTION_TOKENS",
    "TEXT_TOKENS",
    "Count",
    "Size",
    "TextLength",
    "cache_mb",
    "passed",
    "sizes_of",
    "text_length",
]
