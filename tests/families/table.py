"""All rows of the table of families."""

from tests.families.family import Family
from tests.families.speech import SPEECH

__all__ = ["FAMILIES"]

FAMILIES: list[Family] = [*SPEECH]
